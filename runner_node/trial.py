"""Whether more containers of one function served more calls: each growth is a trial, and is judged.

Nobody can tell a function that computes from one that waits for others, nor one database that is the limit
from another. But if twice as many containers serve hardly more calls, they are in each other's way. Pure: no
clock, no loop; a few additions for each call that ends while others wait.
"""

from __future__ import annotations

import math

UNPROVEN = 2
"""Containers per core that may be started before it is known what they bring."""
GAIN = 0.4
"""Part of what more containers could bring at best that they must bring."""
ENOUGH = 10
"""Calls that are looked at before containers are judged, at least."""
NOISE = 60
"""Calls that are looked at if they vary as much as they are long; fewer if they vary less, by the square."""
SPAN = 0.1
"""Seconds over which they are looked at, at least: short calls are many in a moment in which the machine does
something else."""
SURE = 2
"""Times as many, for as much longer, before anything is believed of more containers."""
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 480.0
"""Seconds for which it is believed that more containers bring nothing; doubles each time."""


class Trial:
    """Of one function on *cores*. Times in seconds of any clock that only goes forward.

    At most twice as many containers are started as are known to be worth it, and those that were started in
    vain are given back, and not tried again for a while.
    """

    __slots__ = (
        "_began", "_count", "_disturbed", "_judged", "_need", "_pause", "_rate", "_skip", "_squares", "_sum",
        "_unproven", "_useless", "_useless_until", "doubtful", "proven",
    )  # fmt: skip

    def __init__(self, cores: int) -> None:
        self.proven = 0
        """Containers that are known to serve more calls than half of them would; 0: not known yet."""
        self._rate = 0.0
        """Calls a second that they serve when all are at work."""
        self._unproven = UNPROVEN * cores
        self.doubtful = False
        """The last growth brought too little: what can be done with more is to be shown first."""
        self._useless = False
        self._useless_until = -math.inf
        self._pause = FIRST_PAUSE
        self._judged = 0
        self._watch(0)

    def limit(self, now: float) -> int:
        """Containers that a function with short calls may have."""
        if self._useless and now >= self._useless_until:
            self._useless = False
            self._watch(0)
        return max(self.proven if self._useless else 2 * self.proven, self._unproven)

    def surplus(self, containers: int) -> bool:
        """Whether one of so many *containers* is to be given back."""
        return self._useless and containers > self.proven and containers > self._unproven

    def saw(self, seconds: float, containers: int, *, starting: int, now: float) -> None:
        """A call took that long in one of *containers*, all of which are at work, while others wait."""
        if containers != self._judged:
            self._judged = containers
            self._watch(containers)
        if starting:
            self._disturbed = True
        if self._skip:
            self._skip -= 1
            return
        if not self._count:
            self._began = now
        self._count += 1
        self._sum += seconds
        self._squares += seconds * seconds
        times = 1 if containers == self.proven or not self.proven else SURE
        if self._count >= times * self._need and now - self._began >= times * SPAN:
            self._judge(containers, times, now)

    def _watch(self, skip: int) -> None:
        self._skip = skip
        """Calls that began when there were fewer containers."""
        self._need = max(ENOUGH, 2 * self._judged)
        self._count = 0
        self._began = 0.0
        self._sum = self._squares = 0.0
        self._disturbed = False
        """Containers started meanwhile, which takes CPU."""

    def _judge(self, containers: int, times: int, now: float) -> None:
        count, mean = self._count, max(self._sum / self._count, 1e-9)
        self._need = max(ENOUGH, 2 * containers, math.ceil(NOISE * (self._squares / count / mean**2 - 1)))
        if count < times * self._need:
            return
        rate, disturbed, before = containers / mean, self._disturbed, self.proven
        if (
            before
            and containers >= 2 * before
            and rate >= self._rate * (1 + GAIN * (containers / before - 1))
        ):
            # Be it disturbed: it brought enough all the same. But what it will bring is not known yet.
            self._rate = self._rate * containers / before if disturbed else rate
            self.proven, self._pause = containers, FIRST_PAUSE
            self.doubtful = False
        elif disturbed:
            pass
        elif containers == before or not before:
            self.proven, self._rate = containers, rate
        elif containers >= self.limit(now) and not self._useless:
            self._useless = self.doubtful = True
            self._useless_until = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._watch(0)
