"""The agent: takes a call, finds it a container, follows it to its end, and has it recorded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from runner_node import calls, host
from runner_node.calls import Target
from runner_node.data_cache import MISSING, CachedDataAccess
from runner_node.dequeuer import Dequeuer
from runner_node.drivers.contract import ContainerDriver
from runner_node.func_logs import CallLog
from runner_node.health import Health
from runner_node.hot_container import HotContainer, StartFailed
from runner_node.job import Job
from runner_node.loops import looping
from runner_node.protocols.http_stream import Response, ResponseParser, encode_head
from runner_node.recorder import Recorder, Result, Stored
from runner_node.resources import Resources
from runner_node.scheduler import Scheduler
from runner_node.settings import AgentSettings
from runner_node.spool import Spool
from shared_models import errors, times
from shared_models.app import App
from shared_models.call import Call, Status
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess

log = logging.getLogger(__name__)


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
    ) -> None:
        self.data = data
        self.scheduler = scheduler
        self.recorder = recorder
        self.health = health
        self.settings = settings
        self.node_id = node_id
        self.running = 0
        self._targets: dict[str, tuple[Fn, App, Target]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()

    def ready(self) -> str:
        """Empty when the node can take calls, else the reason why not."""
        return self.health.reason

    def target(self, fn: Fn, app: App) -> Target:
        """What the containers of *fn* are made from; a changed function's old containers make way."""
        known = self._targets.get(fn.id)
        if known and known[0] is fn and known[1] is app:
            return known[2]
        target = calls.of_fn(fn, app)
        if known and known[2].key == target.key:
            target = known[2]
        elif known:
            self.scheduler.supersede(known[2].key)
        self._targets[fn.id] = (fn, app, target)
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
        call_log = CallLog(self.settings.max_log_size)
        try:
            container = await self.scheduler.acquire(job.target, sync=job.sync, patience=job.patience)
        except StartFailed as failure:
            call_log.write(failure.output)
            if job.sync:
                self._record(job, _status(failure.error), failure.error.explained, times.NEVER, call_log)
            raise
        except errors.FnError as exc:
            if job.sync:
                self._record(job, Status.ERROR, exc.explained, times.NEVER, call_log)
            raise
        began = self._loop.time()
        self.running += 1
        keep = False
        try:
            if job.before:
                await self._before(job, container, began)
            return await self._dispatch(job, container, call_log, began)
        except BaseException as exc:
            if not isinstance(exc, errors.FnError):
                self.scheduler.release(container, self._loop.time() - began, keep=keep)
            raise
        finally:
            self.running -= 1

    async def _before(self, job: Job, container: HotContainer, began: float) -> None:
        assert job.before is not None
        try:
            await job.before()
        except errors.FnError:
            # Nothing reached the function: the container is as good as before.
            self.scheduler.release(container, self._loop.time() - began, keep=True)
            raise

    async def _dispatch(self, job: Job, container: HotContainer, call_log: CallLog, began: float) -> Response:
        timeout = job.target.timeout
        container.begin(call_log)
        started_at = times.now()
        head, gunzip = encode_head(job.headers, job.call.id, times.deadline_text(time.time() + timeout))
        parser = ResponseParser(
            max_head=self.settings.max_header_size, max_body=self.settings.max_response_size, gunzip=gunzip
        )
        try:
            await container.call(head, job.body, parser, timeout)
            response = parser.response()
        except errors.FnError as exc:
            keep = _trusted(exc, parser)
            self._spawn(self._after_failure(job, container, call_log, began, started_at, exc, keep))
            raise
        if container.chatty:
            self._spawn(self._after_talk(job, container, call_log, began, started_at))
        else:
            self._record(job, Status.SUCCESS, "", started_at, call_log)
            self.scheduler.release(container, self._loop.time() - began, keep=True)
        return response

    async def _after_talk(
        self, job: Job, container: HotContainer, call_log: CallLog, began: float, started_at: str
    ) -> None:
        """The last lines may still be on their way: no other call gets the container before they are in."""
        seconds, completed_at = self._loop.time() - began, times.now()
        try:
            await container.drain_output()
        finally:
            self._record(job, Status.SUCCESS, "", started_at, call_log, completed_at)
            self.scheduler.release(container, seconds, keep=True)

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
            self._record(job, _status(exc), reason, started_at, call_log, completed_at)
            self.scheduler.release(container, seconds, keep=keep)

    def _record(
        self,
        job: Job,
        status: Status,
        reason: str,
        started_at: str,
        call_log: CallLog,
        completed_at: str = "",
    ) -> None:
        call = job.call
        record = Call(
            id=call.id, status=status, app_id=call.app_id, fn_id=call.fn_id, trigger_id=call.trigger_id,
            path=call.path, type=call.type, created_at=call.created_at, started_at=started_at,
            completed_at=completed_at or times.now(), error=reason, attempt=max(call.attempt, 1),
            node=self.node_id,
        )  # fmt: skip
        self.recorder.add(Result(record, call_log, job.token, job.stored))

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


def _trusted(exc: errors.FnError, parser: ResponseParser) -> bool:
    """Whether a container may go on after this error: its function spoke the protocol to the end."""
    if isinstance(exc, errors.FunctionFailed | errors.FunctionResponseTooLarge):
        return True
    return isinstance(exc, errors.CallTimedOut) and parser.done


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
    agent = Agent(cached, scheduler, recorder, health, settings, node_id)
    dequeuer = Dequeuer(agent)
    async with AsyncExitStack() as stack:  # read up for the order of the end
        stack.push_async_callback(_joined, asyncio.create_task(recorder.run(), name="recorder"), recorder)
        stack.push_async_callback(agent.settle)
        stack.push_async_callback(scheduler.close)
        await stack.enter_async_context(looping(health.run, "health"))
        await stack.enter_async_context(dequeuer.running())
        health.agent_running = lambda: agent.running
        yield agent
        health.stopping()


async def _joined(task: asyncio.Task[None], recorder: Recorder) -> None:
    recorder.drain()
    await task
