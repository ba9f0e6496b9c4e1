"""Nodes that share a log store on S3: those that are late, die in between, or meet what others left."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from services.logstore import open_logstore, s3_records
from services.logstore import s3_keys as keys
from services.logstore.s3 import S3LogStore
from services.logstore.s3_objects import Objects
from services.logstore.s3_opening import open_objects
from shared_models import errors, times
from shared_models.call import Call, Lease, LeasedCall, LeaseKey
from shared_models.ids import new_id
from shared_models.interfaces import CallFilter, LogStore, Purge
from tests.integration.s3_calls import a_call, ended, settings_of, started
from tests.wire.objects import objects_at

PAGES = (CallFilter(app_id="app"), CallFilter(fn_id="fn"), CallFilter(app_id="app", path="/some/path"))


@pytest.fixture
def url(s3: Any) -> str:
    """A store of the test's own on the server of all tests."""
    return f"{s3.url}?prefix=t-{new_id().lower()}"


def leased(call: Call, attempt: int = 1, token: str = "t") -> list[LeasedCall]:
    return [LeasedCall(call=call, lease=Lease(token=token, attempt=attempt, ttl=30))]


async def log_of(store: LogStore, call: Call) -> bytes:
    return b"".join([piece async for piece in await store.log(call.id, app_id=call.app_id)])


def hold(objects: Objects, prefix: str) -> tuple[asyncio.Event, asyncio.Event]:
    """Puts of keys that begin so wait: an event that one does, and one that lets them go."""
    put, waits, go = objects.put, asyncio.Event(), asyncio.Event()

    async def held(key: str, body: bytes, **more: Any) -> bool:
        if key.startswith(prefix):
            waits.set()
            await go.wait()
        return await put(key, body, **more)

    objects.put = held  # type: ignore[method-assign]
    return waits, go


class Died(Exception):
    pass


