"""One call in the words of its format: what is said to the container, and what its answer means."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from runner_node.hot_container import HotContainer
from runner_node.job import Job
from runner_node.protocols.contract import Format, StdioCall
from runner_node.protocols.http_stream import Response, ResponseParser, encode_head
from runner_node.settings import AgentSettings
from runner_node.sinks import Kept
from shared_models import errors, times

CONTENT_TYPE = "content-type"


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
        return _OverSocket(job, settings)
    return _OverStdio(job, job.target.format, settings)


class _OverSocket(Conversation):
    """http-stream."""

    def __init__(self, job: Job, settings: AgentSettings) -> None:
        self._job = job
        self._settings = settings
        self._parser: ResponseParser | None = None

    async def hold(self, container: HotContainer) -> Response:
        timeout = self._job.target.timeout
        deadline = times.deadline_text(time.time() + timeout)
        head, gunzip = encode_head(self._job.headers, self._job.call.id, deadline)
        settings, sink = self._settings, self._job.sink
        if not self._job.sync:
            # What a callback may have, and one more byte that tells whether there is more.
            sink = Kept(settings.callback_max_body + 1 if self._job.call.callback_url else 0)
        parser = self._parser = ResponseParser(
            max_head=settings.max_header_size, max_body=settings.max_response_size, gunzip=gunzip,
            stream_above=settings.stream_above if sink else None,
        )  # fmt: skip
        await container.call(head, self._job.body, parser, timeout, sink)
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
