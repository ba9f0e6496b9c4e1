"""Work that is cheaper together: what is asked for while a batch is under way is the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from shared_models.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 256
"""Items in one batch."""


class Batches(Generic[Item, Result]):
    """Adds no delay: an item that comes alone is a batch of one, at once.

    *work* answers one result per item, in order; a result that is an exception is raised to the one
    who asked. When *work* itself fails, each item of its batch is tried alone, so that one that
    cannot be done harms nobody else. An item is done even when the one who asked is cancelled.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]]) -> None:
        self._work = work
        self._todo: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Result:
        """The result for *item*."""
        asked: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._todo.append((item, asked))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work_all(), name="batches")
        # Cancelled with the one who asks; the work knows nothing of it.
        return await asked

    async def settle(self) -> None:
        """Returns when everything asked for so far is done."""
        while self._worker is not None:
            await asyncio.wait((self._worker,))

    async def _work_all(self) -> None:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        try:
            while self._todo:
                batch = [self._todo.popleft() for _ in range(min(len(self._todo), MOST))]
                results = await self._results([item for item, _ in batch])
                for (_, asked), result in zip(batch, results, strict=True):
                    _answer(asked, result)
        except BaseException as exc:
            # Nobody may wait for what is not done any more.
            for _, asked in (*batch, *self._todo):
                _answer(asked, exc)
            self._todo.clear()
            if isinstance(exc, asyncio.CancelledError):
                raise
        finally:
            self._worker = None

    async def _results(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        try:
            return await self._work(items)
        except Unavailable as exc:
            # One after the other would wait for the backend as often as there are items.
            return [type(exc)(exc.message, detail=exc.detail) for _ in items]
        except Exception as exc:
            if len(items) == 1:
                return [exc]
            return [result for item in items for result in await self._results([item])]


def _answer(asked: asyncio.Future[Result], result: Result | BaseException) -> None:
    """Tells who asked, unless that one was cancelled meanwhile."""
    if asked.done():
        return
    if isinstance(result, asyncio.CancelledError):
        asked.cancel()
    elif isinstance(result, BaseException):
        asked.set_exception(result)
    else:
        asked.set_result(result)
