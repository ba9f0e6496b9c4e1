"""All of the model: API nodes, runners, clients, and time; one call of a method is one step."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
from sqlalchemy import select

from services import capacity, depths, janitor
from services.data_access import DirectDataAccess
from services.datastore.tables import callbacks, calls, dead_letters, idempotency_keys
from services.logstore.sql import SQLLogStore
from services.queue.memory import MemoryQueue
from services.stores import Stores
from shared_models import async_policy, errors
from shared_models.app import App
from shared_models.call import Call, CallType, Finished, LeasedCall, Reason, Status
from shared_models.fn import Fn
from shared_models.ids import IdMaker
from shared_models.interfaces import DataAccess, LogStore, MessageQueue
from tests.model.api import ApiNode
from tests.model.history import History, Outcome, Plan, Violation
from tests.model.inline_database import InlineDatabase
from tests.model.network import Client, Network
from tests.model.runner import RunnerLife
from tests.model.seen_queue import SeenQueue
from tests.model.virtual_time import VirtualLoop

T = TypeVar("T")

APIS = 2
RUNNERS = 3
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

    queue: Callable[[Callable[[], float]], MessageQueue] = MemoryQueue
    logstore: Callable[[InlineDatabase, Callable[[], float]], LogStore] = SQLLogStore
    data: Callable[..., DataAccess] = DirectDataAccess
    runner: type[RunnerLife] = RunnerLife


class World:
    """Made, used and ended in one thread."""

    def __init__(self, rules: Rules) -> None:
        self.loop = VirtualLoop()
        self._clocks = [(module, module.time) for module in (capacity, depths)]
        for module, _ in self._clocks:
            # These measure short times by the machine's clock.
            module.time = SimpleNamespace(monotonic=self.loop.time)  # type: ignore[assignment]
        self.history = History()
        self.rules = rules
        self._folder = Path(tempfile.mkdtemp(prefix="model-"))
        self._ids = IdMaker(1, self.loop.wall)
        self._database = InlineDatabase()
        self.queue = SeenQueue(rules.queue(self.loop.wall), self.history, self.loop.wall)
        self.apis = [self._api(f"api{number}") for number in range(APIS)]
        self.network = Network(self.apis, self.history)
        self.runner_clocks = [0.0] * RUNNERS
        """Seconds by which each is wrong."""
        self.runners: list[RunnerLife | None] = [None] * RUNNERS
        self._front = Client("front", self.network)
        self.fns: dict[str, Fn] = {}
        self.do(self._functions())
        for number in range(RUNNERS):
            self.do(self._start_runner(number))

    def _stores(self, clock: Callable[[], float]) -> Stores:
        queue: Any = self.queue
        return Stores.on(self._database, self.rules.logstore(self._database, clock), queue, clock)

    def _api(self, name: str) -> ApiNode:
        def data(stores: Stores, clock: Callable[[], float]) -> DataAccess:
            return self.rules.data(stores, clock=clock)

        return ApiNode(name, self.history, self.loop.wall, self._stores, data)

    async def _functions(self) -> None:
        datastore = self._stores(self.loop.wall).datastore
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
        self.loop.create_task(work)
        self.loop.settle()

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.loop.run_until(self.loop.time() + seconds)

    # -- clients -------------------------------------------------------------------------------

    def plan(
        self, fn: str, *, priority: int, delay: int, outcomes: tuple[Outcome, ...], duration: float, key: str
    ) -> Call:
        """A new call, not yet submitted."""
        of = self.fns[fn]
        annotations = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in FUNCTIONS[fn].items()}
        call = Call(
            id=self._ids(),
            fn_id=of.id,
            app_id=of.app_id,
            image=of.image,
            type=CallType.DETACHED,
            priority=priority,
            delay=delay,
            annotations=annotations,
            idempotency_key=key,
            payload=b"payload",
        )
        self.history.plans[call.id] = Plan(call, f"call{len(self.history.plans)}", outcomes, duration)
        return call

    def submit(self, call: Call) -> None:
        """A client makes a detached call; it may not hear what comes of it."""

        async def submit() -> None:
            try:
                await self._front.enqueue(call)
            except errors.FnError as exc:
                self.history.note(self.loop.time(), f"not accepted: {type(exc).__name__}", [call.id])

        self.begin(submit())

    # -- nodes ---------------------------------------------------------------------------------

    async def _start_runner(self, number: int) -> None:
        self.runners[number] = self.rules.runner(
            f"runner{number}",
            self.history,
            self.network,
            lambda: self.loop.wall() + self.runner_clocks[number],
            self._folder / str(number),
        )

    def start_runner(self, number: int) -> None:
        """A new life with the old spool."""
        self.do(self._start_runner(number))

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
            self.history.note(self.loop.time(), f"{api.name} cleans up", ended)

        self.do(_call(lambda: api.serve(work, ()).add_done_callback(lambda task: task.exception())))
        self.loop.settle()

    def speak_late(self, leased: LeasedCall, verb: str) -> None:
        """The runner of an old lease speaks after the call was given to another; nobody may listen."""
        if self.history.holds(leased.key):
            return
        before = self._state()
        try:
            accepted = self.do(self._late(leased, verb))
        except errors.LeaseLost:
            accepted = False
        if accepted:
            raise Violation(f"fencing: a late {verb} of {self.history.name(leased.call.id)} was accepted")
        if self._state() != before:
            raise Violation(
                f"fencing: a late {verb} of {self.history.name(leased.call.id)} changed something"
            )

    async def _late(self, leased: LeasedCall, verb: str) -> bool:
        # Straight to the rules: no fault is to hide what they say.
        data = self.rules.data(self._stores(self.loop.wall), clock=self.loop.wall)
        if verb == "start":
            await data.start(leased)
            return True
        if verb == "extend":
            return not await data.extend([leased.key])
        if verb == "release":
            await data.release([leased.key])
            return False
        reason = Reason.NOT_STARTED if verb == "fail" else Reason.FUNCTION
        ended = msgspec.structs.replace(leased.call, status=Status.ERROR, error="late", reason=reason)
        return not await data.finish([Finished(call=ended, token=leased.key.token)])

    # -- what there is -------------------------------------------------------------------------

    def records(self) -> dict[str, dict[str, Any]]:
        """Every record, by id."""
        return {row["id"]: row for row in self._database.rows(select(calls))}

    def _state(self) -> object:
        depths = self.do(self.queue.depths())
        tables = (calls, dead_letters, callbacks, idempotency_keys)
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
        for number in range(RUNNERS):
            if self.runners[number] is None:
                self.start_runner(number)
        for _ in range(400):
            for number in range(RUNNERS):
                self.pull(number, 10, 0.0)
            self.clean(0)
            self.wait(10.0)
            if self.at_rest():
                return
        left = sorted(self.history.name(one) for one in self.queued())
        raise AssertionError(f"after an hour without faults this is still in the queue: {left}")

    def at_rest(self) -> bool:
        """Whether nothing is left to do."""
        busy = any(runner and runner.busy for runner in self.runners)
        open_ = any(row["status"] in ("queued", "running") for row in self.records().values())
        return not (busy or open_ or self.queued())

    def end(self) -> None:
        """Nothing of it is left."""
        self.loop.end()
        for module, real in self._clocks:
            module.time = real
        shutil.rmtree(self._folder, ignore_errors=True)


async def _call(work: Callable[[], Any]) -> None:
    work()
