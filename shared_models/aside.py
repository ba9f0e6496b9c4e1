"""Looks at what may hang for ever, such as a file on a mount whose server is gone."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that anybody waits for an answer."""


class Aside:
    """One piece of work at a time in a thread of its own, which neither the event loop nor a stop waits for.

    So what hangs costs one thread, however often it is asked for, and none of those that others need.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._away: asyncio.Future[None] | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """What *work* answers or raises; OSError when that takes too long, or there is no thread for it."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self._away:
                    await asyncio.wait({self._away})
                return await self._begun(work)
        except TimeoutError as exc:
            if exc.errno:  # of the work itself
                raise
            raise OSError(errno.ETIMEDOUT, f"no answer within {PATIENCE:g} s") from None

    def _begun(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        away: asyncio.Future[None] = loop.create_future()
        answer: asyncio.Future[T] = loop.create_future()
        answer.add_done_callback(_read)

        def back(result: T | None, failure: BaseException | None) -> None:
            self._away = None
            away.set_result(None)
            if answer.done():
                return
            if failure is not None:
                answer.set_exception(failure)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result, failure = None, None
            try:
                result = work()
            except BaseException as exc:
                failure = exc
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(back, result, failure)

        try:
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError as exc:
            raise OSError(errno.EAGAIN, str(exc)) from None
        self._away = away
        return answer


def _read(answer: asyncio.Future[T]) -> None:
    # Whoever asked may be cancelled when it is there.
    if not answer.cancelled():
        answer.exception()
