"""A node in virtual time: calls, containers and starts that share its cores, and a policy that starts them.

No containers, no clock, no event loop: a queue of events. What needs a CPU gets an equal share of the cores,
one core at most, so that forty containers of a function that computes are no faster than two on two cores;
what waits for others (a database, a download) needs none.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """*slots* containers fit. A start takes *start_time* seconds alone, *start_cpu* of them on a CPU.

    Containers that were idle for *idle_timeout* seconds end.
    """

    cores: int = 2
    slots: int = 64
    start_time: float = 0.15
    start_cpu: float = 0.4
    idle_timeout: float = 30.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """Calls take *seconds* on average, alone on a machine, the part *cpu* of them on a CPU.

    *spread* is the standard deviation of their length over its mean.
    """

    seconds: float
    cpu: float = 1.0
    spread: float = 0.5


class Policy(Protocol):
    """Decides when a container is started; told what a scheduler knows, nothing of the future."""

    def wants(self, node: Node, now: float) -> bool:
        """Whether one more is to be started now; asked again after each that is."""

    def begun(self, node: Node, now: float) -> None:
        """A start has begun."""

    def look_again(self, node: Node, now: float) -> float | None:
        """Seconds after which to ask again if nothing happens."""

    def ready(self, node: Node, now: float, seconds: float) -> None:
        """A container is ready, after that long."""

    def handed_out(self, node: Node, now: float, since: float) -> None:
        """A call that had waited since then has got a container."""

    def ended(self, node: Node, now: float, seconds: float) -> bool:
        """A call ended, after that long in its container; whether the container is to be kept."""


class Call:
    """One call: when it came, what it needs, and who waits for it."""

    __slots__ = ("began", "caller", "came", "cpu", "idle")

    def __init__(self, came: float, idle: float, cpu: float, caller: Callable[[float], None] | None) -> None:
        self.came = came
        self.idle = idle
        self.cpu = cpu
        self.caller = caller
        self.began = 0.0


@dataclasses.dataclass(slots=True)
class Outcome:
    """What a run was like. A call's wait is what it lost: its latency less what it takes alone."""

    waits: list[float] = dataclasses.field(default_factory=list)
    started: int = 0
    most: int = 0
    container_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        return sum(self.waits) / len(self.waits)

    @property
    def p99(self) -> float:
        return sorted(self.waits)[int(len(self.waits) * 0.99)]

    @property
    def held(self) -> float:
        """Containers that were there, on average."""
        return self.container_seconds / self.seconds


class Node:
    """One function on one machine."""

    def __init__(self, machine: Machine, function: Function, policy: Policy, seed: int = 1) -> None:
        self.machine = machine
        self.function = function
        self.policy = policy
        self.chance = random.Random(seed)
        self.now = 0.0
        self.waiting: deque[Call] = deque()
        self.containers = 0
        self.starting = 0
        self.outcome = Outcome()
        self._idle: deque[float] = deque()
        """Since when each idle container has been idle; the one that was used last at the end."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        # Processor sharing: every task on a CPU has received `_turn` seconds since the beginning.
        self._turn = 0.0
        self._tasks: list[tuple[float, int, Callable[[], None]]] = []
        self._again = float("inf")
        self._shape = 1 / function.spread**2 if function.spread else 0.0

    # -- time --------------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Does *what* then."""
        heapq.heappush(self._events, (when, next(self._number), what))

    def compute(self, seconds: float, then: Callable[[], None]) -> None:
        """Does *then* after *seconds* of a whole core."""
        heapq.heappush(self._tasks, (self._turn + seconds, next(self._number), then))

    def run(self) -> Outcome:
        """Until nothing happens any more."""
        events, tasks, cores = self._events, self._tasks, self.machine.cores
        while events or tasks:
            slowness = max(1.0, len(tasks) / cores)
            done = self.now + (tasks[0][0] - self._turn) * slowness if tasks else float("inf")
            if events and events[0][0] <= done:
                when, _, what = heapq.heappop(events)
                self._turn += (when - self.now) / slowness
                self.now = when
            else:
                self._turn, _, what = heapq.heappop(tasks)
                self.now = done
            what()
        self._expire(float("inf"))
        self.outcome.seconds = self.now
        return self.outcome

    def have(self, containers: int) -> None:
        """So many are there, idle."""
        self.containers += containers
        self._idle.extend([self.now] * containers)
        self.outcome.started += containers
        self.outcome.most = self.containers
        self.outcome.container_seconds -= self.now * containers

    # -- calls -------------------------------------------------------------------------------------

    def call(self, caller: Callable[[float], None] | None = None) -> None:
        """A call comes now; *caller* is told when it ends."""
        function = self.function
        length = function.seconds
        if self._shape:
            length *= self.chance.gammavariate(self._shape, 1 / self._shape)
        cpu = length * function.cpu
        call = Call(self.now, length - cpu, cpu, caller)
        self._expire(self.now)
        if self._idle:
            self._idle.pop()
            self._serve(call)
        else:
            self.waiting.append(call)
            self.look()

    def _serve(self, call: Call) -> None:
        call.began = self.now
        if call.idle:
            self.at(self.now + call.idle, lambda: self.compute(call.cpu, lambda: self._end(call)))
        else:
            self.compute(call.cpu, lambda: self._end(call))

    def _end(self, call: Call) -> None:
        self.outcome.waits.append(max(self.now - call.came - call.idle - call.cpu, 0.0))
        if self.policy.ended(self, self.now, self.now - call.began):
            self._offer()
        else:
            self._remove(self.now)
            self.look()
        if call.caller:
            call.caller(self.now)

    # -- containers --------------------------------------------------------------------------------

    def look(self) -> None:
        """Starts what the policy wants and what fits."""
        while self.containers + self.starting < self.machine.slots and self.policy.wants(self, self.now):
            self.start()
        pause = self.policy.look_again(self, self.now)
        if pause is not None and self.now + pause < self._again:
            self._again = self.now + pause
            self.at(self._again, self._look_again)

    def _look_again(self) -> None:
        if self.now >= self._again:
            self._again = float("inf")
            self.look()

    def start(self) -> None:
        """Begins to start a container."""
        self.starting += 1
        self.outcome.started += 1
        self.outcome.most = max(self.outcome.most, self.containers + self.starting)
        self.outcome.container_seconds -= self.now
        self.policy.begun(self, self.now)
        began, length = self.now, self.machine.start_time * self.chance.gammavariate(16, 1 / 16)
        cpu = length * self.machine.start_cpu
        self.at(self.now + length - cpu, lambda: self.compute(cpu, lambda: self._ready(began)))

    def _ready(self, began: float) -> None:
        self.starting -= 1
        self.containers += 1
        self.policy.ready(self, self.now, self.now - began)
        self._offer()
        self.look()

    def _offer(self) -> None:
        if self.waiting:
            call = self.waiting.popleft()
            self.policy.handed_out(self, self.now, call.came)
            self._serve(call)
        else:
            self._idle.append(self.now)

    def _expire(self, now: float) -> None:
        while self._idle and self._idle[0] + self.machine.idle_timeout <= now:
            self._remove(min(self._idle.popleft() + self.machine.idle_timeout, self.now))

    def _remove(self, when: float) -> None:
        self.containers -= 1
        self.outcome.container_seconds += when
