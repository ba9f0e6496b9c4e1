"""The agent: takes a call, finds it a container, follows it to its end, and has it recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from runner_node import calls, host, secret_files
from runner_node.call_lines import CallLines, both, open_call_lines
from runner_node.call_trace import trace_of
from runner_node.calls import Target
from runner_node.data_cache import MISSING, CachedDataAccess
from runner_node.dequeuer import Dequeuer
from runner_node.drivers.contract import ContainerDriver
from runner_node.failures import Failures
from runner_node.func_logs import CallLog
from runner_node.health import Health
from runner_node.job import Job
from runner_node.loops import looping
from runner_node.protocols.http_stream import Response
from runner_node.reasons import End
from runner_node.recorder import Recorder
from runner_node.records import refusal_of
from runner_node.resources import Resources
from runner_node.results import Result, Stored
from runner_node.room_metrics import shown
from runner_node.run import Run
from runner_node.scheduler import Scheduler
from runner_node.settings import AgentSettings
from runner_node.spool import Spool, prepare
from runner_node.stats import sample_for_ever
from runner_node.syslog import Syslog, open_syslog
from runner_node.warm import keeping_warm
from shared_models import tracing
from shared_models.app import App
from shared_models.call import Call
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess
from shared_models.listeners import CallListeners
from shared_models.pulse import Pulse
from shared_models.route import Route
from shared_models.workers import ALONE, Siblings

log = logging.getLogger(__name__)

CLOSES = 20.0
"""Seconds that a node which stops waits for its containers to be gone."""
SETTLES = 60.0
"""Seconds that a node which stops waits for what follows the last answers: all of it has limits, too."""


class Agent:
    """Made by ``running_agent``."""

    def __init__(
        self,
        data: CachedDataAccess,
        scheduler: Scheduler,
        recorder: Recorder,
        health: Health,
        settings: AgentSettings,
        node_id: str,
        syslog: Syslog,
        listeners: CallListeners,
        lines: CallLines | None = None,
    ) -> None:
        self._syslog = syslog
        self.pulse = Pulse()
        self._lines = lines
        self.listeners = listeners
        self.data = data
        self.scheduler = scheduler
        self.recorder = recorder
        self.health = health
        self.settings = settings
        self.node_id = node_id
        self.running = 0
        self._secrets = scheduler.secrets
        self._targets: dict[str, tuple[Fn | Route, App, Target]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self.clock = self._loop.time
        self.failures = Failures(self.clock)
        self.dequeuer = Dequeuer(self)

    def stopping(self) -> None:
        """The node has been told to stop: no new leases, unstarted ones go back, the drain time begins."""
        self.health.stopping()

    @property
    def spooled(self) -> int:
        """Batches of results that no API node has taken yet; those that are still to come are one."""
        return self.recorder.kept + bool(self._tasks)

    def ready(self) -> str:
        """Empty when the node can take calls, else the reason why not."""
        return self.health.reason

    def slots(self) -> object:
        """What there is of memory, CPU and containers, and who has it: the debug page of this worker."""
        has = self.scheduler.resources
        return {
            "running_calls": self.running,
            "memory_bytes": {"all": has.memory, "free": has.free_memory},
            "cpu_mcpus": {"all": has.cpus, "free": has.free_cpus},
            "functions": self.scheduler.slots(),
        }

    def target(self, fn: Fn, app: App) -> Target:
        """What the containers of *fn* are made from; a changed function's old containers make way."""
        return self._target(fn.id, fn, app, lambda: calls.of_fn(fn, app))

    def route_target(self, route: Route, app: App, format_: str) -> Target:
        """As ``target``, for a route in a format; an event's format leaves the route's own alone."""
        slot = _slot(app.id, route.path, format_)
        return self._target(slot, route, app, lambda: calls.of_route(route, app, route.type, format_))

    def in_force(self, target: Target) -> Target:
        """The version of *target*'s function that was asked for last."""
        format_ = target.format.name if target.format else calls.HTTP_STREAM
        known = self._targets.get(target.fn_id or _slot(target.app_id, target.path, format_))
        return known[2] if known else target

    def _target(self, slot: str, source: Fn | Route, app: App, make: Callable[[], Target]) -> Target:
        known = self._targets.get(slot)
        if known and known[0] is source and known[1] is app:
            return known[2]
        target = self._secrets.stamp(make())
        if known and known[2].key == target.key:
            target = known[2]
        elif known:
            self.scheduler.supersede(known[2].key)
        self._targets[slot] = (source, app, target)
        return target

    async def follow_secrets(self) -> None:
        """For ever: functions whose secrets have changed get new containers, and the old ones make way."""
        while True:
            await asyncio.sleep(secret_files.LOOK)
            if not await self._secrets.look():
                continue
            for slot, (source, app, target) in list(self._targets.items()):
                if target.secrets and self._secrets.changed(target):
                    log.info("secrets of %s have changed: its containers make way", target.function)
                    self._targets[slot] = source, app, self._renewed(source, app, target)

    def _renewed(self, source: Fn | Route, app: App, target: Target) -> Target:
        self.scheduler.supersede(target.key)
        if isinstance(source, Fn):
            return self._secrets.stamp(calls.of_fn(source, app))
        format_ = target.format.name if target.format else calls.HTTP_STREAM
        return self._secrets.stamp(calls.of_route(source, app, source.type, format_))

    async def target_of(self, call: Call) -> Target:
        """The target of a call out of the queue, from the function as it is now; raises its errors."""
        if not call.fn_id:
            return self._secrets.stamp(calls.of_call(await secret_files.completed(call, self.data)))
        fn = await self.data.fn(call.fn_id)
        return self.target(fn, await self.data.app(fn.app_id))

    async def run(self, job: Job) -> Response:
        """The function's answer; raises the FnError that the client is to be told.

        However it ends, the end is recorded (``job.recorded``), with two exceptions: a queued call that never
        got a container, which the caller sees to, and one that is cancelled for another reason than that the
        node stops.
        """
        call_trace = trace_of(job) if tracing.on else None
        run = self.run_of(job)
        if call_trace is None:
            return await run.answer()
        run.trace = call_trace
        try:
            with tracing.within(call_trace.span):
                return await run.answer()
        except BaseException as exc:
            if not job.recorded:
                call_trace.given_back(exc)
            raise

    def run_of(self, job: Job) -> Run:
        """The run of *job*, which is still to be begun."""
        return Run(self, job, self._log_of(job.call, job.target))

    def _log_of(self, call: Call, target: Target) -> CallLog:
        if not target.syslog_url:
            lines = self._lines
            return CallLog(self.settings.max_log_size, lines.following(call) if lines else None)
        follower = self._syslog.following(
            target.syslog_url, call_id=call.id, app_id=call.app_id, fn_id=call.fn_id, path=call.path
        )
        if self._lines:
            follower = both(follower, self._lines.following(call))
        return CallLog(self.settings.max_log_size, follower)

    def refuse(self, call: Call, end: End, token: str, output: bytes, stored: Stored | None) -> None:
        """Hands in that an attempt at a queued call ended before its function saw anything of it."""
        call_log = CallLog(self.settings.max_log_size)
        call_log.write(output)
        self.recorder.add(Result(refusal_of(call, end, self.node_id), call_log, token, stored))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """*work* beside the calls; a node that stops waits for it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Returns when what follows the answers that were given is done, or after ``SETTLES`` seconds."""
        deadline = self._loop.time() + SETTLES
        while self._tasks and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)
        for task in self._tasks:
            log.error("%s is given up, the node stops", task.get_coro())
            task.cancel()


