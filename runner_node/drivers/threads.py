"""Threads for calls that block: a few at a time, and none that the interpreter would wait for at its end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """At most *most* calls at a time; *name* is that of their threads.

    Not an executor of the standard library: the interpreter joins the threads of those when it ends, and
    a node must be able to stop while an engine hangs.
    """

    def __init__(self, most: int, name: str) -> None:
        self._free = asyncio.Semaphore(most)
        self._name = name

    async def run(self, work: Callable[[], T], limit: float) -> T:
        """The result of *work*; raises what it raises, TimeoutError after *limit* seconds.

        Work that is given up runs on to its end, and its thread counts until then.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        async with asyncio.timeout(limit):
            await self._free.acquire()
            thread = threading.Thread(
                target=self._work, args=(work, loop, done), name=self._name, daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                self._free.release()
                raise
            return await done

    def _work(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop, done: asyncio.Future[T]) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as exc:
            failure = exc
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(self._deliver, done, result, failure)

    def _deliver(self, done: asyncio.Future[T], result: T, failure: BaseException | None) -> None:
        self._free.release()
        if done.done():
            return
        if failure is None:
            done.set_result(result)
        else:
            done.set_exception(failure)
