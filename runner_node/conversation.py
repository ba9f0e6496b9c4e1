"""One call in the words of its format: what is said to the container, and what its answer means."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from runner_node.function_socket import Heard
from runner_node.hot_container import HotContainer
from runner_node.job import Job
from runner_node.protocols.contract import Format, StdioCall
from runner_node.protocols.http_stream import Response, ResponseParser, encode_head
from runner_node.settings import AgentSettings
from runner_node.sinks import Kept, Sink
from shared_models import errors, times
from shared_models.async_policy import wants_answer

CONTENT_TYPE = "content-type"
_LATER = Kept(0)
"""Stands for a sink that is given to the job before ``finish``."""


class Conversation(ABC):
    """Made by ``conversation_for``; ``hold`` is called once."""

    @abstractmethod
    async def hold(self, container: HotContainer) -> Response:
        """The function's answer; raises the FnError that the client is to be told."""

    @abstractmethod
    def trusts(self, exc: errors.FnError | None) -> bool:
        """Whether the container may go on, after a success (None) or after *exc*."""

    def log_text(self) -> bytes:
        """What of the answer belongs into the log of an async call."""
        return b""


def conversation_for(job: Job, settings: AgentSettings) -> Conversation:
    """Raises an FnError when the call cannot be put in its format."""
    if job.target.format is None:
        return OverSocket(job, settings)
    return _OverStdio(job, job.target.format, settings)


class OverSocket(Conversation):
    """http-stream. ``send`` and ``finish`` are ``hold`` in two steps; the first one takes no time."""

    __slots__ = ("_job", "_parser", "_settings", "_sink")

    def __init__(self, job: Job, settings: AgentSettings) -> None:
        self._job = job
        self._settings = settings
        self._sink: Sink | None = None
        self._parser: ResponseParser | None = None

    async def hold(self, container: HotContainer) -> Response:
        head, parser = self._begin(self._job.sink)
        await container.call(head, self._job.body, parser, self._job.target.timeout, self._sink)
        return self.answer()

    def send(self, container: HotContainer, heard: Heard) -> None:
        """Sends the call, whose body is whole; *heard* is called when ``finish`` has something to do.

        Until then the job may be given a sink.
        """
        body = self._job.body
        assert isinstance(body, bytes)
        head, parser = self._begin(_LATER)
        container.send(head, body, parser, heard)

    @property
    def whole(self) -> bool:
        """Whether the answer has come, in one piece and in order, so that ``finish`` is not needed."""
        return self._parser is not None and self._parser.done and not self._parser.streamed

    async def finish(self, container: HotContainer, until: float) -> Response:
        """The function's answer, as ``hold``; *until*, in the loop's time, it must have come."""
        assert self._parser is not None
        await container.finish(self._parser, until, self._job.target.timeout, self._job.sink)
        return self.answer()

    def end(self, container: HotContainer) -> None:
        """After ``send``, instead of ``finish``: the answer is whole, or the call is given up."""
        if self._parser:
            container.end(self._parser)

    def _begin(self, sink: Sink | None) -> tuple[bytes, ResponseParser]:
        job, settings = self._job, self._settings
        deadline = times.deadline_text(time.time() + job.target.timeout)
        head, gunzip = encode_head(job.headers, job.call.id, deadline)
        if not job.sync:
            # What is handed in, and one more byte that tells whether there is more.
            sink = Kept(settings.callback_max_body + 1 if wants_answer(job.call) else 0)
        self._sink = sink
        parser = self._parser = ResponseParser(
            max_head=settings.max_header_size, max_body=settings.max_response_size, gunzip=gunzip,
            stream_above=settings.stream_above if sink else None,
        )  # fmt: skip
        return head, parser

    def answer(self) -> Response:
        """What has come; raises what the function said instead of an answer."""
        parser, sink = self._parser, self._sink
        assert parser is not None
        if parser.streamed and parser.streamed.begun:
            return parser.head(sink.body if isinstance(sink, Kept) else b"")
        return parser.response()

    def trusts(self, exc: errors.FnError | None) -> bool:
        streamed = self._parser.streamed if self._parser else None
        if exc and streamed and streamed.begun:
            return False
        if exc is None or isinstance(exc, errors.FunctionFailed | errors.FunctionResponseTooLarge):
            return True
        return isinstance(exc, errors.CallTimedOut) and self._parser is not None and self._parser.done


class _OverStdio(Conversation):
    """The formats of stdin and stdout."""

    def __init__(self, job: Job, format_: Format, settings: AgentSettings) -> None:
        if isinstance(job.body, AsyncIterator):
            raise errors.FnError(detail="this format needs the whole body")
        call = job.call
        content_type = next((v for k, v in job.headers if k.lower() == CONTENT_TYPE), "")
        said = StdioCall(
            id=call.id, deadline=times.to_text(time.time() + job.target.timeout), method=call.method,
            url=call.url, headers=job.headers, content_type=content_type, body=job.body,
        )  # fmt: skip
        self._timeout = job.target.timeout
        self._data = format_.encode(said)
        self._parser = format_.parser(said, max_body=settings.max_response_size)
        self._last = not format_.hot

    async def hold(self, container: HotContainer) -> Response:
        await container.converse(self._data, self._parser, self._timeout, last=self._last)
        return self._parser.response()

    def trusts(self, exc: errors.FnError | None) -> bool:
        understood = exc is None or (isinstance(exc, errors.EventUnusable) and self._parser.done)
        return understood and self._parser.clean and not self._last

    def log_text(self) -> bytes:
        return self._parser.log_text() if self._parser.done else b""
