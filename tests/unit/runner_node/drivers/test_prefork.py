"""When network namespaces are made ready, and when not; the engine is a scripted maker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from runner_node.drivers import prefork
from runner_node.drivers.holder import Holder
from runner_node.drivers.prefork import Prefork
from runner_node.loops import looping
from shared_models import errors

LIMIT = 10.0


class Held:
    """What the pool asks of a holder."""

    def __init__(self, name: str, alive: bool = True) -> None:
        self.name = name
        self.alive = alive
        self.on_end: Callable[[Held], None] | None = None

    async def runs(self) -> bool:
        return self.alive

    def dies(self) -> None:
        self.alive = False
        if self.on_end:
            self.on_end(self)


class Maker:
    """Makes them by number, and notes which were ended."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Held]] = []
        self.ended: list[str] = []
        self.fails = 0
        self.without: set[str] = set()
        self.may_make = asyncio.Event()
        self.may_make.set()

    async def make(self, network: str) -> Holder | None:
        await self.may_make.wait()
        if self.fails:
            self.fails -= 1
            raise errors.EngineUnavailable(detail="scripted")
        if network in self.without:
            return None
        held = Held(f"{network}{len(self.made)}")
        self.made.append((network, held))
        return cast("Holder", held)

    async def end(self, holder: Holder) -> None:
        self.ended.append(holder.name)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefork, "CALM", 0.001)
    monkeypatch.setattr(prefork, "PAUSE", 0.001)


@asynccontextmanager
async def filling(maker: Maker, size: int, *networks: str) -> AsyncIterator[Prefork]:
    pool = Prefork(size, networks, maker.make, maker.end)
    async with asyncio.timeout(LIMIT):
        async with looping(pool.fill, "prefork"):
            yield pool
        await pool.close()


async def full(pool: Prefork, size: int) -> None:
    while any(pool.ready(network) < size for network in pool.networks):
        await asyncio.sleep(0.001)


async def test_each_network_gets_as_many_in_turns_and_those_of_a_pool_that_ends_are_ended() -> None:
    maker = Maker()
    async with filling(maker, 2, "a", "b") as pool:
        await full(pool, 2)
        assert [network for network, _ in maker.made] == ["a", "b", "a", "b"]
    assert sorted(maker.ended) == ["a0", "a2", "b1", "b3"]


async def test_the_one_that_is_taken_is_replaced_and_nobody_gets_it_again() -> None:
    maker = Maker()
    async with filling(maker, 1, "a") as pool:
        await full(pool, 1)
        first = pool.take("a")
        await full(pool, 1)
        second = pool.take("a")
        assert first
        assert second
        assert (first.name, second.name) == ("a0", "a1")
        pool.discard(first)
        pool.discard(second)
    assert sorted(maker.ended)[:2] == ["a0", "a1"]


async def test_where_there_is_none_nobody_waits_for_one() -> None:
    maker = Maker()
    maker.may_make.clear()
    async with filling(maker, 1, "a") as pool:
        assert pool.take("a") is None
        assert pool.take("other") is None
    async with filling(Maker(), 0, "a") as off:
        assert (off.networks, off.take("a")) == ((), None)


async def test_none_is_made_while_a_function_starts() -> None:
    maker = Maker()
    async with filling(maker, 1, "a") as pool:
        await full(pool, 1)
        with pool.start(), pool.start():
            assert pool.take("a")
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(maker.made) == 1
        await full(pool, 1)
        assert len(maker.made) == 2


async def test_one_that_ended_is_not_given_and_replaced() -> None:
    maker = Maker()
    async with filling(maker, 1, "a") as pool:
        await full(pool, 1)
        maker.made[0][1].dies()
        assert pool.take("a") is None
        await full(pool, 1)
        taken = pool.take("a")
        assert taken
        assert taken.name == "a1"
    assert "a0" in maker.ended


async def test_failures_to_make_one_are_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    maker = Maker()
    maker.fails = 3
    async with filling(maker, 1, "a") as pool:
        await full(pool, 1)
    assert len([line for line in caplog.records if line.levelname == "WARNING"]) == 1


async def test_a_network_with_nothing_to_make_ready_is_left_alone() -> None:
    maker = Maker()
    maker.without = {"a"}
    async with filling(maker, 1, "a", "b") as pool:
        while pool.networks != ("b",):
            await asyncio.sleep(0.001)
        await full(pool, 1)
        assert [network for network, _ in maker.made] == ["b"]


async def test_a_refusal_is_the_holders_fault_when_it_died_or_when_it_is_about_networks() -> None:
    pool = Prefork(1, ["a"], Maker().make, Maker().end)
    dead, alive = cast("Holder", Held("x", alive=False)), cast("Holder", Held("y"))
    assert await pool.refused(dead, "no such file")
    assert not await pool.refused(alive, "no such file")
    assert await pool.refused(alive, "Cannot join network")


async def test_an_engine_that_never_lets_join_is_asked_no_more(caplog: pytest.LogCaptureFixture) -> None:
    maker = Maker()
    async with filling(maker, 1, "a") as pool:
        alive = cast("Holder", Held("y"))
        for _ in range(prefork.REFUSALS - 1):
            await pool.refused(alive, "network")
        pool.joined()
        for _ in range(prefork.REFUSALS - 1):
            await pool.refused(alive, "network")
        await full(pool, 1)
        assert pool.take("a")
        await full(pool, 1)
        await pool.refused(alive, "network")
        assert pool.take("a") is None
    assert "the engine lets no container join" in caplog.text
