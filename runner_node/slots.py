"""One function's slots: who waits, what is idle, and whether one more container is worth its start.

Everything here happens on one event loop: plain deques and counters. The decision is a pure function of
numbers (``wants_container``), so that tests and simulations can ask it anything.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable

from runner_node.calls import Target
from runner_node.fair_share import Share
from runner_node.hot_container import HotContainer
from shared_models import errors

START_GUESS = 0.5
"""Seconds that a start is thought to take before one was seen."""
SERVICE_GUESS = 1.0
"""Seconds that a call is thought to take before one has ended."""
WEIGHT = 0.2
"""Of the newest observation in a moving average."""
SOONEST, LATEST = 1.0, 60.0
"""Seconds that ``retry_after`` answers at least and at most."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the decision looks at. Times in seconds; *service_time* is None before a call has ended."""

    waiting: int
    starting: int
    containers: int
    service_time: float | None
    start_time: float
    oldest_wait: float


def wants_container(demand: Demand) -> bool:
    """Whether starting one more container beats waiting for those at work.

    Containers that are starting count as capacity. The last caller in line waits for
    ``waiting * service_time / containers``; a start is worth it when that is longer than a start takes. A
    caller that has waited as long as a start takes gets one regardless.
    """
    unserved = demand.waiting - demand.starting
    if unserved <= 0:
        return False
    if demand.containers + demand.starting == 0:
        return True
    if demand.oldest_wait >= demand.start_time:
        return True
    if demand.service_time is None or demand.containers == 0:
        return False
    return unserved * demand.service_time / demand.containers > demand.start_time


def next_look(demand: Demand) -> float | None:
    """Seconds after which ``wants_container`` may change its answer by the mere passing of time."""
    if demand.waiting - demand.starting <= 0:
        return None
    return max(demand.start_time - demand.oldest_wait, 0.001)


def retry_after(demand: Demand) -> float:
    """Seconds after which a call that is refused now has a chance: once those ahead of it are served."""
    service = SERVICE_GUESS if demand.service_time is None else demand.service_time
    ahead = demand.waiting * service / max(demand.containers + demand.starting, 1)
    return min(max(ahead + (0.0 if demand.containers else demand.start_time), SOONEST), LATEST)


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

    def __init__(self, target: Target, share: Share) -> None:
        self.target = target
        self.share = share
        self.waiters: deque[Waiter] = deque()
        self.sync_calls = 0
        """Those among the waiters who are sync."""
        self.idle: list[HotContainer] = []
        self.containers: set[HotContainer] = set()
        self.starting = 0
        self.superseded = False
        """The function has changed: containers of this version are not kept."""
        self.service_time: float | None = None
        self.start_time = START_GUESS
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
        head = self.head()
        return Demand(
            waiting=len(self.waiters),
            starting=self.starting,
            containers=len(self.containers),
            service_time=self.service_time,
            start_time=self.start_time,
            oldest_wait=now - head.since if head else 0.0,
        )

    def saw_service(self, seconds: float) -> None:
        """A call took that long in its container."""
        old = self.service_time
        self.service_time = seconds if old is None else old + WEIGHT * (seconds - old)

    def saw_start(self, seconds: float) -> None:
        """A container was ready after that long."""
        self.start_time += WEIGHT * (seconds - self.start_time)

    @property
    def unused(self) -> bool:
        """Nothing waits, works or starts here."""
        return not (self.waiters or self.containers or self.starting)
