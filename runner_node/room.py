"""Room for one more container: who may take memory and CPU, who is owed it, and who makes way for it."""

from __future__ import annotations

import logging
import math

from runner_node.fair_share import Share, Shares
from runner_node.hot_container import HotContainer
from runner_node.resources import Resources
from runner_node.slots import SlotQueue

log = logging.getLogger(__name__)

HOLD = 5
"""Times *eject_idle* for which room that was made for a function is held for it."""
EVERY = 4
"""Times that time, after which room is made for it again, when it needed more than could be made."""
NOW = 0.0
"""What ``take`` answers when it took the room."""


class Room:
    """Of one scheduler, whose *shares* it sees; *eject_idle* in seconds.

    A function that has had calls and no container for *eject_idle* is owed one: calls hand their containers
    over for it, and async calls may use for it what is kept for sync ones. What is free then is held for it,
    but not for ever, and not again at once: it may be large, and the calls of others long.
    """

    def __init__(self, shares: Shares, resources: Resources, eject_idle: float) -> None:
        self._shares = shares
        self._resources = resources
        self._eject_idle = eject_idle
        self.resting: dict[HotContainer, SlotQueue] = {}
        """Idle containers, the one that has been idle for longest first."""
        self.ready: dict[HotContainer, float] = {}
        """Since when each container has been there."""
        self.warm: dict[bytes, int] = {}
        """Containers that are kept of targets, by key: only a function that is owed one has them go."""

    def forget(self, container: HotContainer) -> bool:
        """It is retired; whether it was idle."""
        self.ready.pop(container, None)
        return self.resting.pop(container, None) is not None

    def keeps_warm(self, queue: SlotQueue) -> bool:
        """Whether none of the containers of *queue* may go by being idle: it is to have as many as it has."""
        return len(queue.containers) <= self.warm.get(queue.target.key, 0)

    def owed(self, now: float) -> SlotQueue | None:
        """Of those that are owed a container, the one who has waited longest for it."""
        found, oldest = None, now - self._eject_idle
        for share in self._shares.waiting():
            since = share.deprived_since()
            if since is not None and since <= oldest and not self._in_vain(share, now):
                found, oldest = share, since
        return next(iter(found.lines), None) if found else None

    def _in_vain(self, share: Share, now: float) -> bool:
        hold = HOLD * self._eject_idle
        return hold < now - share.made_way < hold * EVERY

    def held(self, owed: SlotQueue, now: float) -> float:
        """Seconds for which room that was made is held for *owed*; 0 when others may take it."""
        return max(owed.share.made_way + HOLD * self._eject_idle - now, 0.0)

    def take(self, queue: SlotQueue, now: float) -> float:
        """Takes what one more container of *queue* needs, and answers ``NOW``.

        Otherwise the seconds after which to ask again: idle containers are on their way out, or may be
        told to go then. Infinite when only the end of a call, a start or a container changes anything.
        """
        target, first, since = queue.target, queue.share.empty_handed, queue.share.deprived_since()
        overdue = since is not None and now - since >= self._eject_idle
        sync = queue.sync_calls > 0
        if self._resources.take(target.memory, target.cpus, sync=sync, first=first, overdue=overdue):
            return NOW
        memory, cpus = self._resources.missing(
            target.memory, target.cpus, sync=sync, first=first, overdue=overdue
        )
        again = math.inf
        if since is not None and not (sync or overdue):
            again = self._eject_idle - (now - since)
        # What is kept warm goes last, and only for a function that waits in vain otherwise.
        for warm in (False, True) if overdue else (False,):
            for container, owner in list(self.resting.items()):
                if memory <= 0 and cpus <= 0:
                    return again
                if owner is queue:
                    continue
                if self.keeps_warm(owner) is not warm:
                    if since is not None and not overdue:
                        again = min(again, self._eject_idle - (now - since))
                    continue
                rest = self._eject_idle - (now - container.idle_since)
                if rest > 0:
                    again = min(again, rest)
                    break  # all that follow are younger still
                memory -= container.target.memory
                cpus -= container.target.cpus
                log.debug("ejecting an idle container of %s", container.target.function)
                container.retire()
        return again

    def under_cap(self, queue: SlotQueue, now: float) -> float:
        """``NOW`` when *queue*'s function may have one more container; else as ``take``.

        Idle containers of its other versions make way.
        """
        if not queue.share.capped:
            return NOW
        if queue.share.leaving:
            return math.inf
        for container, owner in list(self.resting.items()):
            if owner.share is queue.share and owner is not queue:
                rest = self._eject_idle - (now - container.idle_since)
                if rest <= 0:
                    container.retire()
                return rest if rest > 0 else math.inf
        return math.inf

    def must_make_way(self, container: HotContainer, queue: SlotQueue, now: float) -> bool:
        """Whether *container* of *queue*, whose call has ended, is needed for a function that is owed one.

        The only one of a function is left to it for a while, so that starting it was worth something.
        """
        owed = self.owed(now)
        if owed is None or owed.share is queue.share:
            return False
        if queue.share.containers < 2 and now - self.ready.get(container, now) < self._eject_idle:
            return False
        target = owed.target
        memory, cpus = self._resources.missing(
            target.memory, target.cpus, sync=owed.sync_calls > 0, first=True, overdue=True
        )
        if memory <= 0 and cpus <= 0:
            return False
        if now - owed.share.made_way > HOLD * self._eject_idle:
            owed.share.made_way = now
        return True
