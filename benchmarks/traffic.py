"""Who calls a simulated node: callers that wait for their answers, or a stream that waits for nobody."""

from __future__ import annotations

import dataclasses

from benchmarks.simulated_node import Node


@dataclasses.dataclass(frozen=True, slots=True)
class Callers:
    """*number* of them, who call again as soon as they have their answer, for *seconds*."""

    number: int
    seconds: float

    def begin(self, node: Node) -> None:
        """All of them call now."""

        def again(now: float) -> None:
            if now < self.seconds:
                node.at(now, lambda: node.call(again))

        for _ in range(self.number):
            node.at(0.0, lambda: node.call(again))


@dataclasses.dataclass(frozen=True, slots=True)
class Stream:
    """*rate* calls a second on average, each of them whenever it likes, *burst* at a time, for *seconds*."""

    rate: float
    seconds: float
    burst: int = 1

    def begin(self, node: Node) -> None:
        """The first of them call at the beginning."""

        def come() -> None:
            for _ in range(self.burst):
                node.call()
            when = node.now + node.chance.expovariate(self.rate / self.burst)
            if when < self.seconds:
                node.at(when, come)

        node.at(0.0, come)


Traffic = Callers | Stream
