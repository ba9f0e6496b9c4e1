"""The shortest way of a call, for most of them: of known functions, with small bodies and whole answers.

No task, no coroutine and no request object: what happens to such a call happens in the callbacks of its two
sockets. All that is out of the ordinary is left to ``Run``, at whatever point it turns up: a function that
must be looked up, a container that sleeps, a call that fails, an answer that comes in pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Iterable

from runner_node import quick_answer
from runner_node.agent import Agent
from runner_node.conversation import OverSocket
from runner_node.deadlines import Due
from runner_node.guard import Guard
from runner_node.hot_container import HotContainer, StartFailed
from runner_node.invoke import as_invoked, call_of, told
from runner_node.job import Job
from runner_node.protocols.http_stream import Header, Response
from runner_node.sinks import Kept
from runner_node.waits import Wait
from runner_node.wishes import foreign
from shared_models import errors, telemetry, tracing
from shared_models.fast_path import Exchange, FastPath, Pending
from shared_models.ids import LENGTH

log = logging.getLogger(__name__)

PREFIX = "/invoke/"
PATTERN = "/invoke/{fn_id}"
"""As metrics have it."""
_PATH = len(PREFIX) + LENGTH


def quick_path(agent: Agent, guard: Guard | None = None) -> FastPath:
    """For ``POST /invoke/{fn_id}`` on a node with *agent*; *guard* as that of the ordinary way."""
    guard = guard or Guard()

    def take(exchange: Exchange) -> Pending | None:
        path, headers = exchange.path, exchange.headers
        if len(path) != _PATH or not path.startswith(PREFIX) or "Fn-Invoke-Type" in headers:
            return None
        if agent.listeners or (fn := agent.data.known_fn(path[len(PREFIX) :])) is None:
            return None
        if (app := agent.data.known_app(fn.app_id)) is None or app.syslog_url:
            return None
        if tracing.on and tracing.due(headers):
            return None
        target = agent.target(fn, app)
        theirs: Iterable[Header] | None = headers.items()
        if target.guarded or guard.watches:
            theirs = guard.at_once(headers, target, app)
        if theirs is None:
            return None  # whoever is to be refused is refused on the ordinary way
        job = Job(
            call=call_of(target), target=target, body=exchange.body, sync=True,
            headers=foreign(theirs), patience=agent.settings.slot_wait, left=lambda: exchange.gone,
        )  # fmt: skip
        quick = Quick(agent, exchange, job)
        quick.begin()
        return quick

    return take


class Quick(Pending, Due):
    """One call. Each step returns at once; the next one is a callback."""

    __slots__ = (
        "_agent", "_began", "_container", "_conversation", "_exchange", "_job", "_run", "_wait", "until",
    )  # fmt: skip

    def __init__(self, agent: Agent, exchange: Exchange, job: Job) -> None:
        self._agent = agent
        self._exchange = exchange
        self._job = job
        self._run = agent.run_of(job)
        self._began = time.perf_counter()
        self._conversation = OverSocket(job, agent.settings)
        self._wait: Wait | None = None
        self._container: HotContainer | None = None
        self.until = 0.0

    def begin(self) -> None:
        """Takes a container, or a place in the line for one."""
        job, series = self._job, self._job.target.series
        try:
            place = self._agent.scheduler.enter(
                job.target, sync=True, until=self._agent.clock() + job.patience,
                size=len(self._exchange.body), left=job.left,
            )  # fmt: skip
        except (errors.FnError, StartFailed):
            self._leave_it_to(self._run.answer())  # it is refused again, and that is recorded
            return
        series.calls += 1
        if isinstance(place, Wait):
            series.queued += 1
            self._wait = place
            place.container.add_done_callback(self._served)
        else:
            self._serve(place)

    def cut_off(self) -> None:
        """See Pending."""
        container, self._container = self._container, None
        if self._wait:
            self._wait.container.remove_done_callback(self._served)
            self._no_longer_waits(taken=False)
        elif container:
            self._agent.scheduler.deadlines.discard(self)
            self._conversation.end(container)
        self._run.cut_off(container)

    # -- waiting -------------------------------------------------------------------------------

    def _served(self, container: asyncio.Future[HotContainer]) -> None:
        wait = self._wait
        if wait is None:
            return  # it was cut off in this moment
        if container.cancelled() or container.exception():
            self._wait = None
            self._job.target.series.queued -= 1
            self._leave_it_to(self._run.answer(wait))
        else:
            self._no_longer_waits(taken=True)
            self._serve(container.result())

    def _no_longer_waits(self, *, taken: bool) -> None:
        assert self._wait is not None
        self._job.target.series.queued -= 1
        self._wait.end(taken=taken)
        self._wait = None

    # -- running -------------------------------------------------------------------------------

    def _serve(self, container: HotContainer) -> None:
        agent, run = self._agent, self._run
        if not (container.awake and container.connected):
            self._leave_it_to(run.answer(container))
            return
        agent.scheduler.take(container)
        self._container = container
        run.count(container)
        run.begin(container)
        self.until = agent.clock() + self._job.target.timeout
        agent.scheduler.deadlines.add(self)
        try:
            self._conversation.send(container, self._heard)
        except Exception as exc:
            self._leave_the_rest(exc)

    def _heard(self, trouble: BaseException | None) -> None:
        container = self._container
        if container is None:
            return
        if trouble or not self._conversation.whole:
            self._leave_the_rest()
            return
        try:
            response = self._conversation.answer()
            answer = quick_answer.encode(self._job.call.id, response)
        except (errors.FnError, ValueError):
            self._leave_the_rest()
            return
        self._agent.scheduler.deadlines.discard(self)
        self._container = None
        try:
            self._conversation.end(container)
            self._exchange.answer(answer)
            self._run.uncount()
            self._run.succeed(self._conversation, container, response)
        except Exception:
            log.exception("call %s", self._job.call.id)
            container.retire()
            return
        if telemetry.log_requests:
            telemetry.log_request(
                "POST", self._exchange.path, 200, time.perf_counter() - self._began, self._job.call.id
            )
        telemetry.observe_request(
            "POST", PATTERN, 200, "", quick_answer.fdk_version(response), time.perf_counter() - self._began
        )

    def expire(self) -> None:
        """See Due."""
        self._leave_the_rest()

    # -- the ordinary way ----------------------------------------------------------------------

    def _leave_the_rest(self, trouble: Exception | None = None) -> None:
        """It takes longer, fails, or comes in pieces; *trouble* is a bug of ours."""
        container, self._container = self._container, None
        if container:
            self._agent.scheduler.deadlines.discard(self)
            self._leave_it_to(self._run.answer_to_the_end(self._conversation, container, self.until, trouble))

    def _leave_it_to(self, rest: Coroutine[None, None, Response]) -> None:
        async def unread() -> None:
            self._job.sink = Kept(0)
            with contextlib.suppress(errors.FnError, StartFailed):  # its record says so
                await rest

        self._exchange.hand_back(told(self._job, as_invoked, rest), unread)
