"""What breaks, when, where, and for how long: a pure function of a seed and a duration."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

RUNNERS = ("runner-0", "runner-1", "runner-2")
APIS = ("api-0", "api-1")
SERVERS = ("redis", "postgres")
LINKS = tuple(f"{runner}>{api}" for runner in RUNNERS for api in APIS) + tuple(
    f"{api}>{server}" for api in APIS for server in SERVERS
)
POISONS = ("exit", "kill", "mute", "missing")
CLIENTS = ("clients",)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: its possible *targets*, and for how many seconds it lasts."""

    targets: tuple[str, ...]
    least: float
    most: float


KINDS: dict[str, Kind] = {
    "kill-runner": Kind(RUNNERS, 1, 6),
    "kill-api": Kind(APIS, 1, 6),
    "terminate-runner": Kind(RUNNERS, 0.5, 3),
    "terminate-api": Kind(APIS, 0.5, 3),
    "freeze-runner": Kind(RUNNERS, 6, 12),
    "freeze-api": Kind(APIS, 3, 8),
    "cut": Kind(LINKS, 1, 4),
    "delay": Kind(LINKS, 2, 6),
    "hang": Kind(LINKS, 2, 8),
    "lose-answers": Kind(LINKS, 2, 6),
    "restart-redis": Kind(("redis",), 0.5, 4),
    "restart-postgres": Kind(("postgres",), 0.5, 4),
    "freeze-redis": Kind(("redis",), 1, 5),
    "freeze-postgres": Kind(("postgres",), 1, 5),
    "full-disk": Kind(RUNNERS, 4, 8),
    "clock-ahead": Kind(RUNNERS, 5, 12),
    "clock-behind": Kind(RUNNERS, 5, 12),
    "drain": Kind(RUNNERS, 3, 8),
    "poison": Kind(POISONS, 0, 0),
    "cancel": Kind(CLIENTS, 1, 3),
}
REST = 4.0
"""Seconds that a target is left in peace after a fault, so that it is up when the next one comes."""
LONGEST_GAP = 8.0
"""Seconds between two faults, on average, in a long run; a short one crowds them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """*at* and *length* in seconds from the beginning of the faults."""

    at: float
    kind: str
    target: str
    length: float

    @property
    def end(self) -> float:
        return self.at + self.length

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind:17} {self.target:17} {self.length:4.1f} s"


def schedule(seed: int, seconds: float, kinds: Sequence[str] = tuple(KINDS)) -> list[Fault]:
    """Faults that begin and end within *seconds*, in order; each of *kinds* comes before any comes again.

    No target has two faults at once.
    """
    rng = random.Random(seed)
    gap = min(LONGEST_GAP, seconds / (len(kinds) + 2))
    busy: dict[str, float] = {}
    faults: list[Fault] = []
    bag: list[str] = []
    at = gap
    while at < seconds:
        if not bag:
            bag = list(kinds)
            rng.shuffle(bag)
        kind = bag.pop()
        length = round(rng.uniform(KINDS[kind].least, KINDS[kind].most), 1)
        target = rng.choice(KINDS[kind].targets)
        at = round(at, 1)
        free = [one for one in KINDS[kind].targets if busy.get(one, 0.0) <= at]
        if target not in free and free:
            target = rng.choice(free)
        begin = max(at, round(busy.get(target, 0.0), 1))
        if begin + length <= seconds:
            faults.append(Fault(begin, kind, target, length))
            if target not in POISONS + CLIENTS:
                busy[target] = begin + length + REST
        at += gap * rng.uniform(0.5, 1.5)
    return sorted(faults, key=lambda fault: fault.at)
