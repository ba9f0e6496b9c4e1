"""Policies for a simulated node: ours, as it is in the scheduler; Fn's; and one that knows the future."""

from __future__ import annotations

from benchmarks.simulated_node import Node
from runner_node.demand import Demand, next_look, wants_container
from runner_node.pace import WEIGHT, Pace

STARTS_PER_CORE = 2


class Ours:
    """``Pace`` and ``wants_container``, asked as ``runner_node/starts.py`` asks them."""

    def __init__(self, cores: int) -> None:
        self.pace = Pace(cores)
        self._most = STARTS_PER_CORE * cores

    def _demand(self, node: Node, now: float) -> Demand:
        first = node.waiting[min(node.starting, len(node.waiting) - 1)].came if node.waiting else now
        return self.pace.demand(
            now, waiting=len(node.waiting), starting=node.starting, containers=node.containers, since=first
        )

    def wants(self, node: Node, now: float) -> bool:
        # Half of all starts where none of the function has gone well.
        most = self._most if node.containers else max(self._most // 2, 1)
        return node.starting < most and wants_container(self._demand(node, now))

    def begun(self, node: Node, now: float) -> None:
        self.pace.began_start()

    def look_again(self, node: Node, now: float) -> float | None:
        return next_look(self._demand(node, now))

    def ready(self, node: Node, now: float, seconds: float) -> None:
        self.pace.saw_start(seconds, now, first=node.containers == 1)

    def handed_out(self, node: Node, now: float, since: float) -> None:
        self.pace.saw_wait(since, now)

    def ended(self, node: Node, now: float, seconds: float) -> bool:
        self.pace.saw_service(seconds, node.containers, crowded=bool(node.waiting), starting=node.starting)
        return not self.pace.surplus(node.containers)


class Fixed:
    """Starts none: those that are there from the beginning serve all."""

    def wants(self, node: Node, now: float) -> bool:
        return False

    def begun(self, node: Node, now: float) -> None: ...

    def look_again(self, node: Node, now: float) -> float | None:
        return None

    def ready(self, node: Node, now: float, seconds: float) -> None: ...
    def handed_out(self, node: Node, now: float, since: float) -> None: ...

    def ended(self, node: Node, now: float, seconds: float) -> bool:
        return True


class Fn(Fixed):
    """One more whenever more calls wait than containers are starting (``api/agent/slots.go``)."""

    def wants(self, node: Node, now: float) -> bool:
        return len(node.waiting) > node.starting


class Before(Fixed):
    """Ours as it was: the predicted wait of the last in line against a start, and no more."""

    def __init__(self, cores: int) -> None:
        self._most = STARTS_PER_CORE * cores
        self._service: float | None = None
        self._start = 0.5

    def wants(self, node: Node, now: float) -> bool:
        unserved = len(node.waiting) - node.starting
        if unserved <= 0 or node.starting >= (self._most if node.containers else max(self._most // 2, 1)):
            return False
        if not node.containers + node.starting or now - node.waiting[0].came >= self._start:
            return True
        if self._service is None or not node.containers:
            return False
        return unserved * self._service / node.containers > self._start

    def look_again(self, node: Node, now: float) -> float | None:
        if len(node.waiting) - node.starting <= 0:
            return None
        return max(self._start - (now - node.waiting[0].came), 0.001)

    def ready(self, node: Node, now: float, seconds: float) -> None:
        self._start += WEIGHT * (seconds - self._start)

    def ended(self, node: Node, now: float, seconds: float) -> bool:
        old = self._service
        self._service = seconds if old is None else old + WEIGHT * (seconds - old)
        return True
