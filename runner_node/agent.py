"""The agent: takes a call, finds it a container, follows it to its end, and has it recorded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from runner_node import calls, host
from runner_node.calls import Target
from runner_node.conversation import Conversation, conversation_for
from runner_node.data_cache import MISSING, CachedDataAccess
from runner_node.dequeuer import Dequeuer
from runner_node.drivers.contract import ContainerDriver
from runner_node.func_logs import CallLog
from runner_node.health import Health
from runner_node.hot_container import HotContainer, StartFailed
from runner_node.job import Job
from runner_node.loops import looping
from runner_node.metrics import Series
from runner_node.protocols.http_stream import Response
from runner_node.recorder import Recorder, Result, Stored
from runner_node.resources import Resources
from runner_node.scheduler import Scheduler
from runner_node.settings import AgentSettings
from runner_node.spool import Spool
from runner_node.stats import sample_for_ever
from runner_node.syslog import Syslog, open_syslog
from shared_models import errors, times
from shared_models.app import App
from shared_models.call import Call, Stat, Status
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess
from shared_models.listeners import CallListeners
from shared_models.route import Route

log = logging.getLogger(__name__)

NO_STATS: list[Stat] = []


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
    ) -> None:
        self._syslog = syslog
        self._listeners = listeners
        self.data = data
        self.scheduler = scheduler
        self.recorder = recorder
        self.health = health
        self.settings = settings
        self.node_id = node_id
        self.running = 0
        self._targets: dict[str, tuple[Fn | Route, App, Target]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()

    def ready(self) -> str:
        """Empty when the node can take calls, else the reason why not."""
        return self.health.reason

    def target(self, fn: Fn, app: App) -> Target:
        """What the containers of *fn* are made from; a changed function's old containers make way."""
        return self._target(fn.id, fn, app, lambda: calls.of_fn(fn, app))

    def route_target(self, route: Route, app: App, format_: str) -> Target:
        """As ``target``, for a route in a format; an event's format leaves the route's own alone."""
        slot = f"{app.id}{route.path} {format_}"
        return self._target(slot, route, app, lambda: calls.of_route(route, app, route.type, format_))

    def _target(self, slot: str, source: Fn | Route, app: App, make: Callable[[], Target]) -> Target:
        known = self._targets.get(slot)
        if known and known[0] is source and known[1] is app:
            return known[2]
        target = make()
        if known and known[2].key == target.key:
            target = known[2]
        elif known:
            self.scheduler.supersede(known[2].key)
        self._targets[slot] = (source, app, target)
        return target

    async def target_of(self, call: Call) -> Target:
        """The target of a call out of the queue, from the function as it is now; raises its errors."""
        if not call.fn_id:
            return calls.of_call(call)
        fn = await self.data.fn(call.fn_id)
        return self.target(fn, await self.data.app(fn.app_id))

    async def run(self, job: Job) -> Response:
        """The function's answer; raises the FnError that the client is to be told.

        However it ends, the end is recorded, with two exceptions: an async call that never got a
        container goes back to the queue (the caller sees to that), and one that is cancelled.
        """
        call_log, series = self._log_of(job.call, job.target), job.target.series
        series.calls += 1
        try:
            conversation = conversation_for(job, self.settings)
        except errors.FnError as exc:
            job.started = time.time()
            if job.sync:
                self._record(job, Status.ERROR, exc.explained, times.to_text(job.started), call_log)
            raise
        series.queued += 1
        try:
            container = await self.scheduler.acquire(job.target, sync=job.sync, patience=job.patience)
        except StartFailed as failure:
            call_log.write(failure.output)
            series.errors += 1
            if job.sync:
                self._record(job, _status(failure.error), failure.error.explained, times.NEVER, call_log)
            raise
        except errors.FnError as exc:
            series.errors += 1
            if job.sync:
                self._record(job, Status.ERROR, exc.explained, times.NEVER, call_log)
            raise
        finally:
            series.queued -= 1
        began = self._loop.time()
        self.running += 1
        series.running += 1
        try:
            if job.before or self._listeners:
                await self._before(job, container, call_log, began)
            return await self._dispatch(job, conversation, container, call_log, began)
        except BaseException as exc:
            if not isinstance(exc, errors.FnError):
                self.scheduler.release(container, self._loop.time() - began, keep=False)
            raise
        finally:
            self.running -= 1
            series.running -= 1

    async def _before(self, job: Job, container: HotContainer, call_log: CallLog, began: float) -> None:
        """What must happen first; when it is refused, nothing has reached the function."""
        try:
            if job.before:
                await job.before(job)
        except errors.FnError:
            self.scheduler.release(container, self._loop.time() - began, keep=not job.target.cold)
            raise
        try:
            await self._listeners.before(job.call)
        except errors.FnError as exc:
            self._record(job, _status(exc), exc.explained, times.NEVER, call_log)
            self.scheduler.release(container, self._loop.time() - began, keep=not job.target.cold)
            raise

    async def _dispatch(
        self, job: Job, conversation: Conversation, container: HotContainer, call_log: CallLog, began: float
    ) -> Response:
        container.begin(call_log)
        job.started = job.started or time.time()
        started_at = times.to_text(job.started)
        try:
            response = await conversation.hold(container)
        except errors.FnError as exc:
            keep = conversation.trusts(exc)
            self._spawn(self._after_failure(job, container, call_log, began, started_at, exc, keep))
            raise
        if container.chatty:
            self._spawn(self._after_talk(job, conversation, container, call_log, began, started_at))
        else:
            self._succeed(job, conversation, container, call_log, began, started_at)
        return response

    async def _after_talk(
        self,
        job: Job,
        conversation: Conversation,
        container: HotContainer,
        call_log: CallLog,
        began: float,
        started_at: str,
    ) -> None:
        """The last lines may still be on their way: no other call gets the container before they are in."""
        drained_since, completed_at = self._loop.time(), times.now()
        try:
            await container.drain_output()
        finally:
            began += self._loop.time() - drained_since  # what the engine took is not the function's time
            self._succeed(job, conversation, container, call_log, began, started_at, completed_at)

    def _succeed(
        self,
        job: Job,
        conversation: Conversation,
        container: HotContainer,
        call_log: CallLog,
        began: float,
        started_at: str,
        completed_at: str = "",
    ) -> None:
        if not job.sync:
            call_log.write(conversation.log_text())
        self._record(job, Status.SUCCESS, "", started_at, call_log, completed_at, container.stats())
        self.scheduler.release(container, self._loop.time() - began, keep=conversation.trusts(None))

    async def _after_failure(
        self,
        job: Job,
        container: HotContainer,
        call_log: CallLog,
        began: float,
        started_at: str,
        exc: errors.FnError,
        keep: bool,
    ) -> None:
        seconds, completed_at = self._loop.time() - began, times.now()
        try:
            reason = await container.why(exc)
            await container.drain_output()
        finally:
            stats = container.stats()
            self._record(job, _status(exc), reason, started_at, call_log, completed_at, stats)
            self.scheduler.release(container, seconds, keep=keep)

    def _record(
        self,
        job: Job,
        status: Status,
        reason: str,
        started_at: str,
        call_log: CallLog,
        completed_at: str = "",
        stats: list[Stat] = NO_STATS,
    ) -> None:
        _count(job.target.series, status)
        call, completed_at, attempt = job.call, completed_at or times.now(), max(job.call.attempt, 1)
        if call.path:
            # Fn's API nodes keep all of a route's call.
            record = msgspec.structs.replace(
                call, status=status, started_at=started_at, completed_at=completed_at, error=reason,
                attempt=attempt, node=self.node_id, stats=stats,
            )  # fmt: skip
        else:
            record = Call(
                id=call.id, status=status, app_id=call.app_id, fn_id=call.fn_id, trigger_id=call.trigger_id,
                type=call.type, created_at=call.created_at, started_at=started_at, completed_at=completed_at,
                error=reason, attempt=attempt, node=self.node_id, stats=stats,
                # They say whether a queued call is to be run again.
                annotations=call.annotations if job.token else {},
            )  # fmt: skip
        self.recorder.add(Result(record, call_log, job.token, job.stored))
        if self._listeners:
            self._spawn(self._listeners.after(record))

    def _log_of(self, call: Call, target: Target) -> CallLog:
        if not target.syslog_url:
            return CallLog(self.settings.max_log_size)
        follower = self._syslog.following(
            target.syslog_url, call_id=call.id, app_id=call.app_id, fn_id=call.fn_id, path=call.path
        )
        return CallLog(self.settings.max_log_size, follower)

    def refuse(self, call: Call, reason: str, token: str, output: bytes, stored: Stored | None) -> None:
        """Records that an async call ends as an error without having run."""
        call_log = CallLog(self.settings.max_log_size)
        call_log.write(output)
        record = msgspec.structs.replace(
            call, status=Status.ERROR, error=reason, completed_at=times.now(), node=self.node_id,
            payload=b"", config={}, headers={},
        )  # fmt: skip
        self.recorder.add(Result(record, call_log, token, stored))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Returns when what follows the answers that were given is done."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


