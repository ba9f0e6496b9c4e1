"""An event loop on virtual time, in one thread: the same program takes the same steps every time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

START = 1_800_000_000.0
"""Unix seconds at which virtual time begins."""


class _NoWaiting(selectors.SelectSelector):
    """Instead of waiting for the next timer, says so to its loop."""

    def __init__(self) -> None:
        super().__init__()
        self.wait: Callable[[float | None], None] = lambda timeout: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.wait(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs only within ``run_until``; what others would do in threads is done at once."""

    def __init__(self) -> None:
        selector = _NoWaiting()
        selector.wait = self._pass_time
        self._at = 0.0
        self._until = 0.0
        super().__init__(selector)
        self.slow_callback_duration = 1e9

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._at

    def wall(self) -> float:
        """The unix seconds of a clock that is right."""
        return START + self._at

    def run_until(self, moment: float) -> None:
        """Does all that is due up to *moment* (virtual seconds), in order, until nothing is left to do."""
        self._until = max(moment, self._at)
        self.run_forever()

    def settle(self) -> None:
        """Does all that is due now."""
        self.run_until(self._at)

    def end(self) -> None:
        """Cancels what is left, lets it end, and closes the loop."""
        for _ in range(100):
            left = asyncio.all_tasks(self)
            if not left:
                break
            for task in left:
                task.cancel()
            self.settle()
        for task in asyncio.all_tasks(self):
            task.set_name(f"would not end: {task.get_name()}")
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Calls *func* at once: a thread would end when it likes."""
        done: asyncio.Future[Any] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as exc:
            done.set_exception(exc)
        return done

    def _pass_time(self, timeout: float | None) -> None:
        if timeout is None or self._at + timeout > self._until:
            self._at = self._until
            self.stop()
        else:
            self._at += timeout
