"""What a runner asks the queue for, so that no function takes every place while others wait. Pure numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

WAIT = 30.0
"""Seconds of one long poll."""
SHORT_WAIT = 1.0
"""The same while functions are passed over: their calls wait for the next one."""
MOST_WITHOUT = 100
"""Functions that one request may pass over."""
FEW = 8
"""Calls that wait for a container and do not keep it busy while more are asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """At most *limit* calls of functions that are not in *without*, within *wait* seconds.

    *full* are those of them that have all that they may have here; the others have more than their share.
    """

    limit: int
    wait: float
    without: frozenset[str] = frozenset()
    full: frozenset[str] = frozenset()

    @property
    def glance(self) -> bool:
        """Whether it only asks if anybody else waits."""
        return not self.wait


@dataclasses.dataclass(slots=True)
class Holding:
    """Calls of one function that are here, and how many may be (0: no limit)."""

    calls: int = 0
    cap: int = 0

    @property
    def full(self) -> bool:
        """Whether no more may come."""
        return 0 < self.cap <= self.calls


def ask(room: int, held: Mapping[str, Holding], *, alone: bool, most: int) -> Ask:
    """What to ask for when *room* more calls can be taken; *held* by function, "" for those of routes.

    A function may have half of what the runner can hold. To others that wait this is a promise, kept by
    asking for them first: a glance, with those passed over that have their half. *alone*: there was nobody
    a moment ago, and all of the room goes to whoever comes. *most* calls are asked for at once.
    """
    full = frozenset(sorted(fn for fn, holding in held.items() if fn and holding.full)[:MOST_WITHOUT])
    wait = SHORT_WAIT if full else WAIT
    if alone:
        return Ask(min(room, most), wait, full, full)
    share = max(1, (sum(holding.calls for holding in held.values()) + room) // 2)
    calls = {fn: holding.calls for fn, holding in held.items() if fn and fn not in full}
    over = sorted((fn for fn, count in calls.items() if count >= share), key=calls.__getitem__, reverse=True)
    over = over[: MOST_WITHOUT - len(full)]
    if not over:
        return Ask(min(room, most, share - max(calls.values(), default=0)), wait, full, full)
    left = share - max((count for fn, count in calls.items() if fn not in over), default=0)
    return Ask(max(1, min(room, most, left)), 0.0, full | frozenset(over), full)


def too_little(limit: int, waiting: int, most: int) -> bool:
    """Whether a request for *limit* calls is better made a moment later, while *waiting* calls are here.

    One that brings a call costs the stores as much as one that brings *most*. A node that pulls whenever a
    call has ended pulls one by one, is slowed down by that, and stays there.
    """
    return waiting > FEW and limit < min(waiting, most)
