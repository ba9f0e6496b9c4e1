"""A runner of the model: leases in, the function run, results out through the real recorder and spool."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from runner_node.func_logs import CallLog
from runner_node.recorder import Recorder
from runner_node.results import Result
from runner_node.spool import Spool
from shared_models import errors, times
from shared_models.call import Call, LeasedCall, Reason, Status
from tests.model.history import History, Outcome, Run
from tests.model.network import Client, Network

Clock = Callable[[], float]
RENEWALS = 3
"""Per time to live of a lease."""
DRAIN = 25.0
"""Seconds that running calls have when their runner stops."""
SPOOL = 1 << 20
"""Bytes of a spool, unless its disk is full."""

_ENDS = {
    Outcome.SUCCESS: (Status.SUCCESS, "", ""),
    Outcome.ERROR: (Status.ERROR, "the function failed", Reason.FUNCTION),
    Outcome.TIMEOUT: (Status.TIMEOUT, "Timed out", Reason.TIMEOUT),
    Outcome.OOM: (Status.ERROR, "container out of memory", Reason.OOM),
    Outcome.CUT_OFF: (Status.ERROR, "the runner stopped", Reason.RUNNER_STOPPED),
    Outcome.NOT_STARTED: (Status.ERROR, "no container could be started", Reason.NOT_STARTED),
}


class RunnerLife:
    """A runner process from its start until it is killed. The spool outlives it."""

    def __init__(
        self,
        name: str,
        history: History,
        network: Network,
        clock: Callable[[], float],
        spool: Path,
        size: int,
    ) -> None:
        self.name = name
        self.deaf = False
        """It goes on with what it is told that it has lost."""
        self._history = history
        self._clock = clock
        self._client = Client(name, network)
        self._recorder = Recorder(self._client, Spool(spool, size))
        self._tasks: set[asyncio.Task[Any]] = set()
        self._held: dict[str, LeasedCall] = {}
        self._holding = asyncio.Event()
        self._ttl = 30.0
        self._running: dict[str, asyncio.Task[None]] = {}
        self._unfinished: dict[str, LeasedCall] = {}
        """Those whose function was begun and has not answered."""
        self.ended = False
        """It has drained and is gone."""
        self._stopping = False
        if any(spool.glob("*.results")):
            history.note(self._now(), f"{name} finds results in its spool")
        self._recording = self._go(self._recorder.run())
        self._go(self._renew())

    def _go(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._history.watch)
        return task

    def kill(self) -> None:
        """It ends in the middle of whatever it does."""
        self._history.touch(self._held, f"{self.name} died")
        self._client.dead = True
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        """Ends as a runner should: what it has may end in time, the rest is handed in as cut off."""
        self._stopping = True
        if self._running:
            _, late = await asyncio.wait(self._running.values(), timeout=DRAIN)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        for one in list(self._unfinished.values()):
            self._history.touch([one.call.id], f"{self.name} stopped")
            self._hand_in(one, Outcome.CUT_OFF, times.NEVER)
        self._recorder.drain()
        await asyncio.wait({self._recording})
        self._client.dead = True
        self.ended = True
        for task in self._tasks:
            task.cancel()

    @property
    def busy(self) -> bool:
        """Whether it has calls, or results that no API node has."""
        return bool(self._held or self._recorder.waiting)

    def pull(self, limit: int, wait: float) -> None:
        """Asks for calls in the background."""
        self._go(self._pull(limit, wait))

    async def _pull(self, limit: int, wait: float) -> None:
        try:
            leased = await self._client.dequeue(self.name, limit, wait)
        except errors.Unavailable:
            return
        if self._stopping and leased:
            self._history.touch([one.call.id for one in leased], f"{self.name} stopped")
            with contextlib.suppress(errors.Unavailable):
                await self._client.release([one.key for one in leased])
            return
        for one in leased:
            if one.call.id in self._held:
                self._history.note(self._now(), f"{self.name} was given again what it has", [one.call.id])
                continue
            self._held[one.call.id] = one
            self._ttl = one.lease.ttl if one.lease else self._ttl
            self._holding.set()
            self._running[one.call.id] = self._go(self._run(one))

    async def _run(self, leased: LeasedCall) -> None:
        call = leased.call
        assert leased.lease is not None
        plan = self._history.plans[call.id]
        if plan.shy:
            plan.shy = False
            await self._give_back(leased)
            return
        outcome = self._history.outcome(call.id, leased.lease.attempt)
        started_at = times.to_text(self._clock())
        if outcome is not Outcome.NOT_STARTED:
            try:
                running = msgspec.structs.replace(call, started_at=started_at)
                await self._client.start(msgspec.structs.replace(leased, call=running))
            except errors.LeaseLost:
                self._history.note(self._now(), f"{self.name} must not start", [call.id])
                self._forget(leased)
                return
            except errors.Unavailable:
                await self._give_back(leased)
                return
            self._history.runs.append(Run(call.id, leased.lease.attempt, self.name, self._now()))
            self._history.note(self._now(), f"{self.name} runs attempt {leased.lease.attempt}", [call.id])
            self._unfinished[call.id] = leased
            await asyncio.sleep(plan.duration)
            del self._unfinished[call.id]
        self._hand_in(leased, outcome, started_at)

    def _hand_in(self, leased: LeasedCall, outcome: Outcome, started_at: str) -> None:
        status, error, reason = _ENDS[outcome]
        ended: Call = msgspec.structs.replace(
            leased.call,
            status=status,
            error=error,
            reason=reason,
            started_at=started_at,
            completed_at=times.to_text(self._clock()),
            node=self.name,
        )
        self._history.note(self._now(), f"{self.name} ended it as {outcome.value}", [ended.id])
        result = Result(ended, CallLog(0), leased.key.token, lambda taken: self._forget(leased))
        self._recorder.add(result)

    async def _give_back(self, leased: LeasedCall) -> None:
        self._forget(leased)
        try:
            await self._client.release([leased.key])
        except errors.Unavailable:
            self._history.touch([leased.call.id], "could not be released")

    def _forget(self, leased: LeasedCall) -> None:
        if self._held.get(leased.call.id) is leased:
            del self._held[leased.call.id]
            self._unfinished.pop(leased.call.id, None)
            self._running.pop(leased.call.id, None)

    async def _renew(self) -> None:
        while True:
            await self._holding.wait()
            await asyncio.sleep(self._ttl / RENEWALS)
            keys = [one.key for one in self._held.values()]
            if not keys:
                self._holding.clear()
                continue
            try:
                lost = await self._client.extend(keys)
            except errors.Unavailable:
                continue
            for call_id in lost:
                task = self._running.get(call_id)
                if task and not self.deaf and task.cancel():
                    self._history.note(
                        self._now(),
                        f"{self.name} lost the lease, the run is stopped",
                        [call_id],
                    )
                    self._forget(self._held[call_id])

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