def _slot(app_id: str, path: str, format_: str) -> str:
    return f"{app_id}{path} {format_}"


@asynccontextmanager
async def running_agent(
    data: DataAccess,
    driver: ContainerDriver,
    settings: AgentSettings,
    node_id: str,
    *,
    address: str = "",
    version: str = "",
    missing: float = MISSING,
    listeners: CallListeners | None = None,
    siblings: Siblings | None = None,
) -> AsyncIterator[Agent]:
    """An agent at work; *missing*: seconds for which "not found" is remembered; *siblings*: of the node.

    On leaving: no new leases, running calls get ``settings.drain`` seconds, results are handed in or
    spooled, containers are removed.
    """
    resources = Resources(
        settings.max_memory or host.available_memory(),
        settings.max_cpus or host.available_cpus(),
        settings.fair_share_reserve,
    )
    cached = CachedDataAccess(data, settings.cache_stale, missing)
    place = siblings.place if siblings else ALONE
    folder = Path(settings.spool_path) / place.name(node_id) if settings.spool_path else None
    if folder:
        await asyncio.to_thread(prepare, folder, lambda name: place.inherits(name, node_id))
    spool = Spool(folder, settings.max_spool_size) if folder else None
    recorder = Recorder(cached, spool)
    scheduler = Scheduler(driver, settings, resources, node_id)
    health = Health(
        cached, driver, scheduler, resources, node_id, address, version, siblings, settings.cache_stale
    )
    health.spool_full = lambda: spool is not None and spool.full
    async with AsyncExitStack() as stack:  # read up for the order of the end
        syslog = await stack.enter_async_context(open_syslog(settings.syslog_ca, settings.syslog_allow))
        lines = await stack.enter_async_context(open_call_lines()) if settings.log_calls else None
        agent = Agent(
            cached,
            scheduler,
            recorder,
            health,
            settings,
            node_id,
            syslog,
            listeners or CallListeners(),
            lines,
        )
        agent.pulse = driver.pulse or agent.pulse
        stack.push_async_callback(_joined, asyncio.create_task(recorder.run(), name="recorder"), recorder)
        stack.push_async_callback(agent.settle)
        stack.push_async_callback(_closed, scheduler)
        await stack.enter_async_context(looping(health.run, "health"))
        await stack.enter_async_context(looping(lambda: sample_for_ever(scheduler.busy), "container stats"))
        await stack.enter_async_context(keeping_warm(agent, driver, number=place.number, count=place.count))
        if settings.secrets_path:
            await stack.enter_async_context(looping(agent.follow_secrets, "secrets"))
        await stack.enter_async_context(agent.dequeuer.running())
        stack.enter_context(shown(agent))
        health.agent_running, health.spooled = lambda: agent.running, lambda: agent.spooled
        yield agent


async def _closed(scheduler: Scheduler) -> None:
    """A container that is on its way, for the length of a pull perhaps, must not keep results waiting."""
    closing = asyncio.create_task(scheduler.close(), name="close the scheduler")
    _, late = await asyncio.wait({closing}, timeout=CLOSES)
    if late:
        log.warning("containers are still coming or going after %g s, they are left to the driver", CLOSES)
        closing.cancel()


async def _joined(task: asyncio.Task[None], recorder: Recorder) -> None:
    recorder.drain()
    await task
