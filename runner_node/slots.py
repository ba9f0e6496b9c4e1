"""One function's slots: who waits, and what is idle.

Everything here happens on one event loop: plain deques and counters. Whether one more container is worth its
start is a pure function of numbers (``demand.py``), most of which are observed (``pace.py``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from runner_node.calls import Target
from runner_node.demand import Demand
from runner_node.fair_share import Share
from runner_node.hot_container import HotContainer
from runner_node.pace import Pace
from shared_models import errors

Left = Callable[[], bool]
"""Whether the caller has gone away, so that nobody would read the answer."""


class Waiter:
    """A call that waits for a container; *sync* ones may use all of the machine."""

    __slots__ = ("container", "left", "since", "sync")

    def __init__(
        self, container: asyncio.Future[HotContainer], since: float, *, sync: bool, left: Left | None = None
    ) -> None:
        self.container = container
        self.since = since
        self.sync = sync
        self.left = left

    @property
    def gone(self) -> bool:
        """Whether it waits no more; one whose caller has gone away is told so here."""
        if not self.container.done() and self.left and self.left():
            self.container.set_exception(errors.ClientGone())
        return self.container.done()


class SlotQueue:
    """All containers of one target: idle ones are taken last in, first out, callers first in, first out."""

    def __init__(self, target: Target, share: Share, pace: Pace) -> None:
        self.target = target
        self.share = share
        self.pace = pace
        self.waiters: deque[Waiter] = deque()
        self.sync_calls = 0
        """Those among the waiters who are sync."""
        self.idle: list[HotContainer] = []
        self.containers: set[HotContainer] = set()
        self.starting = 0
        self.superseded = False
        """The function has changed: containers of this version are not kept."""
        self.timer: asyncio.TimerHandle | None = None

    def take_idle(self) -> HotContainer | None:
        """The container that was used last; None when all are at work."""
        while self.idle:
            container = self.idle.pop()
            if container.alive:
                return container
        return None

    def join(self, waiter: Waiter) -> None:
        """At the end of the line."""
        self.waiters.append(waiter)
        self.sync_calls += waiter.sync
        self.share.lines[self] = None

    def leave(self, waiter: Waiter) -> None:
        """It has its container, or waits no more."""
        self.sync_calls -= waiter.sync
        self.head()

    def next_waiter(self) -> Waiter | None:
        """The caller who has waited longest, taken out of the line; those who left are skipped."""
        waiter = self.head()
        if waiter:
            self.waiters.popleft()
        return waiter

    def head(self) -> Waiter | None:
        """The caller who has waited longest, left in the line; those who left are taken out of it."""
        while self.waiters:
            if not self.waiters[0].gone:
                return self.waiters[0]
            self.waiters.popleft()
        self.share.lines.pop(self, None)
        return None

    def demand(self, now: float) -> Demand:
        """The numbers for ``wants_container``."""
        self.head()
        waiting, starting = len(self.waiters), self.starting
        # Those before this one are served by what is starting.
        since = self.waiters[starting].since if waiting > starting else now
        return self.pace.demand(
            now, waiting=waiting, starting=starting, containers=len(self.containers), since=since
        )

    def saw_service(self, seconds: float) -> None:
        """A call took that long in its container."""
        self.pace.saw_service(
            seconds, len(self.containers), crowded=bool(self.waiters), starting=self.starting
        )

    @property
    def unused(self) -> bool:
        """Nothing waits, works or starts here."""
        return not (self.waiters or self.containers or self.starting)
