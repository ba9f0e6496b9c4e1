"""Starts of containers: which are worth it and may begin now, and what follows from those that fail."""

from __future__ import annotations

import asyncio
import logging
import math

from runner_node.backoff import Backoff
from runner_node.demand import next_look, wants_container
from runner_node.drivers.contract import ContainerDriver
from runner_node.fair_share import Share
from runner_node.hot_container import HotContainer, StartFailed
from runner_node.pool import Pool
from runner_node.room import NOW
from runner_node.secret_files import SecretFiles
from runner_node.settings import AgentSettings
from runner_node.slots import SlotQueue
from shared_models import errors

log = logging.getLogger(__name__)

STARTS_PER_CPU = 2
"""Containers that may be starting at once: more would only slow each other down."""
MOMENT = 0.001
"""Seconds by which a timer is late, so that what it waits for is over."""


class Starts:
    """Of one scheduler."""

    def __init__(
        self, pool: Pool, driver: ContainerDriver, settings: AgentSettings, node_id: str, secrets: SecretFiles
    ) -> None:
        self.backoff = Backoff()
        self._pool = pool
        self._driver = driver
        self._settings = settings
        self._node_id = node_id
        self._secrets = secrets
        self._loop = asyncio.get_running_loop()
        self._starting = 0
        self._most = max(STARTS_PER_CPU * pool.cores, 2)
        self._again: asyncio.TimerHandle | None = None
        self.short = False
        """Somebody waits whom a start would help, and there is no room for it (or was not a moment ago)."""
        pool.freed = self.look_at_all
        pool.rested = self._rested

    def look(self, queue: SlotQueue) -> None:
        """Starts what is worth its start and fits; comes back when time alone may change the answer."""
        self._look(queue, self._pool.room.owed(self._loop.time()) if self.short else None)

    def begin_spare(self, queue: SlotQueue) -> bool:
        """Begins a container for which no call waits, in room that nobody else wants; whether it did."""
        share, target = queue.share, queue.target
        if self.short or self._starting >= max(self._most // 2, 1) or share.capped:
            return False
        if self.backoff.pause(target.origin, self._loop.time()):
            return False
        # As for async calls: a part of the memory stays free for calls whose function has nothing.
        if not self._pool.resources.take(target.memory, target.cpus, sync=False, first=False):
            return False
        self._begin(queue)
        return True

    def look_at_all(self) -> None:
        """Those who have nothing come first, then those who have waited longest."""
        self.short = False
        owed = self._pool.room.owed(self._loop.time())
        for share in sorted(self._pool.shares.waiting(), key=_turn):
            blocked: set[bytes] = set()
            for queue in list(share.lines):
                if self._starting >= self._most:
                    self.short = True
                    return
                # A function with a container for each call has a line for each.
                if queue.target.origin not in blocked and not self._look(queue, owed):
                    blocked.add(queue.target.origin)

    def _look(self, queue: SlotQueue, owed: SlotQueue | None) -> bool:
        """False when a start is wanted that may not be."""
        now = self._loop.time()
        while wants_container(demand := queue.demand(now)):
            delay = self._delay(queue, owed, now)
            if delay > NOW:
                # Looked at again when a start or a removal ends, if not before.
                self.short = True
                self._look_later(delay)
                return False
            self._begin(queue)
        pause = next_look(demand)
        if pause is not None:
            self._look_in(queue, pause)
        return True

    def _look_in(self, queue: SlotQueue, pause: float) -> None:
        if queue.timer:
            if queue.timer.when() <= self._loop.time() + pause + MOMENT:
                return
            queue.timer.cancel()
        queue.timer = self._loop.call_later(pause, self._timer, queue)

    def _delay(self, queue: SlotQueue, owed: SlotQueue | None, now: float) -> float:
        """``NOW`` when one more container of *queue* may be started, which has its room then.

        Else the seconds after which that may be so by the mere passing of time.
        """
        share = queue.share
        if self._pool.closed or self._starting >= self._most:
            return math.inf
        # Those who make way for one that is owed a container do not take its room back at once.
        had = not share.empty_handed or share.lost > -math.inf
        if owed and owed.share is not share and had and (held := self._pool.room.held(owed, now)):
            return held
        failing = self.backoff.failing(queue.target.origin)
        if failing and (pause := self.backoff.pause(queue.target.origin, now)):
            return pause
        if share.starting >= self._slots(queue, failing=failing):
            return math.inf
        return self._pool.room.under_cap(queue, now) or self._pool.room.take(queue, now)

    def _slots(self, queue: SlotQueue, *, failing: bool) -> int:
        """How many containers of a function may be starting at once.

        One where the last start failed. All there can be where containers have started and nobody else
        waits; half of them otherwise, so that starts that fail or hang are never in the way of all others.
        """
        if failing:
            return 1
        proven = queue.share.containers > 0 and not self.short
        return self._most if proven else max(self._most // 2, 1)

    def _timer(self, queue: SlotQueue) -> None:
        queue.timer = None
        self.look(queue)

    def _rested(self) -> None:
        if self.short and self._pool.starving():
            self._look_later(self._settings.eject_idle)

    def someone_left(self) -> None:
        """A call waits no more without having got a container: others may have waited for it."""
        if self.short:
            self._look_later(0.0)

    def _look_later(self, delay: float) -> None:
        if self._pool.closed or delay == math.inf:
            return
        if self._again is not None:
            if self._again.when() <= self._loop.time() + delay + MOMENT:
                return
            self._again.cancel()

        def look() -> None:
            self._again = None
            self.look_at_all()

        self._again = self._loop.call_later(delay + MOMENT, look)

    def _begin(self, queue: SlotQueue) -> None:
        if head := queue.head():
            queue.target.series.wait.add(self._loop.time() - head.since)
        queue.pace.began_start()
        queue.starting += 1
        queue.share.starting += 1
        queue.share.made_way = -math.inf
        self._starting += 1
        self._pool.spawn(self._start(queue), "start container")

    async def _start(self, queue: SlotQueue) -> None:
        target, began = queue.target, self._loop.time()
        container = HotContainer(target, self._settings, self._pool.gone)
        try:
            await container.start(self._driver, self._node_id, self._secrets)
        except StartFailed as failure:
            self._failed(queue, failure)
        except Exception:
            log.exception("starting a container of %s", target.function)
            self._failed(queue, StartFailed(errors.FnError(), b""))
        else:
            seconds = self._loop.time() - began
            target.series.start.add(seconds)
            queue.pace.saw_start(seconds, self._loop.time(), first=not queue.containers)
            self.backoff.succeeded(target.origin)
            self._pool.add(queue, container)
        finally:
            queue.starting -= 1
            queue.share.starting -= 1
            self._starting -= 1
            self._pool.tidy(queue)
            self.look_at_all()

    def _failed(self, queue: SlotQueue, failure: StartFailed) -> None:
        target = queue.target
        self._pool.resources.give(target.memory, target.cpus)
        queue.share.lost = self._loop.time()
        everybody = self.backoff.failed(target.origin, failure.error, self._loop.time())
        log.warning("no container for %s: %s", target.function, failure.error.explained)
        for other in list(queue.share.lines):
            # Where containers are at work, those who wait are served all the same.
            if (
                other.target.origin == target.origin
                and not other.containers
                and (everybody or other is queue)
            ):
                self._pool.fail(other, failure, everybody=everybody)

    def end(self) -> None:
        """No more starts."""
        if self._again:
            self._again.cancel()


def _turn(share: Share) -> tuple[bool, float]:
    """Those who have nothing come first, then those who have waited longest."""
    since = share.deprived_since()
    if since is not None:
        return False, since
    return True, min((head.since for queue in list(share.lines) if (head := queue.head())), default=math.inf)
