"""Work that is done together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from shared_models import batches
from shared_models.batches import Batches


class Work:
    """Doubles numbers; cannot do 13, and refuses 7."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.seen.append(list(items))
        await self.gate.wait()
        if 13 in items:
            raise ArithmeticError("13")
        return [ValueError("7") if item == 7 else item * 2 for item in items]


async def test_what_comes_while_a_batch_is_under_way_is_the_next_batch() -> None:
    work = Work()
    work.gate.clear()
    doubling = Batches(work)
    asked = [asyncio.create_task(doubling.ask(1))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asked += [asyncio.create_task(doubling.ask(n)) for n in (2, 3)]
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*asked) == [2, 4, 6]
    assert work.seen == [[1], [2, 3]]
    assert await doubling.ask(4) == 8


async def test_a_batch_has_a_limit() -> None:
    work = Work()
    doubling = Batches(work)
    count = batches.MOST + 20
    assert await asyncio.gather(*[doubling.ask(100 + n) for n in range(count)]) == [
        200 + 2 * n for n in range(count)
    ]
    assert max(map(len, work.seen)) <= batches.MOST


async def test_one_that_cannot_be_done_harms_nobody_else() -> None:
    doubling = Batches(Work())
    outcomes = await asyncio.gather(*[doubling.ask(n) for n in (1, 13, 7, 2)], return_exceptions=True)
    assert [outcomes[0], outcomes[3]] == [2, 4]
    assert [type(outcome) for outcome in outcomes[1:3]] == [ArithmeticError, ValueError]
    with pytest.raises(ArithmeticError):
        await doubling.ask(13)


async def test_an_item_is_done_even_when_nobody_waits_for_it() -> None:
    work = Work()
    doubling = Batches(work)
    asked = asyncio.create_task(doubling.ask(1))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await doubling.settle()
    assert work.seen == [[1]]


async def test_nobody_waits_for_a_batch_that_is_broken_off() -> None:
    class Died(BaseException):
        pass

    begun = asyncio.Event()

    async def work(items: Sequence[int]) -> list[int]:
        begun.set()
        await asyncio.sleep(0)
        raise Died

    batches = Batches(work)
    first = asyncio.create_task(batches.ask(1))
    await begun.wait()
    outcomes = await asyncio.gather(first, batches.ask(2), return_exceptions=True)
    assert [type(one) for one in outcomes] == [Died, Died]
