"""All of the model: API nodes, runners, clients, and time; one call of a method is one step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import select

from services import janitor
from services.data_access import DirectDataAccess
from services.datastore.tables import callbacks, calls, dead_letters, idempotency_keys
from services.logstore.sql import SQLLogStore
from services.over_age import OverAge
from services.stores import Stores
from shared_models import async_policy
from shared_models.app import App
from shared_models.async_policy import AsyncSettings
from shared_models.call import FINAL
from shared_models.fn import Fn
from shared_models.ids import IdMaker
from shared_models.interfaces import DataAccess, LogStore
from tests.model import queues
from tests.model.api import ApiNode
from tests.model.history import History, Violation
from tests.model.inline_database import InlineDatabase
from tests.model.network import Network
from tests.model.queues import Opener
from tests.model.runner import SPOOL, RunnerLife
from tests.model.seen_queue import SeenQueue
from tests.model.virtual_time import VirtualLoop

T = TypeVar("T")
_TIMES = ("started_at", "completed_at")
_SHOWN = [calls.c[name] for name in ("id", "status", "error", "reason", "attempt", "node", *_TIMES)]

APIS = 2
RUNNERS = 3
LATEST = 150.0
"""Seconds within which all that is delayed has come."""
FUNCTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "retrying": {async_policy.RETRY_ON: "error,timeout", async_policy.MAX_ATTEMPTS: 2},
    "once": {async_policy.MAX_ATTEMPTS: 1},
    "hasty": {async_policy.MAX_AGE: 300},
}
"""Their annotations."""


@dataclass(frozen=True)
class Rules:
    """What the nodes are made of. A broken variant replaces a part."""

    queue: Opener = queues.memory
    logstore: Callable[[InlineDatabase, Callable[[], float]], LogStore] = SQLLogStore
    data: Callable[..., DataAccess] = DirectDataAccess
    runner: type[RunnerLife] = RunnerLife


class World:
    """Made, used and ended in one thread."""

    def __init__(self, rules: Rules) -> None:
        self.loop = VirtualLoop()
        self._stack = ExitStack()
        self.patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        self.history = History()
        self.rules = rules
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="model-")))
        self.ids = IdMaker(1, self.loop.wall)
        self._database = InlineDatabase()
        queue = self._stack.enter_context(rules.queue(self._database, self.loop.wall))
        self.queue = SeenQueue(queue, self.history, self.loop.wall)
        self.apis = [self._api(f"api{number}") for number in range(APIS)]
        self.network = Network(self.apis, self.history)
        self.runner_clocks = [0.0] * RUNNERS
        """Seconds by which each is wrong."""
        self.runners: list[RunnerLife | None] = [None] * RUNNERS
        self._stopping: list[RunnerLife] = []
        self.fns: dict[str, Fn] = {}
        self.do(self._functions())
        for number in range(RUNNERS):
            self.do(self._start_runner(number))

    def stores(self, clock: Callable[[], float]) -> Stores:
        """The stores that all share, without any trouble."""
        queue: Any = self.queue
        return Stores.on(self._database, self.rules.logstore(self._database, clock), queue, clock)

    def _api(self, name: str) -> ApiNode:
        def data(stores: Stores, clock: Callable[[], float]) -> DataAccess:
            return self.rules.data(stores, clock=clock)

        return ApiNode(name, self.history, self.loop.wall, self.stores, data)

    async def _functions(self) -> None:
        datastore = self.stores(self.loop.wall).datastore
        app = await datastore.insert_app(App(name="app"))
        for name in FUNCTIONS:
            self.fns[name] = await datastore.insert_fn(Fn(name=name, app_id=app.id, image="image"))

    # -- time ----------------------------------------------------------------------------------

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of *work*, which needs no time."""
        task = self.loop.create_task(work)
        self.loop.settle()
        assert task.done(), "this should not have to wait"
        return task.result()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Lets *work* go on in the background."""
        self.loop.create_task(work).add_done_callback(self.history.watch)
        self.loop.settle()

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.loop.run_until(self.loop.time() + seconds)

    # -- nodes ---------------------------------------------------------------------------------

    async def _start_runner(self, number: int, spool: int = SPOOL) -> None:
        self.runners[number] = self.rules.runner(
            f"runner{number}",
            self.history,
            self.network,
            lambda: self.loop.wall() + self.runner_clocks[number],
            self._folder / str(number),
            spool,
        )

    def start_runner(self, number: int, spool: int = SPOOL) -> None:
        """A new life with the old spool, of *spool* bytes at most, unless the old one has not ended."""
        self._stopping = [runner for runner in self._stopping if not runner.ended]
        if self.runners[number] or any(runner.name == f"runner{number}" for runner in self._stopping):
            return
        self.do(self._start_runner(number, spool))

    def stop_runner(self, number: int) -> None:
        """It is told to stop, and drains; another of its name starts once it has ended."""
        if runner := self.runners[number]:
            self.runners[number] = None
            self._stopping.append(runner)
            self.begin(runner.stop())

    def kill_runner(self, number: int) -> None:
        """It dies."""
        if runner := self.runners[number]:
            self.do(_call(runner.kill))
            self.runners[number] = None

    def restart_api(self, number: int) -> None:
        """It is killed, if it lives, and started again."""
        self.do(_call(self.apis[number].start))

    def pull(self, number: int, limit: int, wait: float) -> None:
        """The runner asks for calls."""
        if runner := self.runners[number]:
            self.do(_call(lambda: runner.pull(limit, wait)))
            self.loop.settle()

    def clean(self, number: int) -> None:
        """An API node cleans up behind everybody."""
        api = self.apis[number]
        if not api.alive:
            return

        async def work() -> None:
            ended = await janitor.clean(api.stores, api.wall)
            await OverAge(api.stores, AsyncSettings(), api.wall).end()
            self.history.note(self.loop.time(), f"{api.name} cleans up", ended)

        self.do(_call(lambda: api.serve(work, ())))
        self.loop.settle()

    # -- what there is -------------------------------------------------------------------------

    def letters(self) -> dict[str, dict[str, Any]]:
        """Every dead letter, by the id of its call."""
        return {row["call_id"]: row for row in self._database.rows(select(dead_letters))}

    def callbacks(self) -> set[tuple[str, str, int]]:
        """Those that wait to be delivered: call, status, attempt."""
        rows = self._database.rows(select(callbacks))
        return {(row["call_id"], row["status"], row["attempt"]) for row in rows}

    def records(self) -> dict[str, dict[str, Any]]:
        """Every record, by id."""
        return {row["id"]: row for row in self._database.rows(select(*_SHOWN))}

    def state(self) -> object:
        """All that a late request may not change. A callback of what it says may be noted, which is void."""
        depths = self.do(self.queue.depths())
        tables = (calls, dead_letters, idempotency_keys)
        return depths, [self._database.rows(select(table)) for table in tables]

    def queued(self) -> set[str]:
        """Those of all calls that are in the queue."""
        return self.do(self.queue.holds(list(self.history.plans)))

    # -- the end -------------------------------------------------------------------------------

    def calm(self) -> None:
        """All faults end, and time goes on until nothing changes any more."""
        self.network.calm()
        for api in self.apis:
            api.troubles.clear()
            api.ahead = 0.0
            if not api.alive:
                self.do(_call(api.start))
        # Longer than clocks were wrong: what bears a time in the future is left alone until then.
        for number in range(500):
            self._round(clean=number % 4 == 3)
            if self.at_rest():
                self.wait(LATEST)
                if self.at_rest():
                    return
        left = sorted(map(self.history.name, self.queued()))
        ends = {self.history.name(one): row["status"] for one, row in self.records().items()}
        unended = sorted(name for name, status in ends.items() if status not in FINAL)
        busy = [runner.name for runner in self.runners if runner and runner.busy]
        raise Violation(f"no end: without faults {left} stay queued, {unended} unended, {busy} at work")

    def _round(self, *, clean: bool) -> None:
        for number in range(RUNNERS):
            self.start_runner(number)
            if self.queued():
                self.pull(number, 10, 0.0)
        if clean:
            self.clean(0)
        self.wait(12.0)

    def at_rest(self) -> bool:
        """Whether nothing is left to do."""
        self._stopping = [runner for runner in self._stopping if not runner.ended]
        busy = self._stopping or any(runner and runner.busy for runner in self.runners)
        if busy or self.queued():
            return False
        return all(row["status"] in FINAL for row in self.records().values())

    def end(self) -> None:
        """Nothing of it is left."""
        self.loop.end()
        self._stack.close()


async def _call(work: Callable[[], Any]) -> None:
    work()
