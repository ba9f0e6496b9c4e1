"""One call, from the wish for a container to its record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from runner_node.conversation import Conversation, OverSocket, conversation_for
from runner_node.func_logs import CallLog
from runner_node.hot_container import HotContainer, StartFailed
from runner_node.job import Job
from runner_node.metrics import Series
from runner_node.protocols.http_stream import Response
from runner_node.reasons import (
    SUCCESS,
    End,
    NeverReached,
    end_in_function,
    end_of,
    end_of_start,
)
from runner_node.records import NO_STATS, NOTHING, Said, record_of, said
from runner_node.results import Result
from runner_node.waits import Wait
from shared_models import errors, times
from shared_models.call import Reason, Stat, Status

if TYPE_CHECKING:
    from runner_node.agent import Agent
    from runner_node.call_trace import CallTrace

CONTAINERS = 3
"""Containers that one call may be given: one that turns out to have ended before the call costs none."""


class Run:
    """Made per call; ``answer`` is awaited once."""

    __slots__ = ("_agent", "_began", "_log", "job", "trace")

    def __init__(self, agent: Agent, job: Job, call_log: CallLog) -> None:
        self.job = job
        self._agent = agent
        self._log = call_log
        self._began = 0.0
        self.trace: CallTrace | None = None

    async def answer(self, place: HotContainer | Wait | None = None) -> Response:
        """See ``Agent.run``. *place*: what ``Scheduler.enter`` has given the call, which is counted then."""
        if place is None:
            self.job.target.series.calls += 1
        return await self._recording(self._answer(self.job, place))

    async def answer_to_the_end(
        self,
        conversation: OverSocket,
        container: HotContainer,
        until: float,
        trouble: Exception | None = None,
    ) -> Response:
        """The rest of a call that was ``begun`` and sent, unless *trouble* kept it from that."""
        finish = _raising(trouble) if trouble else conversation.finish(container, until)
        rest = self._converse(conversation, container, finish, last=True)
        return await self._recording(self._serving(container, rest))

    async def _recording(self, answer: Coroutine[None, None, Response]) -> Response:
        try:
            return await answer
        except asyncio.CancelledError:
            job = self.job
            if not job.recorded and (job.cut or (job.sync and self._agent.health.stops)):
                self._record(end_of(errors.RunnerStopped()))
            if not job.recorded:
                self._log.close()  # nobody will
            raise

    async def _answer(self, job: Job, place: HotContainer | Wait | None) -> Response:
        try:
            conversation = conversation_for(job, self._agent.settings)
        except errors.FnError as exc:
            job.started = time.time()
            if job.sync:
                self._record(end_of(exc, Reason.UNUSABLE))
            raise
        left, deadline = CONTAINERS, self._agent.clock() + job.patience
        while True:
            left -= 1
            since = time.time()
            container, place = await self._acquire(deadline - self._agent.clock(), place), None
            if self.trace:
                self.trace.waited(since, container)
            try:
                return await self._serve(conversation, container, last=not left)
            except NeverReached:
                if not left:
                    raise

    async def _acquire(self, patience: float, place: HotContainer | Wait | None) -> HotContainer:
        job, series = self.job, self.job.target.series
        series.queued += 1
        try:
            return await self._agent.scheduler.acquire(
                job.target,
                sync=job.sync,
                patience=patience,
                size=len(job.body) if isinstance(job.body, bytes) else 0,
                left=job.left,
                entered=place,
            )
        except StartFailed as failure:
            self._log.write(failure.output)
            series.errors += 1
            if job.sync:
                self._record(end_of_start(failure.error))
            raise
        except errors.FnError as exc:
            series.errors += 1
            if job.sync:
                self._record(end_of(exc))
            raise
        finally:
            series.queued -= 1

    async def _serve(self, conversation: Conversation, container: HotContainer, *, last: bool) -> Response:
        job = self.job
        self.count(container)

        async def serving() -> Response:
            if not job.begun and (job.before or self._agent.listeners):
                await self._before(container)
            self.begin(container)
            return await self._converse(conversation, container, conversation.hold(container), last=last)

        return await self._serving(container, serving())

    def count(self, container: HotContainer) -> None:
        """The call has *container* from now on."""
        self._began = self._agent.clock()
        self._agent.running += 1
        self.job.target.series.running += 1

    def uncount(self) -> None:
        """It has it no more, or only for what follows its answer."""
        self._agent.running -= 1
        self.job.target.series.running -= 1

    def begin(self, container: HotContainer) -> None:
        """What is sent from now on is the call's, and so is what *container* writes."""
        job = self.job
        job.begun = True
        container.begin(self._log)
        job.started = job.started or time.time()
        if self.trace:
            self.trace.runs()

    async def _serving(self, container: HotContainer, work: Coroutine[None, None, Response]) -> Response:
        try:
            return await work
        except BaseException as exc:
            if not isinstance(exc, errors.FnError):
                self._release(container, keep=False)
            raise
        finally:
            self.uncount()

    async def _before(self, container: HotContainer) -> None:
        """What must happen first; when it is refused, nothing has reached the function."""
        job = self.job
        try:
            if job.before:
                await job.before(job)
        except errors.FnError:
            self._release(container, keep=not job.target.cold)
            raise
        try:
            await self._agent.listeners.before(job.call)
        except errors.FnError as exc:
            self._record(end_of(exc, Reason.UNUSABLE))
            self._release(container, keep=not job.target.cold)
            raise

    async def _converse(
        self,
        conversation: Conversation,
        container: HotContainer,
        answer: Coroutine[None, None, Response],
        *,
        last: bool,
    ) -> Response:
        try:
            response = await answer
        except errors.FnError as exc:
            if isinstance(exc, NeverReached) and not last:
                container.disown()
                self._release(container, keep=False)
                raise
            self.job.recorded = True
            if self.trace:
                self.trace.ran()
            self._agent.spawn(self._after_failure(container, exc, keep=conversation.trusts(exc)))
            raise
        self.succeed(conversation, container, response)
        return response

    def succeed(self, conversation: Conversation, container: HotContainer, response: Response) -> None:
        """Records the call, and gives *container* back."""
        self.job.recorded = True
        if self.trace:
            self.trace.ran()
        if container.chatty:
            self._agent.spawn(self._after_talk(conversation, container, response))
        else:
            self._succeed(conversation, container, response)

    def cut_off(self, container: HotContainer | None) -> None:
        """The node stops before the call has ended, which waits for a container or has this one."""
        if container:
            self._release(container, keep=False)
            self.uncount()
        self._record(end_of(errors.RunnerStopped()))

    async def _after_talk(
        self, conversation: Conversation, container: HotContainer, response: Response
    ) -> None:
        """The last lines may still be on their way: no other call gets the container before they are in."""
        drained_since, completed_at = self._agent.clock(), times.now()
        try:
            await container.drain_output()
        finally:
            # What the engine took is not the function's time.
            self._began += self._agent.clock() - drained_since
            self._succeed(conversation, container, response, completed_at)

    def _succeed(
        self, conversation: Conversation, container: HotContainer, response: Response, completed_at: str = ""
    ) -> None:
        if not self.job.sync:
            self._log.write(conversation.log_text())
        answer = said(self.job.call, response, self._agent.settings.callback_max_body)
        self._record(SUCCESS, completed_at, container.stats(), answer)
        self._release(container, keep=conversation.trusts(None))

    async def _after_failure(self, container: HotContainer, exc: errors.FnError, *, keep: bool) -> None:
        seconds, completed_at = self._agent.clock() - self._began, times.now()
        end = end_in_function(exc)
        try:
            end = await container.end_of(exc)
            await container.drain_output()
        finally:
            self._record(end, completed_at, container.stats())
            self._agent.scheduler.release(container, seconds, keep=keep)

    def _release(self, container: HotContainer, *, keep: bool) -> None:
        self._agent.scheduler.release(container, self._agent.clock() - self._began, keep=keep)

    def _record(
        self, end: End, completed_at: str = "", stats: list[Stat] = NO_STATS, answer: Said = NOTHING
    ) -> None:
        agent, job = self._agent, self.job
        job.recorded = True
        _count(job.target.series, end.status)
        record = record_of(
            job.call, end, agent.node_id, completed_at=completed_at, stats=stats, queued=bool(job.token),
            started_at=times.to_text(job.started) if job.started else times.NEVER,
        )  # fmt: skip
        if end.status is not Status.SUCCESS:
            agent.failures.tell(record, job.target.function)
        stored = self.trace.end(record, job.stored) if self.trace else job.stored
        agent.recorder.add(Result(record, self._log, job.token, stored, answer))
        if agent.listeners:
            agent.spawn(agent.listeners.after(record))


async def _raising(trouble: Exception) -> Response:
    raise trouble


def _count(series: Series, status: Status) -> None:
    if status is Status.SUCCESS:
        series.completed += 1
    else:
        series.failed += 1
        series.timeouts += status is Status.TIMEOUT
