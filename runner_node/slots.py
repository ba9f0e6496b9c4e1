"""One function's slots: who waits, what is idle, and whether one more container is worth its start.

Everything here happens on one event loop: plain deques and counters. The decision is a pure function of
numbers (``wants_container``), so that tests and simulations can ask it anything.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque

from runner_node.calls import Target
from runner_node.hot_container import HotContainer

START_GUESS = 0.5
"""Seconds that a start is thought to take before one was seen."""
WEIGHT = 0.2
"""Of the newest observation in a moving average."""


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


class Waiter:
    """A call that waits for a container; *sync* ones may use all of the machine."""

    __slots__ = ("container", "since", "sync")

    def __init__(self, container: asyncio.Future[HotContainer], since: float, *, sync: bool) -> None:
        self.container = container
        self.since = since
        self.sync = sync


class SlotQueue:
    """All containers of one target: idle ones are taken last in, first out, callers first in, first out."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.waiters: deque[Waiter] = deque()
        self.idle: list[HotContainer] = []
        self.containers: set[HotContainer] = set()
        self.starting = 0
        self.failures = 0
        """Starts that failed since one succeeded."""
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

    def next_waiter(self) -> Waiter | None:
        """The caller who has waited longest, taken out of the line; those who left are skipped."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.container.done():
                return waiter
        return None

    def head(self) -> Waiter | None:
        """The caller who has waited longest, left in the line."""
        while self.waiters and self.waiters[0].container.done():
            self.waiters.popleft()
        return self.waiters[0] if self.waiters else None

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
        self.failures = 0
        self.start_time += WEIGHT * (seconds - self.start_time)

    @property
    def unused(self) -> bool:
        """Nothing waits, works or starts here."""
        return not (self.waiters or self.containers or self.starting)
