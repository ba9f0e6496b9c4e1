"""Work for a thread, as much of it in one trip as waits, and its answers with one wake-up of the event loop.

A trip to a thread and back costs an event loop that is busy more than SQLite takes for what it is asked:
both fight for the interpreter. So what is asked while a thread is at work waits for it, and answers come when
it comes back. Where one piece holds it up, as a cold disk or a long query does, the answers that it has are
taken from it, and another thread goes for what waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from shared_models.errors import StoreUnavailable

T = TypeVar("T")
Tool = TypeVar("Tool")

_TOO_LONG = 0.005
"""Seconds after which a thread that is away is looked after."""


class _Piece:
    """One piece of work, and then what became of it."""

    __slots__ = ("answer", "failure", "future", "work")

    def __init__(self, work: Callable[[Any], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.answer: Any = None
        self.failure: BaseException | None = None

    def do(self, tool: Any) -> None:
        """Does it with *tool*."""
        try:
            self.answer = self.work(tool)
        except BaseException as exc:
            self.failure = exc

    def tell(self, unheard: Callable[[BaseException], None]) -> None:
        """Its answer to who asked; a failure to *unheard* when nobody waits any more."""
        failure, future = self.failure, self.future
        # The failure's traceback leads here: what leads back to it would be a cycle.
        del self.failure, self.future
        if isinstance(failure, StopIteration):  # the only one that a future does not take
            failure = RuntimeError("the work raised StopIteration")
        if future.done():
            if failure is not None:
                unheard(failure)
        elif failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(self.answer)


class Trips(Generic[Tool]):
    """Up to *threads* threads, each with a tool of its own that *make* makes there and *drop* ends.

    Pieces begin in the order in which they were asked for. For an event loop, the first that asks.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Tool],
        drop: Callable[[Tool], None],
        unheard: Callable[[BaseException], None],
        threads: int = 1,
    ) -> None:
        self._name = name
        self._make, self._drop, self._unheard = make, drop, unheard
        self._most = threads
        self._threads = 0
        self._dismissed = False
        self._go: SimpleQueue[bool] = SimpleQueue()
        self._waiting: deque[_Piece] = deque()
        self._done: deque[_Piece | None] = deque()  # None: a thread has come back
        self._away = 0
        self._held_up = 0  # of those that are away
        self._begun = 0
        self._not_told = 0
        self._watch: asyncio.TimerHandle | None = None
        self._rest = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask(self, work: Callable[[Tool], T]) -> asyncio.Future[T]:
        """What *work* will answer, or raise. It is done also when nobody waits for it any more."""
        loop = self._loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Piece(work, future))
        self._not_told += 1
        self._send_if_wanted()
        if self._watch is None:
            self._watch = loop.call_later(_TOO_LONG, self._look, self._begun)
        return future

    async def close(self) -> None:
        """When all that was asked for is done. Idempotent; nothing may be asked for any more.

        Who is cancelled meanwhile waits no longer; the threads end all the same, behind what they do.
        """
        try:
            while self._not_told:
                self._rest.clear()
                await self._rest.wait()
        finally:
            self._dismiss()
        while self._threads:
            self._rest.clear()
            await self._rest.wait()

    # -- on the event loop -------------------------------------------------------------------------

    def _dismiss(self) -> None:
        if not self._dismissed:
            self._dismissed = True
            for _ in range(self._threads):
                self._go.put(False)

    def _send_if_wanted(self) -> None:
        """One more thread goes for what waits, unless one is away that is going to take it."""
        if not self._waiting or self._away > self._held_up or self._away == self._most or self._dismissed:
            return
        if self._away == self._threads and not self._one_more():
            return
        self._away += 1
        self._go.put(True)

    def _one_more(self) -> bool:
        """One more thread; without any, what waits is refused, for nobody would ever come for it."""
        name = f"{self._name}-{self._threads}"
        # One that is in the middle of a statement is not waited for when the process ends.
        thread = threading.Thread(target=self._live, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            if not self._away:
                self._refuse(StoreUnavailable(f"The node gets no thread for its store: {exc}"))
            return False
        self._threads += 1
        return True

    def _refuse(self, failure: StoreUnavailable) -> None:
        while self._waiting:
            piece = self._waiting.popleft()
            piece.failure = failure
            self._not_told -= 1
            piece.tell(self._unheard)
        if not self._not_told:
            self._rest.set()

    def _look(self, begun: int) -> None:
        """Looks after those that are away for long: *begun* is what the last look saw."""
        self._watch = None
        self._tell()
        if self._away and begun == self._begun:
            self._held_up = self._away
            self._send_if_wanted()
        if self._not_told and self._loop:
            self._watch = self._loop.call_later(_TOO_LONG, self._look, self._begun)

    def _ended(self, failures: list[BaseException]) -> None:
        self._threads -= 1
        for failure in failures:
            self._unheard(failure)
        self._rest.set()

    def _tell(self) -> None:
        while self._done:
            piece = self._done.popleft()
            if piece is None:
                self._away -= 1
                self._held_up = min(self._held_up, self._away)
            else:
                self._not_told -= 1
                piece.tell(self._unheard)
        self._send_if_wanted()  # what was asked for when a thread had looked for the last time
        if not self._not_told:
            self._rest.set()

    # -- in a thread -------------------------------------------------------------------------------

    def _live(self) -> None:
        tools: list[Tool] = []
        while self._go.get():
            while self._waiting:
                with suppress(IndexError):  # another one took it
                    self._do(self._waiting.popleft(), tools)
            self._done.append(None)
            self._call(self._tell)
        failures: list[BaseException] = []
        for tool in tools:
            try:
                self._drop(tool)
            except BaseException as exc:
                failures.append(exc)
        self._call(self._ended, failures)

    def _call(self, what: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: nobody is there who waits
            self._loop.call_soon_threadsafe(what, *arguments)

    def _do(self, piece: _Piece, tools: list[Tool]) -> None:
        self._begun += 1
        try:
            if not tools:
                tools.append(self._make())
        except BaseException as exc:
            piece.failure = exc
        else:
            piece.do(tools[0])
        self._done.append(piece)