def die(patch: pytest.MonkeyPatch, steps: int) -> None:
    """What changes objects works *steps* times from now, and never again."""
    count = itertools.count()

    def dying(verb: Callable[..., Any]) -> Callable[..., Any]:
        async def work(*arguments: Any, **named: Any) -> Any:
            if next(count) >= steps:
                raise Died
            return await verb(*arguments, **named)

        return work

    for name in ("put", "delete"):
        patch.setattr(Objects, name, dying(getattr(Objects, name)))
    patch.setattr(s3_records, "AT_ONCE", 1)


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_call_that_a_node_began_to_record_is_found_once_it_is_recorded_again(
    url: str, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    call = a_call()
    async with open_logstore(url) as store:
        with monkeypatch.context() as patch:
            die(patch, steps)
            with pytest.raises(Died):
                await store.insert_call(call)
        assert await store.insert_call(call) is False
        for page in PAGES:
            assert [one.id for one in await store.calls(page)] == [call.id]
        assert (await store.call(call.id, fn_id="fn")).status == "queued"


# -- at once ----------------------------------------------------------------------------------


async def test_of_two_nodes_that_start_one_call_one_wins(url: str) -> None:
    call = a_call()
    async with open_logstore(url) as one, open_logstore(url) as other:
        await one.insert_call(call)
        await one.claim([LeasedCall(call=call, lease=Lease(token="t", attempt=1, ttl=30))], "node")
        starts = [store.start_call(LeaseKey(call.id, ""), times.NEVER) for store in (one, other)]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        assert sorted(repr(outcome) for outcome in outcomes) == sorted(["None", repr(errors.LeaseLost())])


async def test_of_two_results_of_one_call_one_is_kept(url: str) -> None:
    async with open_logstore(url) as one, open_logstore(url) as other:
        call = await started(one, a_call())
        refused = await asyncio.gather(
            one.finish_calls([ended(call)]), other.finish_calls([ended(call, status="error")])
        )
        assert sorted(refused) == [[], [call.id]]
        kept = "success" if refused[0] == [] else "error"
        assert [record.status for record in await one.calls(CallFilter(fn_id="fn"))] == [kept]
        assert (await other.call(call.id, app_id="app")).status == kept


# -- late --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["insert_call", "claim"])
@pytest.mark.parametrize("prefix", ["q/", "m/", "f/", "c/"])
async def test_a_node_that_is_late_does_not_undo_the_end_of_a_call(url: str, prefix: str, verb: str) -> None:
    call = a_call()
    async with open_objects(settings_of(url)) as objects, open_logstore(url) as other:
        waits, go = hold(objects, prefix)
        late = S3LogStore(objects, time.time)
        recording: asyncio.Future[Any] = asyncio.ensure_future(
            late.insert_call(call) if verb == "insert_call" else late.claim(leased(call), "late")
        )
        await waits.wait()
        await started(other, call)
        assert await other.finish_calls([ended(call)]) == []
        go.set()
        assert await recording == (False if verb == "insert_call" else [call.id])
        for page in PAGES:
            assert [one.status for one in await other.calls(page)] == ["success"]
        assert await log_of(other, call) == b"log"
        assert await other.claim(leased(call, attempt=2), "node") == [call.id]
    assert not [key for key in await objects_at(url) if key.startswith("q/")]


# -- dead --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(2, 6))
async def test_a_call_whose_node_died_once_its_end_was_decided_is_read_as_ended_and_never_runs_again(
    url: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_logstore(url) as store, open_logstore(url) as other:
        call = await started(store, a_call())
        with monkeypatch.context() as patch:
            die(patch, steps)
            with pytest.raises(Died):
                await store.finish_calls([ended(call)])
        assert (await other.call(call.id, app_id="app")).status == "success"
        for page in PAGES:
            assert [one.status for one in await other.calls(page)] == ["success"]
        assert await log_of(other, call) == b"log"
        assert await other.unqueued("2090-01-01T00:00:00.000Z", 10) == []
        assert not await other.insert_call(call)
        with pytest.raises(errors.LeaseLost):
            await other.start_call(LeaseKey(call.id, "t"), "2027-01-15T08:00:02.000Z")
        assert await other.claim(leased(call, attempt=2), "node") == [call.id]
        assert not [key for key in await objects_at(url) if key.startswith("q/")]
        assert await other.remove_calls(Purge(fn_id="fn"), 10) == 1
    assert await objects_at(url) == {}


@pytest.mark.parametrize("steps", [0, 1])
async def test_a_call_whose_node_died_before_its_end_was_decided_runs_again(
    url: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_logstore(url) as store, open_logstore(url) as other:
        call = await started(store, a_call())
        with monkeypatch.context() as patch:
            die(patch, steps)
            with pytest.raises(Died):
                await store.finish_calls([ended(call, log=b"of the first attempt")])
        with pytest.raises(errors.CallLogNotFound):
            await other.log(call.id, app_id="app")
        assert await other.claim(leased(call, attempt=2, token="u"), "node") == []
        await other.start_call(LeaseKey(call.id, "u"), "2027-01-15T08:00:02.000Z")
        assert await other.finish_calls([ended(call, token="u", log=b"")]) == []
        assert await log_of(other, call) == b""


@pytest.mark.parametrize("steps", range(1, 6))
async def test_a_sync_call_whose_node_died_while_it_recorded_it_is_recorded_by_a_repetition(
    url: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_logstore(url) as store, open_logstore(url) as other:
        result = ended(a_call(type="sync"), token="")
        with monkeypatch.context() as patch:
            die(patch, steps)
            if steps < 4:
                with pytest.raises(Died):
                    await store.finish_calls([result])
            else:
                assert await store.finish_calls([result]) == []
        found = await other.calls(CallFilter(fn_id="fn"))
        assert [one.id for one in found] == ([result.call.id] if steps >= 4 else [])
        assert await other.finish_calls([result]) == []
        assert [one.status for one in await other.calls(CallFilter(fn_id="fn"))] == ["success"]
        assert await log_of(other, result.call) == b"log"


@pytest.mark.parametrize("steps", range(1, 3))
async def test_a_call_that_a_dead_node_withdrew_in_part_is_listed_no_more_and_may_come_again(
    url: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_logstore(url) as store, open_logstore(url) as other:
        call = a_call(type="async")
        await store.insert_call(call)
        with monkeypatch.context() as patch:
            die(patch, steps)
            with pytest.raises(Died):
                await store.remove_call(call.id)
        if steps == 1:
            assert await other.unqueued("2090-01-01T00:00:00.000Z", 10) == [call.id]
            await other.remove_call(call.id)
            assert await objects_at(url) == {}
        else:
            assert await other.calls(CallFilter(app_id="app")) == []
        async with asyncio.timeout(60):
            assert await other.finish_calls([ended(call, token="")]) == []
        assert [one.status for one in await other.calls(CallFilter(app_id="app"))] == ["success"]


@pytest.mark.parametrize("steps", range(1, 6))
async def test_a_node_that_dies_while_it_ends_a_call_is_stood_in_for(
    url: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_logstore(url) as store, open_logstore(url) as other:
        call = await started(store, a_call())
        with monkeypatch.context() as patch:
            die(patch, steps)
            with pytest.raises(Died):
                await store.finish_calls([ended(call)])
        # Its runner, not answered, tells another node the same.
        assert await other.finish_calls([ended(call)]) == []
        assert await other.finish_calls([ended(call, status="error")]) == [call.id]
        assert [one.status for one in await other.calls(PAGES[0])] == ["success"]
        assert await log_of(other, call) == b"log"
    assert not [key for key in await objects_at(url) if key.startswith("q/")]


# -- left by others ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b"\xff{", b"[]", b'{"id": 1}', b'{"id": "no id"}', b'{"created_at": "soon"}']
)
async def test_an_object_that_is_no_record_is_told_and_passed_over_in_listings(
    url: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_objects(settings_of(url)) as objects:
        store = S3LogStore(objects, time.time)
        kept = [await started(store, a_call()) for _ in range(3)]
        broken, lost = a_call(), a_call()
        await objects.put(keys.record("app", broken.id), body)
        await objects.put(keys.live(lost.id), body)
        for page in (CallFilter(app_id="app"), CallFilter(status="running")):
            found = await store.calls(page)
            assert {one.id for one in found} == {call.id for call in kept}
        async with asyncio.timeout(60):
            with pytest.raises(errors.StoreUnavailable, match="does not answer"):
                await store.call(broken.id, app_id="app")
            for call in (broken, lost):
                with pytest.raises(errors.StoreUnavailable):
                    await store.insert_call(call)
                # Neither stands in the way of what comes beside it.
                assert await store.finish_calls([ended(call)]) == [call.id]
            assert await store.claim(leased(broken), "node") == [broken.id], "it may have ended"
            assert await store.claim(leased(lost), "node") == [], "the queue has all of it"
    assert "that is no record of a call: " in caplog.text
