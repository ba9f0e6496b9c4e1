"""What is removed when: by age, and by order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services import retention
from services.retention import RetentionSettings, duration, tidy
from services.stores import Stores, StoreSettings, open_stores
from shared_models import env, times
from shared_models.app import App
from shared_models.call import Call, Finished, Status
from shared_models.errors import CallNotFound
from shared_models.fn import Fn
from shared_models.ids import IdMaker
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
