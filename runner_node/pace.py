"""How fast one function's containers start and serve, and how long its calls wait for them.

Pure: no clock, no loop; a few additions per call.
"""

from __future__ import annotations

import math

from runner_node.demand import WORTH, Demand
from runner_node.trial import Trial

START_GUESS = 0.5
"""Seconds that a start is thought to take before one was seen."""
WEIGHT = 0.2
"""Of the newest observation in a moving average."""
SLOWLY, SLOWER = 0.02, 0.004
"""The same where it is longer, in the time that a call takes alone; with more containers than cores."""
CROWDED = 3.0
"""Times that time, after which containers are thought to be in each other's way."""
LEAK = 0.5
"""Callers who may wait at any time, on average, without anybody caring: a container costs memory too."""
SHORT = 4
"""Calls of a short function that one container serves while another starts, at least. Longer ones would
wait too long for a judgement."""
MANY = 1000


class Pace:
    """Of one function on a machine with *cores*. Times in seconds of any clock that only goes forward."""

    __slots__ = (
        "_alone", "_cores", "_leaked", "_served", "_starts",
        "debt", "ready_since", "service_time", "start_time", "trial",
    )  # fmt: skip

    def __init__(self, cores: int) -> None:
        self.trial = Trial(cores)
        self._cores = cores
        self.service_time: float | None = None
        self.start_time = START_GUESS
        self.ready_since = -math.inf
        """When the first of the containers that are there was ready."""
        self.debt = 0.0
        """Seconds that calls have waited for containers at work, together, beyond ``LEAK`` callers at any
        time, since the last start began."""
        self._alone = 0.0
        self._starts = 0
        self._served = self._leaked = -math.inf

    def saw_start(self, seconds: float, now: float, *, first: bool) -> None:
        """A container was ready after that long; *first*: there was none before."""
        self._starts += 1
        if self._starts == 1:
            self.start_time = seconds
        else:
            self.start_time += WEIGHT * (seconds - self.start_time)
        if first:
            self.ready_since = self._served = self._leaked = now

    def began_start(self) -> None:
        """A start has begun: what is owed for waiting is paid."""
        self.debt = 0.0

    def saw_wait(self, since: float, now: float) -> None:
        """A call that had waited since then got a container."""
        self._served = now
        waited = now - max(since, self.ready_since)
        self.debt = min(self.debt + waited, 2 * WORTH * self.start_time)

    def saw_service(self, seconds: float, containers: int, *, crowded: bool, starting: int) -> None:
        """A call took that long in one of *containers*; *crowded*: all are at work, and somebody waits."""
        old = self.service_time
        if old is None:
            self.service_time = self._alone = seconds
        else:
            self.service_time = new = old + WEIGHT * (seconds - old)
            # What is longer may be so because of too many containers.
            weight = SLOWLY if containers <= self._cores else SLOWER
            self._alone = min(self._alone + weight * (new - self._alone), new)
        if crowded:
            self.trial.saw(seconds, containers, starting=starting, now=self._served)

    def surplus(self, containers: int) -> bool:
        """Whether one of so many *containers* is to be given back, since it was started in vain."""
        return self.trial.surplus(containers)

    def demand(self, now: float, *, waiting: int, starting: int, containers: int, since: float) -> Demand:
        """The numbers for ``wants_container``; *since*: of the first caller for whom none is starting."""
        self.debt = max(self.debt - LEAK * (now - self._leaked), 0.0)
        self._leaked = now
        return Demand(
            waiting=waiting,
            starting=starting,
            containers=containers,
            service_time=None if self.service_time is None else self._alone,
            start_time=self.start_time,
            oldest_wait=now - (max(since, self.ready_since) if containers else since),
            stuck=now - self._served if containers else 0.0,
            debt=self.debt,
            limit=self._limit(containers, now),
        )

    def _limit(self, containers: int, now: float) -> float:
        limit, service = self.trial.limit(now), self.service_time
        if service is None or self._alone * SHORT < self.start_time or self.trial.doubtful:
            return limit
        return containers if containers > limit and service > CROWDED * self._alone else math.inf


class Paces:
    """Those of functions that have no slots for now, so that not all has to be found out again."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self._known: dict[bytes, Pace] = {}

    def take(self, key: bytes) -> Pace:
        """What is known of the function with this slot key."""
        return self._known.pop(key, None) or Pace(self.cores)

    def keep(self, key: bytes, pace: Pace) -> None:
        """Until it has slots again; those that were kept first are forgotten when there are too many."""
        if pace.service_time is None:
            return
        if len(self._known) >= MANY:
            del self._known[next(iter(self._known))]
        pace.debt = 0.0
        self._known[key] = pace
