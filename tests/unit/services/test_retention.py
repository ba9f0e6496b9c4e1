"""What is removed when: by age, and by order."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services import retention
from services.logstore.none import NoLogStore
from services.retention import RetentionSettings, duration, tidy, written
from services.stores import Stores, StoreSettings, open_stores
from shared_models import env, times
from shared_models.app import App
from shared_models.call import Call, Finished, Status
from shared_models.call_interfaces import DeadLetter, DeadLetterFilter
from shared_models.errors import CallNotFound, StoreUnavailable
from shared_models.fn import Fn
from shared_models.ids import IdMaker, new_id
from shared_models.interfaces import CallFilter, Purge

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    settings = StoreSettings(datastore_url=f"sqlite:///{tmp_path}/fn.db", queue_url="memory://")
    async with open_stores(settings) as opened:
        yield opened


async def ended(stores: Stores, age: float, fn_id: str = "fn", count: int = 1) -> list[Call]:
    """Ended calls with a log, made *age* seconds ago."""
    new_id = IdMaker(clock=lambda: NOW - age)
    moment = times.to_text(NOW - age)
    calls = [
        Call(
            id=new_id(),
            fn_id=fn_id,
            app_id="app",
            status=Status.SUCCESS,
            created_at=moment,
            completed_at=moment,
        )
        for _ in range(count)
    ]
    await stores.logstore.finish_calls([Finished(call=call, log=b"words") for call in calls])
    return calls


async def left(stores: Stores, fn_id: str = "fn") -> set[str]:
    return {call.id for call in await stores.logstore.calls(CallFilter(fn_id=fn_id, limit=100))}


async def log_of(stores: Stores, call: Call) -> bytes:
    return b"".join([piece async for piece in await stores.logstore.log(call.id, fn_id=call.fn_id)])


async def tidied(stores: Stores, later: float = 0.0, **settings: float) -> None:
    await tidy(stores, RetentionSettings(**settings), lambda: NOW + later, pause=0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("", 0),
        ("90m", 5400),
        ("12h", 43200),
        ("30d", 30 * DAY),
        ("1w", 7 * DAY),
        ("1h30m", 5400),
        ("45s", 45),
    ],
)
def test_a_duration_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1.5h", "30 days", "1h 30m", "1y"])
def test_a_bad_duration_is_named_with_its_variable_and_the_rule(text: str) -> None:
    problems: list[str] = []
    env.read(RetentionSettings, {"FN_CALLS_RETENTION": text}, problems)
    assert len(problems) == 1
    assert "FN_CALLS_RETENTION" in problems[0]
    assert "30d" in problems[0]


@pytest.mark.parametrize("text", ["0", "45s", "90m", "12h", "30d", "1h30m", "2d5s", "142857w"])
def test_a_duration_is_written_as_it_is_read(text: str) -> None:
    assert duration(written(duration(text))) == duration(text)
    assert written(14 * DAY) == "14d"
    assert written(5400) == "1h30m"


async def dead(stores: Stores, age: float, count: int = 1, **more: str) -> list[str]:
    """Ids of calls that were given up *age* seconds ago."""
    owner = {"fn_id": "fn", "app_id": "app", **more}
    calls = [Call(id=new_id(), status=Status.ERROR, payload=b"x", **owner) for _ in range(count)]
    died_at = times.to_text(NOW - age)
    await stores.dead_letters.put([DeadLetter(call=call, died_at=died_at) for call in calls])
    return [call.id for call in calls]


async def buried(stores: Stores) -> set[str]:
    """Ids of all dead letters that are left."""
    return {letter.call.id for letter in await stores.dead_letters.page(DeadLetterFilter(limit=1000))}


async def test_dead_letters_are_kept_for_two_weeks_unless_another_age_is_set(stores: Stores) -> None:
    [old], [young] = await dead(stores, 14 * DAY + 1), await dead(stores, 14 * DAY - 1)
    await tidied(stores, dead_letters=0)
    assert await buried(stores) == {old, young}
    await tidied(stores)
    assert await buried(stores) == {young}
    await tidied(stores, dead_letters=13 * DAY)
    assert await buried(stores) == set()


async def test_dead_letters_of_a_removed_function_or_app_vanish_behind_it_and_late_ones_too(
    stores: Stores,
) -> None:
    app = await stores.datastore.insert_app(App(name="a"))
    fn = await stores.datastore.insert_fn(Fn(name="f", app_id=app.id, image="i:1"))
    mine = {"fn_id": fn.id, "app_id": app.id}
    [other] = await dead(stores, 10)
    await dead(stores, 10, retention.LETTERS + 1, **mine)
    [sibling] = await dead(stores, 10, fn_id="sibling", app_id=app.id)
    await stores.datastore.remove_fn(fn.id)
    [purge] = await stores.datastore.purges(10)
    made = times.seconds_of(purge.created_at) - NOW
    await tidied(stores, made, dead_letters=0)
    assert await buried(stores) == {other, sibling}
    await dead(stores, 0, **mine)
    await tidied(stores, made + 1800, dead_letters=0)
    assert await buried(stores) == {other, sibling}
    await stores.datastore.remove_app(app.id)
    await tidied(stores, made + 3700, dead_letters=0)
    assert await buried(stores) == {other}


async def test_an_order_stays_until_the_last_dead_letter_is_gone(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dead(stores, 10, 5)
    await stores.datastore.insert_purge(Purge(fn_id="fn"))
    [purge] = await stores.datastore.purges(10)
    later = times.seconds_of(purge.created_at) - NOW + 3700
    monkeypatch.setattr(retention, "LETTERS", 2)
    monkeypatch.setattr(retention, "MOST", 2)
    pending = []
    for _ in range(2):
        await tidied(stores, later)
        pending.append((len(await buried(stores)), len(await stores.datastore.purges(10))))
    assert pending == [(1, 1), (0, 0)]


async def test_an_order_of_a_range_of_calls_leaves_dead_letters(stores: Stores) -> None:
    letters = await dead(stores, 10)
    await stores.datastore.insert_purge(Purge(fn_id="fn", to_time=times.to_text(NOW)))
    await tidied(stores)
    assert await stores.datastore.purges(10) == []
    assert await buried(stores) == {*letters}


async def test_keys_that_ran_out_are_removed(stores: Stores) -> None:
    await stores.idempotency_keys.claim("fn", "old", "a", -1)
    await stores.idempotency_keys.claim("fn", "young", "a", DAY)
    await tidied(stores)
    assert await stores.idempotency_keys.expire(10) == 0
    assert await stores.idempotency_keys.claim("fn", "young", "b", DAY) == ("a", False)


class Away(NoLogStore):
    """A log store that does not answer."""

    async def remove_calls(self, purge: Purge, limit: int) -> int:
        raise StoreUnavailable

    async def expire_calls(self, older_than: str, limit: int) -> int:
        raise StoreUnavailable


async def test_a_log_store_that_is_away_keeps_no_dead_letter_from_its_grave(stores: Stores) -> None:
    [old], [purged] = await dead(stores, 15 * DAY), await dead(stores, 10, fn_id="gone")
    await stores.datastore.insert_purge(Purge(fn_id="gone"))
    without = dataclasses.replace(stores, logstore=Away())
    with pytest.raises(StoreUnavailable):
        await tidied(without, calls=DAY)
    assert await buried(stores) & {old, purged} == set()
    assert len(await stores.datastore.purges(10)) == 1


async def test_everything_is_kept_unless_an_age_is_set(stores: Stores) -> None:
    [old] = await ended(stores, 1000 * DAY)
    await tidied(stores)
    assert await left(stores) == {old.id}
    assert await log_of(stores, old) == b"words"


async def test_calls_of_an_age_are_removed_with_their_logs(stores: Stores) -> None:
    [old], [young] = await ended(stores, 31 * DAY), await ended(stores, 29 * DAY)
    await tidied(stores, calls=30 * DAY)
    assert await left(stores) == {young.id}
    with pytest.raises(CallNotFound):
        await stores.logstore.call(old.id, fn_id="fn")
    assert await log_of(stores, young) == b"words"


async def test_logs_may_go_before_their_calls(stores: Stores) -> None:
    [old], [young] = await ended(stores, 8 * DAY), await ended(stores, 6 * DAY)
    await tidied(stores, calls=30 * DAY, logs=7 * DAY)
    assert await left(stores) == {old.id, young.id}
    assert await log_of(stores, old) == b""
    assert await log_of(stores, young) == b"words"


async def test_a_round_ends_and_the_next_goes_on(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    await ended(stores, 2 * DAY, count=10)
    monkeypatch.setattr(retention, "BATCH", 3)
    monkeypatch.setattr(retention, "MOST", 2)
    counts = []
    for _ in range(3):
        await tidied(stores, calls=DAY)
        counts.append(len(await left(stores)))
    assert counts == [4, 0, 0]


async def test_the_calls_of_a_removed_function_vanish_behind_it_and_late_ones_too(stores: Stores) -> None:
    app = await stores.datastore.insert_app(App(name="a"))
    fn = await stores.datastore.insert_fn(Fn(name="f", app_id=app.id, image="i:1"))
    await ended(stores, 10, fn.id)
    [other] = await ended(stores, 10)
    await stores.datastore.remove_fn(fn.id)
    [purge] = await stores.datastore.purges(10)
    made = times.seconds_of(purge.created_at) - NOW
    await tidied(stores, made)
    assert await left(stores, fn.id) == set()
    await ended(stores, 0, fn.id)
    await tidied(stores, made + 1800)
    assert await left(stores, fn.id) == set()
    assert await stores.datastore.purges(10) == [purge]
    await tidied(stores, made + 3700)
    assert await stores.datastore.purges(10) == []
    assert await left(stores) == {other.id}


async def test_an_order_with_a_range_is_done_when_nothing_is_left(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(stores, 5 * DAY, count=5)
    [young] = await ended(stores, DAY)
    await stores.datastore.insert_purge(Purge(fn_id="fn", to_time=times.to_text(NOW - 2 * DAY)))
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "MOST", 2)
    pending = []
    for _ in range(2):
        await tidied(stores)
        pending.append(len(await stores.datastore.purges(10)))
    assert pending == [1, 0]
    assert await left(stores) == {young.id}


async def test_of_two_nodes_one_has_the_lock_until_it_runs_out(stores: Stores) -> None:
    hold = stores.datastore.hold
    assert [await hold("janitor", node, 60) for node in "aba"] == [True, False, True]
    assert await hold("janitor", "a", 0)
    assert await hold("janitor", "b", 60)