def _count(series: Series, status: Status) -> None:
    if status is Status.SUCCESS:
        series.completed += 1
    else:
        series.failed += 1
        series.timeouts += status is Status.TIMEOUT


def _status(exc: errors.FnError) -> Status:
    return Status.TIMEOUT if isinstance(exc, errors.CallTimedOut) else Status.ERROR


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
) -> AsyncIterator[Agent]:
    """An agent at work; *missing*: seconds for which "not found" is remembered.

    On leaving: no new leases, running calls get ``settings.drain`` seconds, results are handed in or
    spooled, containers are removed.
    """
    resources = Resources(
        settings.max_memory or host.available_memory(), settings.max_cpus or host.available_cpus()
    )
    cached = CachedDataAccess(data, settings.cache_stale, missing)
    folder = Path(settings.spool_path) / node_id if settings.spool_path else None
    spool = Spool(folder, settings.max_spool_size) if folder else None
    recorder = Recorder(cached, spool)
    scheduler = Scheduler(driver, settings, resources, node_id)
    health = Health(cached, driver, scheduler, resources, node_id, address, version)
    async with AsyncExitStack() as stack:  # read up for the order of the end
        syslog = await stack.enter_async_context(open_syslog(settings.syslog_ca))
        agent = Agent(
            cached, scheduler, recorder, health, settings, node_id, syslog, listeners or CallListeners()
        )
        dequeuer = Dequeuer(agent)
        stack.push_async_callback(_joined, asyncio.create_task(recorder.run(), name="recorder"), recorder)
        stack.push_async_callback(agent.settle)
        stack.push_async_callback(scheduler.close)
        await stack.enter_async_context(looping(health.run, "health"))
        await stack.enter_async_context(looping(lambda: sample_for_ever(scheduler.busy), "container stats"))
        await stack.enter_async_context(dequeuer.running())
        health.agent_running = lambda: agent.running
        yield agent
        health.stopping()


async def _joined(task: asyncio.Task[None], recorder: Recorder) -> None:
    recorder.drain()
    await task
