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
    "clock-ahead": Kind(RUNNERS + APIS, 5, 12),
    "clock-behind": Kind(RUNNERS + APIS, 5, 12),
    "drain": Kind(RUNNERS, 3, 8),
    "poison": Kind(POISONS, 0, 0),
    "cancel": Kind(CLIENTS, 1, 3),
}
REST = 4.0
"""Seconds that a target is left in peace after a fault, so that it is up when the next one comes."""
LONGEST = max(kind.most for kind in KINDS.values())
LONGEST_GAP = 6.0
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
    """Faults within about *seconds*, in order of time; each of *kinds* comes before any comes again.

    No target has two faults at once.
    """
    rng = random.Random(seed)
    gap = min(LONGEST_GAP, max(0.1, (seconds - LONGEST) / len(kinds)))
    busy: dict[str, float] = {}
    faults: list[Fault] = []
    bag: list[str] = []
    for place in range(round((seconds - LONGEST) / gap)):
        if not bag:
            bag = list(kinds)
            rng.shuffle(bag)
        kind = KINDS[bag[-1]]
        at = (place + rng.random()) * gap
        free = [target for target in kind.targets if busy.get(target, 0.0) <= at]
        target = rng.choice(free or kind.targets)
        at = round(max(at, busy.get(target, 0.0)), 1)
        length = round(rng.uniform(kind.least, kind.most), 1)
        faults.append(Fault(at, bag.pop(), target, length))
        if kind.targets not in (POISONS, CLIENTS):
            busy[target] = at + length + REST
    return sorted(faults, key=lambda fault: fault.at)
