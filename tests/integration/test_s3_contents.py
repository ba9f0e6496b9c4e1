"""What the log store on S3 keeps and removes, on a server that knows little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import msgspec
import pytest

from services.logstore import open_logstore
from services.logstore import s3_keys as keys
from shared_models import errors, times
from shared_models.call import Call, Lease, LeasedCall, LeaseKey
from shared_models.ids import IdMaker
from shared_models.interfaces import CallFilter, Purge
from tests.integration.s3_calls import a_call, ended, started
from tests.integration.s3_plain import Plain, plain_server
from tests.servers.proxy import proxy

FIRST = times.seconds_of("2027-01-15T08:00:00.000Z")


@pytest.fixture
async def plain() -> AsyncIterator[Plain]:
    async with plain_server() as server:
        yield server


def made_at(moment: float, app_id: str, fn_id: str = "fn") -> Call:
    return a_call(
        id=IdMaker(1, partial(float, moment))(),
        app_id=app_id,
        fn_id=fn_id,
        type="sync",
        created_at=times.to_text(moment),
    )


async def test_a_whole_life_on_a_server_that_knows_little(
    plain: Plain, caplog: pytest.LogCaptureFixture
) -> None:
    call = a_call()
    async with open_logstore(plain.url) as store:
        assert "does not keep conditions of writes" in caplog.text
        assert not plain.objects
        lease = Lease(token="t", attempt=1, ttl=30)
        inserted = await asyncio.gather(*[store.insert_call(call) for _ in range(4)])
        assert sorted(inserted) == [False, False, False, True]
        assert await store.claim([LeasedCall(call=call, lease=lease)], "node") == []
        await store.start_call(LeaseKey(call.id, "t"), times.NEVER)
        results = [ended(call, status=status) for status in ("success", "error")]
        refused = await asyncio.gather(*[store.finish_calls([one]) for one in results])
        assert sorted(refused) == [[], [call.id]]
        kept = await store.call(call.id, app_id="app")
        assert (kept.status, kept.attempt, kept.node) == (
            "success" if refused[0] == [] else "error",
            1,
            "node",
        )
        assert [one.id for one in await store.calls(CallFilter())] == [call.id]
        assert await store.remove_calls(Purge(app_id="app"), 10) == 1
    assert not plain.objects
    # It is asked once whether it removes many.
    assert plain.asked.count("POST") == 1


async def test_names_and_texts_of_any_script_are_kept(plain: Plain) -> None:
    path = "/straße/𝕊3/日本"
    call = a_call(path=path, image="𝕊:1", config={"größe": "🦆"})
    async with open_logstore(plain.url) as store:
        await store.insert_call(call)
        await store.claim([LeasedCall(call=call, lease=Lease(token="t", attempt=1, ttl=30))], "knöten 🦆")
        await store.start_call(LeaseKey(call.id, "t"), times.NEVER)
        result = ended(
            msgspec.structs.replace(call, error="schief: 🦆\u2028\x00"), status="error", log=b"\xff\x00"
        )
        assert await store.finish_calls([result]) == []
        [found] = await store.calls(CallFilter(app_id="app", path=path))
        assert (found.path, found.image, found.config) == (path, "𝕊:1", {"größe": "🦆"})
        assert (found.error, found.node) == ("schief: 🦆\u2028\x00", "knöten 🦆")
        assert await store.finish_calls([result]) == []
        assert b"".join([piece async for piece in await store.log(call.id, fn_id="fn")]) == b"\xff\x00"
        assert await store.calls(CallFilter(app_id="app", path="/straße")) == []


async def test_a_reason_is_kept_beside_the_record_that_is_as_fn_writes_it(plain: Plain) -> None:
    call = a_call(type="sync")
    async with open_logstore(plain.url) as store:
        result = msgspec.structs.replace(call, reason="oom", error="killed")
        assert await store.finish_calls([ended(result, status="error", token="")]) == []
        assert (await store.call(call.id, app_id="app")).reason == "oom"
    [record] = [body for key, body in plain.objects.items() if key.startswith("c/")]
    assert b'"error":"killed"' in record
    assert b"oom" not in record


@pytest.mark.parametrize(("length", "count"), [(2**22, 64), (2**22 + 1, 65), (1, 1), (0, 0)])
async def test_a_long_log_comes_in_pieces(plain: Plain, length: int, count: int) -> None:
    log = (bytes(range(256)) * 2**15)[:length]
    call = a_call(type="sync")
    async with open_logstore(plain.url) as store:
        await store.finish_calls([ended(call, token="", log=log)])
        pieces = [piece async for piece in await store.log(call.id, app_id="app")]
    assert b"".join(pieces) == log
    assert len(pieces) == count


async def test_a_server_that_falls_silent_in_the_middle_of_a_log_is_unavailable_in_time(plain: Plain) -> None:
    call = a_call(type="sync")
    async with proxy(plain.port) as network:
        url = plain.url.replace(f":{plain.port}/", f":{network.port}/")
        async with open_logstore(f"{url}?timeout=3&connect_timeout=3") as store, asyncio.timeout(60):
            await store.finish_calls([ended(call, token="", log=b"x" * 2**24)])
            pieces = await store.log(call.id, app_id="app")
            await anext(pieces)
            network.hang()
            with pytest.raises(errors.StoreUnavailable):
                async for _ in pieces:
                    pass
            with pytest.raises(errors.StoreUnavailable):
                await store.finish_calls([ended(a_call(type="sync"), token="")])
            network.flow()
            assert (await store.call(call.id, app_id="app")).id == call.id


async def test_the_old_go_whichever_app_they_are_of_and_the_young_and_the_running_stay(plain: Plain) -> None:
    old = [made_at(FIRST + number, f"app-{number % 3}") for number in range(9)]
    young = [made_at(FIRST + 1000 + number, f"app-{number % 3}") for number in range(3)]
    running = msgspec.structs.replace(made_at(FIRST + 20, "app-1"), type="async")
    border = times.to_text(FIRST + 500)
    async with open_logstore(plain.url) as store:
        await store.finish_calls([ended(call, token="") for call in (*old, *young)])
        await started(store, running)
        assert [await store.expire_logs(border, 5) for _ in range(3)] == [5, 4, 0]
        for call in old:
            assert [piece async for piece in await store.log(call.id, app_id=call.app_id)] == []
        assert [await store.expire_calls(border, 5) for _ in range(3)] == [5, 4, 0]
        left = {call.id for call in await store.calls(CallFilter())}
        assert left == {call.id for call in (*young, running)}
        assert [piece async for piece in await store.log(young[0].id, app_id="app-0")] == [b"log"]
    assert {key.split("/")[1] for key in plain.objects if key.startswith("l/")} == {"app-0", "app-1", "app-2"}
    assert len([key for key in plain.objects if key.startswith(("c/", "f/", "m/"))]) == 12


@pytest.mark.parametrize(
    ("purge", "left"),
    [
        (Purge(app_id="a"), {"b-f", "b-g"}),
        (Purge(fn_id="f"), {"a-g", "b-g"}),
        (Purge(app_id="b", fn_id="g"), {"a-f", "a-g", "b-f"}),
        (Purge(app_id="b", to_time=times.to_text(FIRST + 350)), {"a-f", "a-g", "b-g"}),
        (Purge(app_id="unknown"), {"a-f", "a-g", "b-f", "b-g"}),
        (Purge(), {"a-f", "a-g", "b-f", "b-g"}),
    ],
)
async def test_a_purge_takes_what_it_names_and_nothing_else(
    plain: Plain, purge: Purge, left: set[str]
) -> None:
    names = ("a-f", "a-g", "b-f", "b-g")
    made = [made_at(FIRST + 100 * (1 + at), *name.split("-")) for at, name in enumerate(names)]
    async with open_logstore(plain.url) as store:
        await store.finish_calls([ended(call, token="") for call in made])
        removed = 0
        while count := await store.remove_calls(purge, 1):
            assert count == 1
            removed += count
        assert removed == 4 - len(left)
        assert {f"{one.app_id}-{one.fn_id}" for one in await store.calls(CallFilter())} == left
    assert len(plain.objects) == 4 * len(left)


async def test_pages_of_calls_in_flight_fetch_each_record_once(plain: Plain) -> None:
    made = [made_at(FIRST + number, "app") for number in range(12)]
    page, found = CallFilter(status="running", limit=5), list[str]()
    async with open_logstore(plain.url) as store:
        for call in made:
            await started(store, call)
        before = len(plain.asked)
        while calls := await store.calls(page):
            found += [call.id for call in calls]
            page = msgspec.structs.replace(page, before=calls[-1].id)
    assert found == sorted((call.id for call in made), reverse=True)
    assert len(plain.asked) - before == 12 + 4  # records, and a listing for each page


async def test_a_record_that_cannot_be_read_stands_in_nobodys_way(plain: Plain) -> None:
    """An older version, a tool or a disk left something else there."""
    broken, over, good = a_call(), a_call(), a_call()
    async with open_logstore(plain.url) as store:
        for call in (broken, good):
            await started(store, call)
        plain.objects[keys.live(broken.id)] = b"{"
        assert await store.finish_calls([ended(broken), ended(good)]) == [broken.id]
        await started(store, over)
        assert await store.finish_calls([ended(over)]) == []
        plain.objects[keys.record(over.app_id, over.id)] = b"{"
        leased = [LeasedCall(call=call, lease=Lease(token="u", attempt=2)) for call in (broken, over)]
        assert await store.claim(leased, "node") == [over.id]
        await store.start_call(LeaseKey(broken.id, "u"), times.NEVER)
        assert await store.finish_calls([ended(broken, "u")]) == []
        assert (await store.call(broken.id, app_id="app")).status == "success"
