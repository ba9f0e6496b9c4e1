"""Work that shares trips to a thread: all of it is done, in order, and nothing holds up everything else."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from services.datastore.trips import Trips
from shared_models.errors import NotFound, StoreUnavailable

LIMIT = 60.0
"""Seconds until a test is given up."""


class Tools:
    """Makes a number a thread, and notes which were dropped."""

    def __init__(self) -> None:
        self.made = 0
        self.dropped: list[int] = []
        self.unheard: list[BaseException] = []

    def make(self) -> int:
        self.made += 1
        return self.made

    @asynccontextmanager
    async def trips(self, threads: int = 1) -> AsyncIterator[Trips[int]]:
        trips = Trips("test", self.make, self.dropped.append, self.unheard.append, threads)
        try:
            yield trips
        finally:
            await trips.close()


async def test_pieces_begin_in_their_order_and_each_gets_its_answer() -> None:
    begun: list[int] = []

    def piece(number: int, _tool: int) -> int:
        begun.append(number)
        return number * number

    async with Tools().trips() as trips, asyncio.timeout(LIMIT):
        for _ in range(50):
            asked = [trips.ask(partial(piece, number)) for number in range(20)]
            assert await asyncio.gather(*asked) == [number * number for number in range(20)]
    assert begun == list(range(20)) * 50


async def test_what_is_asked_from_an_answer_is_done_too() -> None:
    async def caller(trips: Trips[int]) -> int:
        return sum([await trips.ask(lambda _tool: 1) for _ in range(500)])

    async with Tools().trips(4) as trips, asyncio.timeout(LIMIT):
        assert await asyncio.gather(*[caller(trips) for _ in range(8)]) == [500] * 8


async def test_a_long_piece_keeps_nobody_waiting_but_who_asked_for_it() -> None:
    begun, left = threading.Event(), threading.Event()

    def long(_tool: int) -> str:
        begun.set()
        assert left.wait(LIMIT)
        return "long"

    async with Tools().trips(2) as trips, asyncio.timeout(LIMIT):
        slow = trips.ask(long)
        beside = [trips.ask(lambda tool: tool) for _ in range(3)]
        assert await asyncio.gather(*beside) == [2, 2, 2]
        assert await trips.ask(lambda tool: tool) == 2
        assert begun.is_set()
        left.set()
        assert await slow == "long"


async def test_the_answers_before_a_long_piece_come_while_it_lasts() -> None:
    left = threading.Event()

    def long(_tool: int) -> None:
        assert left.wait(LIMIT)

    async with Tools().trips(1) as trips, asyncio.timeout(LIMIT):
        short, slow = trips.ask(lambda _tool: "short"), trips.ask(long)
        assert await short == "short"
        assert not slow.done()
        left.set()
        await slow


async def test_with_one_thread_nothing_is_done_beside_a_long_piece() -> None:
    order: list[str] = []
    left = threading.Event()

    def long(_tool: int) -> None:
        assert left.wait(LIMIT)
        order.append("long")

    async with Tools().trips(1) as trips, asyncio.timeout(LIMIT):
        slow, next_ = trips.ask(long), trips.ask(lambda _tool: order.append("next"))
        await asyncio.sleep(0.05)  # longer than what makes a second thread go
        left.set()
        await asyncio.gather(slow, next_)
    assert order == ["long", "next"]


async def test_a_failure_goes_to_who_asked_and_to_nobody_else() -> None:
    def failing(_tool: int) -> None:
        raise NotFound("there is none")

    tools = Tools()
    async with tools.trips() as trips, asyncio.timeout(LIMIT):
        failed, fine = trips.ask(failing), trips.ask(lambda _tool: "fine")
        assert await fine == "fine"
        with pytest.raises(NotFound):
            await failed
    assert not tools.unheard


async def test_a_piece_whose_caller_has_left_is_done_and_its_failure_told_elsewhere() -> None:
    begun, left, done = threading.Event(), threading.Event(), threading.Event()

    def failing(_tool: int) -> None:
        begun.set()
        assert left.wait(LIMIT)
        raise KeyError("a defect")

    tools = Tools()
    async with tools.trips() as trips, asyncio.timeout(LIMIT):
        asked, behind = trips.ask(failing), trips.ask(lambda _tool: done.set())
        assert await asyncio.to_thread(begun.wait, LIMIT)
        asked.cancel()
        behind.cancel()
        left.set()
    assert done.is_set()
    assert [type(failure) for failure in tools.unheard] == [KeyError]


async def test_a_tool_that_cannot_be_made_fails_the_piece_and_is_made_for_the_next_one() -> None:
    class Late(Tools):
        def make(self) -> int:
            if not super().make() > 1:
                raise OSError("not yet")
            return self.made

    tools = Late()
    async with tools.trips() as trips, asyncio.timeout(LIMIT):
        with pytest.raises(OSError, match="not yet"):
            await trips.ask(lambda tool: tool)
        assert await trips.ask(lambda tool: tool) == 2


async def test_closing_waits_for_what_was_asked_for_and_drops_every_tool() -> None:
    def piece(number: int, _tool: int) -> None:
        done.append(number)

    tools, done = Tools(), list[int]()
    async with tools.trips(3) as trips:
        for number in range(10):
            trips.ask(partial(piece, number))
    assert sorted(done) == list(range(10))
    assert len(tools.dropped) == tools.made


async def test_threads_end_behind_their_work_when_who_closes_is_cancelled() -> None:
    begun, left = threading.Event(), threading.Event()

    def long(_tool: int) -> None:
        begun.set()
        assert left.wait(LIMIT)

    tools = Tools()
    trips = Trips("left", tools.make, tools.dropped.append, tools.unheard.append, 2)
    async with asyncio.timeout(LIMIT):
        slow, behind = trips.ask(long), trips.ask(lambda _tool: "done")
        assert await asyncio.to_thread(begun.wait, LIMIT)
        closing = asyncio.create_task(trips.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        left.set()
        await asyncio.gather(slow, behind)
        while any(thread.name.startswith("left-") for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
        await trips.close()
    assert len(tools.dropped) == tools.made


async def test_a_tool_that_cannot_be_dropped_is_told_of_and_its_thread_ends() -> None:
    class Stuck(Tools):
        def drop(self, tool: int) -> None:
            raise OSError(f"tool {tool} is stuck")

    tools = Stuck()
    trips = Trips("stuck", tools.make, tools.drop, tools.unheard.append, 2)
    async with asyncio.timeout(LIMIT):
        assert await trips.ask(lambda tool: tool) == 1
        await trips.close()
    assert [str(failure) for failure in tools.unheard] == ["tool 1 is stuck"]


async def test_work_that_raises_what_no_future_takes_fails_alone() -> None:
    def empty(_tool: int) -> object:
        return next(iter(()))

    async with Tools().trips() as trips, asyncio.timeout(LIMIT):
        failed, fine = trips.ask(empty), trips.ask(lambda _tool: "fine")
        with pytest.raises(RuntimeError, match="StopIteration"):
            await failed
        assert await fine == "fine"


async def test_nothing_is_left_for_the_collector_of_cycles() -> None:
    def failing(_tool: int) -> None:
        raise NotFound("there is none")

    async with Tools().trips() as trips, asyncio.timeout(LIMIT):

        async def asks() -> None:
            for _ in range(100):
                with pytest.raises(NotFound):
                    await trips.ask(failing)
                await trips.ask(lambda tool: tool)

        await asks()
        gc.collect()
        gc.disable()
        try:
            await asks()
            assert gc.collect() < 100
        finally:
            gc.enable()


async def test_a_system_without_threads_refuses_what_waits_and_serves_again_when_it_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with Tools().trips() as trips, asyncio.timeout(LIMIT):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(StoreUnavailable, match="no thread"):
                await trips.ask(lambda _tool: 1)
        assert await trips.ask(lambda tool: tool) == 1
