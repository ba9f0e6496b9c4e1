"""Whether this runner can take calls, and the heartbeats that say so to the API node."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from runner_node import together
from runner_node.drivers.contract import ContainerDriver
from runner_node.loops import Changes
from runner_node.resources import Resources
from runner_node.scheduler import Scheduler
from shared_models import errors
from shared_models.interfaces import DataAccess
from shared_models.runner import HEARTBEAT, RunnerReport, RunnerState
from shared_models.workers import Siblings

log = logging.getLogger(__name__)

BEGIN = 1.0
"""Seconds between looks until an API node has answered for the first time: it may be starting, too."""
_NOT_ASKED = "the container engine has not been asked yet"


class Health:
    """Looks at the engine and at the API node every few seconds; ``reason`` is empty when all is well."""

    def __init__(
        self,
        data: DataAccess,
        driver: ContainerDriver,
        scheduler: Scheduler,
        resources: Resources,
        node_id: str,
        address: str,
        version: str,
        siblings: Siblings | None = None,
        stale: float = math.inf,
    ) -> None:
        self._data = data
        self._driver = driver
        self._scheduler = scheduler
        self._resources = resources
        self._node_id = node_id
        self._address = address
        self._version = version
        self._siblings = siblings
        if siblings:
            siblings.answer(together.QUESTION, lambda: together.encode(self._own_report()))
        self._engine = _NOT_ASKED
        self._was_ready = False
        self._state = RunnerState.ACTIVE
        self._refused = ""
        self._stopping = False
        self._api_away = ""
        self._seen: float | None = None
        self._stale = stale
        self.agent_running: Callable[[], int] = lambda: 0
        self.spool_full: Callable[[], bool] = lambda: False
        self.spooled: Callable[[], int] = lambda: 0
        self.changes = Changes()
        """Of ``reason``."""

    @property
    def reason(self) -> str:
        """Why the node must not get calls now; empty when it may.

        An API node that is away is no reason while functions that are known go on being served: it has
        answered before, and not longer ago than look-ups are served from memory. One that refuses this runner
        is: that is a wrong setting. So is a spool that is full: results of calls would be lost.
        """
        if self._stopping:
            return "the node is stopping"
        if self._state is RunnerState.DRAINING:
            return "the node is draining"
        return self._engine or self._refused or self._forsaken() or self._lossy()

    def _forsaken(self) -> str:
        if self._seen is None:
            return "no API node has answered yet" + (self._api_away and f": {self._api_away}")
        if not self._api_away:
            return ""
        if time.monotonic() - self._seen > self._stale:
            limit = f"FN_CACHE_STALE_SECS={self._stale:g}"
            return f"no API node has answered for more than {limit}: {self._api_away}"
        return ""

    def _lossy(self) -> str:
        return "the spool is full, and no API node takes results" if self.spool_full() else ""

    @property
    def stops(self) -> bool:
        """Whether the node is on its way out."""
        return self._stopping

    @property
    def drains(self) -> bool:
        """Whether the node is to have no calls but those that it runs: it stops, or was told to drain."""
        return self._stopping or self._state is RunnerState.DRAINING

    def stopping(self) -> None:
        """From now on the node is not ready. Idempotent."""
        if not self._stopping:
            self._stopping = True
            self.changes.tell()

    async def run(self) -> None:
        """For ever."""
        while True:
            # An engine that is slow to answer must not make the runner look lost.
            await asyncio.gather(self._look_at_engine(), self._report())
            await asyncio.sleep(HEARTBEAT if self._seen is not None else min(BEGIN, HEARTBEAT))

    async def _look_at_engine(self) -> None:
        before = self.reason
        await self._ping()
        self._tell_since(before)

    async def _report(self) -> None:
        before = self.reason
        await self._beat()
        self._tell_since(before)

    def _tell_since(self, before: str) -> None:
        if self.reason != before:
            self.changes.tell()
        ready = not self.reason
        if ready and not self._was_ready:
            log.info("ready for calls")
        self._was_ready = ready

    async def _ping(self) -> None:
        try:
            await self._driver.ping()
        except errors.FnError as exc:
            reason = f"the container engine does not answer: {exc.shown or exc.message}"
            if self._engine != reason:
                cause = exc.detail or exc.message
                log.error("the container engine does not answer: %s; asked every %g s", cause, HEARTBEAT)
            self._engine = reason
            return
        if self._engine not in ("", _NOT_ASKED):
            log.info("the container engine answers again")
        self._engine = ""

    def _own_report(self) -> RunnerReport:
        resources, scheduler = self._resources, self._scheduler
        return RunnerReport(
            id=self._node_id, address=self._address, version=self._version,
            capacity_memory=resources.memory, capacity_cpus=resources.cpus,
            free_memory=resources.free_memory, free_cpus=resources.free_cpus,
            running=self.agent_running(), warm=scheduler.warm(), oldest_wait=scheduler.oldest_wait(),
            drains=self._state is RunnerState.DRAINING, spooled=self.spooled(),
        )  # fmt: skip

    async def _beat(self) -> None:
        report = self._own_report()
        if self._siblings:
            # Each worker speaks for all, and is told the state: nobody depends on one that may have died.
            told = await self._siblings.ask(together.QUESTION)
            report = together.summed(together.decode(text for _, text in told))
        try:
            state = await self._data.heartbeat(report)
        except errors.RunnerRefused as exc:
            if not self._refused:
                log.error("%s; not ready for calls", exc)
            self._refused = exc.message
            return
        except errors.FnError as exc:
            if not self._api_away:
                log.warning("no API node takes heartbeats: %s", exc.explained)
            self._api_away = exc.explained
            return
        self._refused, self._seen = "", time.monotonic()
        if self._api_away:
            log.info("the API node answers again")
            self._api_away = ""
        if state is not self._state:
            log.info("the API node wants this runner %s", state.value)
            self._state = state
