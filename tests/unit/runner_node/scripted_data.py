"""A DataAccess for unit tests: answers from dictionaries, can be away, counts what it was asked."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Collection, Sequence

from shared_models import errors
from shared_models.app import App
from shared_models.call import Call, Finished, LeasedCall, LeaseKey
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess
from shared_models.route import Route
from shared_models.runner import RunnerReport, RunnerState
from shared_models.trigger import TriggerTarget
from shared_models.wanted import Wanted


class ScriptedQueue:
    """Calls that are handed out in order, once."""

    def __init__(self) -> None:
        self._waiting: list[LeasedCall] = []
        self._more = asyncio.Event()

    def put_nowait(self, leased: LeasedCall) -> None:
        self._waiting.append(leased)
        self._more.set()

    def empty(self) -> bool:
        return not self._waiting

    async def take(self, limit: int, wait: float, without: Collection[str]) -> list[LeasedCall]:
        try:
            async with asyncio.timeout(wait or None):
                while True:
                    wanted = (one for one in self._waiting if one.call.fn_id not in without)
                    taken = list(itertools.islice(wanted, limit))
                    if taken or not wait:
                        break
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return []
        gone = {id(one) for one in taken}
        self._waiting = [one for one in self._waiting if id(one) not in gone]
        return taken


class ScriptedData(DataAccess):
    """Everything is in attributes that a test sets and reads."""

    def __init__(self) -> None:
        self.away = False
        self.fns: dict[str, Fn] = {}
        self.apps: dict[str, App] = {}
        self.routes: dict[tuple[str, str], Route] = {}
        self.triggers: dict[tuple[str, str], TriggerTarget] = {}
        self.asked: Counter[str] = Counter()
        self.gate = asyncio.Event()
        """Look-ups wait for it."""
        self.gate.set()
        self.queued = ScriptedQueue()
        self.asked_for: list[tuple[int, float, frozenset[str]]] = []
        """Limit, wait and functions to be passed over of each dequeue."""
        self.late: list[LeasedCall] = []
        """What a dequeue that is given up has leased all the same."""
        self.enqueued: list[Call] = []
        self.enqueue_error: errors.FnError | None = None
        self.known_id = ""
        """The id of the call that an earlier one with the same key has."""
        self.state = RunnerState.ACTIVE
        self.wants: Wanted | None = None
        """What ``wanted`` answers; the cursors that it was asked with are in ``since``."""
        self.since: list[str] = []
        self.started: list[str] = []
        self.start_error: errors.FnError | None = None
        self.lost: list[str] = []
        self.released: list[str] = []
        self.finished: list[Finished] = []
        self.refused: set[str] = set()
        self.refuse_all = False
        self.unauthorized_look_ups = False
        self._held: dict[str, asyncio.Event] = {}
        self.bad: set[str] = set()
        """Calls for which the API node says 400, to a whole batch."""
        self.unauthorized = False
        self.largest_log = 1 << 30
        self.batches: list[int] = []
        self.took = asyncio.Event()

    def hold(self, what: str) -> None:
        """Requests of that kind wait until ``let_go``."""
        self._held[what] = asyncio.Event()

    def let_go(self, what: str) -> None:
        self._held.pop(what).set()

    async def _ask(self, what: str) -> None:
        self.asked[what] += 1
        await self.gate.wait()
        if held := self._held.get(what):
            await held.wait()
        if self.away:
            raise errors.APINodeUnavailable

    async def app_id(self, name: str) -> str:
        await self._ask("app_id")
        for app in self.apps.values():
            if app.name == name:
                return app.id
        raise errors.AppNotFound

    async def app(self, app_id: str) -> App:
        await self._ask("app")
        if app_id not in self.apps:
            raise errors.AppNotFound
        return self.apps[app_id]

    async def route(self, app_id: str, path: str) -> Route:
        await self._ask("route")
        if (app_id, path) not in self.routes:
            raise errors.RouteNotFound
        return self.routes[app_id, path]

    async def fn(self, fn_id: str) -> Fn:
        await self._ask("fn")
        if self.unauthorized_look_ups:
            raise errors.RunnerRefused
        if fn_id not in self.fns:
            raise errors.FnNotFound
        return self.fns[fn_id]

    async def trigger(self, app_name: str, type_: str, source: str) -> TriggerTarget:
        await self._ask("trigger")
        if (app_name, source) not in self.triggers:
            raise errors.TriggerNotFound
        return self.triggers[app_name, source]

    async def enqueue(self, call: Call) -> str:
        await self._ask("enqueue")
        if self.enqueue_error:
            raise self.enqueue_error
        self.enqueued.append(call)
        return self.known_id or call.id

    async def dequeue(
        self, node: str, limit: int, wait: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        await self._ask("dequeue")
        if self.unauthorized:
            raise errors.RunnerRefused
        self.asked_for.append((limit, wait, frozenset(without)))
        try:
            return await self.queued.take(limit, wait, without)
        except asyncio.CancelledError:
            if self.late:
                return self.late
            raise

    async def start(self, leased: LeasedCall) -> None:
        await self._ask("start")
        if self.start_error:
            raise self.start_error
        self.started.append(leased.call.id)

    async def extend(self, keys: Sequence[LeaseKey]) -> list[str]:
        await self._ask("extend")
        return [key.id for key in keys if key.id in self.lost]

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        await self._ask("release")
        self.released += [key.id for key in keys]

    async def finish(self, batch: Sequence[Finished]) -> list[str]:
        await self._ask("finish")
        if self.unauthorized:
            raise errors.RunnerRefused
        if max(len(one.log) for one in batch) > self.largest_log:
            raise errors.TooLarge
        if self.bad & {one.call.id for one in batch}:
            raise errors.Invalid("call.status: must be one of ...")
        if self.refuse_all:
            return [one.call.id for one in batch]
        self.batches.append(len(batch))
        self.finished += [one for one in batch if one.call.id not in self.refused]
        self.took.set()
        return [one.call.id for one in batch if one.call.id in self.refused]

    async def wanted(self, since: str) -> Wanted | None:
        await self._ask("wanted")
        self.since.append(since)
        return self.wants

    async def heartbeat(self, report: RunnerReport) -> RunnerState:
        await self._ask("heartbeat")
        if self.unauthorized:
            raise errors.RunnerRefused
        return self.state
