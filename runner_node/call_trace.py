"""What a call that is traced says of itself: one span for all of it, below it what it waited for and ran.

fn.call                 a sync call, or one attempt at a queued call
  fn.queue              in the queue, delays and earlier attempts included
  fn.wait               for a container
    fn.pull fn.start    ... that was started meanwhile: its image, then until it listened
  fn.run                in the function
  fn.finish             from its end until an API node had stored its record
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from multidict import CIMultiDict
from opentelemetry.trace import Span, SpanKind, StatusCode

from runner_node.calls import Target
from runner_node.hot_container import HotContainer
from runner_node.job import Job
from runner_node.results import Stored
from shared_models import tracing
from shared_models.call import Call, Status
from shared_models.config import Headers, canonical_header

if TYPE_CHECKING:
    from runner_node.agent import Agent

LONGEST_ERROR = 200
"""Characters of an error that a span keeps."""
_SHORTEST_PULL = 0.001
"""Seconds; what took less was a look whether the image is there."""


class CallTrace:
    """Made by ``trace_of``; ``end`` is called once, or ``given_back``."""

    __slots__ = ("_began", "_over", "_ran", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self._began = 0.0
        self._ran = 0.0
        self._over = False

    def waited(self, since: float, container: HotContainer) -> None:
        """The call has waited for *container* since then, in unix seconds."""
        wait = tracing.past("fn.wait", self.span, since, time.time())
        asked, pulled, ready = container.times
        if wait and ready >= since:
            if pulled - asked > _SHORTEST_PULL:
                tracing.past("fn.pull", wait, asked, pulled)
            tracing.past("fn.start", wait, pulled, ready)
            self.span.set_attribute("fn.cold", True)

    def runs(self) -> None:
        """The function gets the call now."""
        self._began, self._ran = time.time(), 0.0

    def ran(self) -> None:
        """Its answer is there, or why there is none."""
        self._ran = time.time()

    def end(self, record: Call, stored: Stored | None) -> Stored:
        """The call has ended as *record* says; answers what is to be told when that is stored."""
        ended = time.time()
        self._over = True
        if self._began:
            tracing.past(
                "fn.run", self.span, self._began, self._ran or ended, kind=SpanKind.CLIENT,
                error=record.error[:LONGEST_ERROR],
            )  # fmt: skip
        if record.status != Status.SUCCESS:
            self.span.set_attribute("fn.reason", record.reason)
            self.span.set_status(StatusCode.ERROR, record.error[:LONGEST_ERROR])
        self.span.end()

        def settled(taken: bool) -> None:
            tracing.past("fn.finish", self.span, ended, time.time(), attributes={"fn.taken": taken})
            if stored:
                stored(taken)

        return settled

    def given_back(self, why: BaseException) -> None:
        """The call leaves this runner without a record of it, unless it has ended before."""
        if not self._over:
            self._over = True
            self.span.set_status(StatusCode.ERROR, str(why)[:LONGEST_ERROR])
            self.span.end()


def trace_of(job: Job) -> CallTrace | None:
    """The trace of *job*, whose function is told of it; None when it is not traced."""
    parent = tracing.current() if job.sync else tracing.parent_of(CIMultiDict(job.headers))
    kind = SpanKind.SERVER if job.sync else SpanKind.CONSUMER
    span = tracing.begin("fn.call", kind, parent=parent, root=job.sync)
    if span is None:
        return None
    describe(span, job.call, job.target)
    if job.age:
        now = time.time()
        tracing.past("fn.queue", span, now - job.age, now)
    job.headers = tracing.below(span, job.headers)
    return CallTrace(span)


def describe(span: Span, call: Call, target: Target) -> None:
    """Which call of which function *span* is about; no configuration, and nothing of what a client sent."""
    span.set_attributes(
        {
            "fn.call.id": call.id,
            "fn.call.type": str(call.type),
            "fn.call.attempt": max(call.attempt, 1),
            "fn.app.id": call.app_id,
            "fn.image": target.image,
        }
    )
    if call.fn_id:
        span.set_attribute("fn.fn.id", call.fn_id)
    else:
        span.set_attribute("fn.route", call.path)


def enqueuing() -> Span | None:
    """A span for a call that is to be queued: its run, perhaps on another node, will be below it."""
    return tracing.begin("fn.enqueue", SpanKind.PRODUCER, parent=tracing.current(), root=True)


def told_of(span: Span, headers: Headers) -> Headers:
    """*headers* of a queued call, which carry *span* through the queue, also past nodes without traces."""
    others = {name: values for name, values in headers.items() if name.lower() not in tracing.NAMES}
    named = tracing.headers_of(span.get_span_context())
    return {**others, **{canonical_header(name): [value] for name, value in named.items()}}


async def enqueued(agent: Agent, call: Call, target: Target, span: Span | None) -> str:
    """The id under which *call* was accepted; *span* lasts until then."""
    if span is None:
        return await agent.data.enqueue(call)
    describe(span, call, target)
    with tracing.within(span), span:
        return await agent.data.enqueue(call)
