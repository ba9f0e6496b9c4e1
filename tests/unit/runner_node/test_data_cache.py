"""Look-ups from memory, on a loop whose clock the test moves."""

from __future__ import annotations

import asyncio

import pytest

from runner_node import data_cache
from runner_node.data_cache import CachedDataAccess
from shared_models import errors
from shared_models.app import App
from shared_models.fn import Fn
from tests.unit.runner_node.scripted_data import ScriptedData

STALE = 600.0


@pytest.fixture
def inner() -> ScriptedData:
    data = ScriptedData()
    data.fns["f"] = Fn(id="f", image="one")
    data.apps["a"] = App(id="a", name="name")
    return data


@pytest.fixture
def clock():
    """Moves the age of entries, not the loop's own timers."""

    class Clock:
        now = 1000.0

        def time(self) -> float:
            return self.now

    return Clock()


@pytest.fixture
async def cache(inner, clock):
    cached = CachedDataAccess(inner, STALE)
    cached._loop = clock
    return cached


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_fresh_answer_is_not_asked_for_again(cache, inner):
    first = await cache.fn("f")
    assert await cache.fn("f") is first
    assert inner.asked["fn"] == 1


async def test_many_who_ask_at_once_share_one_request(cache, inner):
    inner.gate.clear()
    asking = [asyncio.create_task(cache.fn("f")) for _ in range(20)]
    await settle()
    inner.gate.set()
    assert len({id(fn) for fn in await asyncio.gather(*asking)}) == 1
    assert inner.asked["fn"] == 1


async def test_an_answer_that_ages_is_refreshed_in_the_background(cache, inner, clock):
    await cache.fn("f")
    inner.fns["f"] = Fn(id="f", image="two")
    clock.now += data_cache.AHEAD + 0.1
    assert (await cache.fn("f")).image == "one"
    await settle()
    assert (await cache.fn("f")).image == "two"


async def test_a_change_is_seen_after_five_seconds_at_the_latest(cache, inner, clock):
    await cache.fn("f")
    inner.fns["f"] = Fn(id="f", image="two")
    clock.now += data_cache.FRESH + 0.1
    assert (await cache.fn("f")).image == "two"


async def test_what_is_known_to_have_changed_is_asked_for_at_once_and_served_as_it_was_meanwhile(
    cache, inner, clock
):
    assert (await cache.fn("f")).image == "one"
    inner.fns["f"] = Fn(id="f", image="two")
    cache.outdated("fn", "f")
    cache.outdated("fn", "never asked for")
    assert (await cache.fn("f")).image == "two"
    assert inner.asked["fn"] == 2
    cache.outdated("fn", "f")
    inner.away = True
    assert (await cache.fn("f")).image == "two"


async def test_a_deleted_function_is_gone_after_five_seconds(cache, inner, clock):
    await cache.fn("f")
    del inner.fns["f"]
    clock.now += data_cache.FRESH + 0.1
    with pytest.raises(errors.FnNotFound):
        await cache.fn("f")


async def test_not_found_is_remembered_for_a_second(cache, inner, clock):
    for _ in range(3):
        with pytest.raises(errors.FnNotFound):
            await cache.fn("new")
    assert inner.asked["fn"] == 1
    inner.fns["new"] = Fn(id="new")
    clock.now += data_cache.MISSING + 0.1
    assert (await cache.fn("new")).id == "new"


async def test_what_is_known_is_served_while_the_api_node_is_away(cache, inner, clock):
    await cache.fn("f")
    inner.away = True
    clock.now += 60
    assert (await cache.fn("f")).image == "one"
    inner.away = False
    inner.fns["f"] = Fn(id="f", image="two")
    await cache.fn("f")  # served stale once more; the refresh that it starts finds the node back
    await settle()
    assert (await cache.fn("f")).image == "two"


async def test_what_is_known_is_served_when_the_api_node_hangs(cache, inner, clock, monkeypatch):
    monkeypatch.setattr(data_cache, "PATIENCE", 0.01)
    await cache.fn("f")
    inner.gate.clear()
    clock.now += 60
    assert (await cache.fn("f")).image == "one"
    inner.gate.set()
    await settle()


async def test_while_the_api_node_hangs_each_look_up_waits_for_it_once_and_not_long(
    cache, inner, clock, monkeypatch
):
    monkeypatch.setattr(data_cache, "PATIENCE", 2.0)
    await cache.fn("f")
    await cache.app("a")
    inner.gate.clear()
    clock.now += 60
    loop = asyncio.get_running_loop()
    for patience in (data_cache.PATIENCE, 0.0):
        began = loop.time()
        fn, app = await asyncio.gather(cache.fn("f"), cache.app("a"))
        assert (fn.image, app.name) == ("one", "name")
        assert patience * 0.9 <= loop.time() - began < patience + 1.9
        clock.now += 60
    inner.gate.set()
    await settle()
    assert inner.asked["fn"] == 2


async def test_nothing_is_served_for_ever(cache, inner, clock):
    await cache.fn("f")
    inner.away = True
    clock.now += STALE + 1
    with pytest.raises(errors.APINodeUnavailable):
        await cache.fn("f")


async def test_what_was_never_known_cannot_be_served(cache, inner):
    inner.away = True
    with pytest.raises(errors.APINodeUnavailable):
        await cache.fn("f")
    inner.away = False
    assert (await cache.fn("f")).image == "one"


async def test_an_unchanged_answer_stays_the_same_object(cache, inner, clock):
    first = await cache.fn("f")
    inner.fns["f"] = Fn(id="f", image="one")
    clock.now += data_cache.FRESH + 0.1
    assert await cache.fn("f") is first


async def test_memory_is_bounded(cache, inner, monkeypatch):
    monkeypatch.setattr(data_cache, "SIZE", 3)
    for number in range(10):
        inner.fns[f"n{number}"] = Fn(id=f"n{number}")
        await cache.fn(f"n{number}")
    assert len(cache._entries) == 3
