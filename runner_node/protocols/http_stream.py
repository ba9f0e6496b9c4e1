"""The http-stream format: HTTP/1.1 over a unix socket that the function makes.

Pure: bytes in, a response out. The request is always ``POST /call`` with a chunked body, as functions
see it from Fn (api/agent/hybrid contract of 0.3.753, recorded in tests/wire). What a function answers:
200 is its answer, 502 that it failed, 504 that it ran out of time; anything else is a broken FDK.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import httptools

from runner_node.protocols.gunzip import Gunzip
from runner_node.protocols.streamed import Streamed
from shared_models import errors
from shared_models.config import canonical_header

Header = tuple[str, str]

LAST_CHUNK = b"0\r\n\r\n"
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "proxy-connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_FRAMING = frozenset({"content-length", "host"})
_NOT_PASSED = _HOP_BY_HOP | _FRAMING
_OWN = frozenset({"fn-call-id", "fn-deadline"})


def passes(name: str, value: str) -> bool:
    """Whether a header goes on to the function or back to the client: hop-by-hop ones do not."""
    lower = name.lower()
    return lower not in _HOP_BY_HOP and (lower != "te" or value == "trailers")


def header_text(value: bytes) -> str:
    """A header's value as text that can be written again: UTF-8, or Latin-1 where it is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def encode_head(headers: Iterable[Header], call_id: str, deadline: str) -> tuple[bytes, bool]:
    """The request's head, and whether gzip was asked for in the function's name (not the client's).

    *headers* are those that the function is to see; *deadline* is RFC 3339 text.
    """
    lines = ["POST /call HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"]
    lines.append(f"Fn-Call-Id: {call_id}\r\nFn-Deadline: {deadline}\r\n")
    agent = encoding = False
    for name, value in headers:
        written = _written(name)
        if not written or (written == "Te" and value != "trailers"):
            continue
        agent = agent or written == "User-Agent"
        encoding = encoding or written == "Accept-Encoding"
        lines.append(f"{written}: {value}\r\n")
    if not agent:
        # What Fn's own client says of itself; functions and their logs may rely on there being one.
        lines.append("User-Agent: Go-http-client/1.1\r\n")
    if not encoding:
        lines.append("Accept-Encoding: gzip\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("utf-8", "surrogateescape"), not encoding


@functools.lru_cache(maxsize=4096)
def _written(name: str) -> str:
    """How a client's header is called for the function; "" when the function does not see it."""
    lower = name.lower()
    dropped = lower in _FRAMING or lower in _OWN or lower in _HOP_BY_HOP
    return "" if dropped else canonical_header(name)


def encode_chunk(data: bytes) -> bytes:
    """The head of one chunk; *data* follows, then CRLF."""
    return b"%x\r\n" % len(data)


class Response:
    """A function's answer: *status*, *headers* without hop-by-hop and framing ones, *body*.

    *content_type_wins*: the Content-Type in it replaces what a route says; else both are sent.
    """

    __slots__ = ("body", "content_type_wins", "headers", "status")

    def __init__(
        self, status: int, headers: list[Header], body: bytes, *, content_type_wins: bool = False
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.content_type_wins = content_type_wins


class ResponseParser:
    """Takes the bytes of one response, in any pieces.

    ``feed`` raises a BadFunction for what is not HTTP or too large. When ``done``, ``response()`` gives
    the answer; ``reusable`` tells whether the connection may carry another call.

    With *stream_above* (bytes) a 200 has ``streamed`` from when its head has come, and its body not whole.
    Once that goes, the answer is given out as ``head`` and pieces, else as ``response``.
    """

    __slots__ = (
        "_above", "_body", "_gunzip", "_head_size", "_headers", "_max_body", "_max_head", "_parser", "_size",
        "_status", "_trouble", "done", "reusable", "started", "streamed",
    )  # fmt: skip

    def __init__(
        self, *, max_head: int = 0, max_body: int = 0, gunzip: bool = False, stream_above: int | None = None
    ) -> None:
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._headers: list[Header] = []
        self._body: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self._max_head = max_head
        self._max_body = max_body
        self._gunzip = gunzip
        self._status = 0
        self._trouble: errors.BadFunction | None = None
        self._above = stream_above
        self.streamed: Streamed | None = None
        self.started = False
        self.done = False
        self.reusable = False

    def feed(self, data: bytes) -> None:
        """Raises FunctionResponseError, FunctionHeadersTooLarge or FunctionResponseTooLarge."""
        if not data:
            return
        if self.done:
            # More than was asked for: the connection is out of step, the answer is good all the same.
            self.reusable = False
            return
        self.started = True
        try:
            assert self._parser is not None
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            if self.done:
                self.reusable = False
                return
            raise self._trouble or errors.FunctionResponseError(detail=f"not HTTP: {exc}") from None
        if self.done:
            self._parser = None  # each knows the other: a cycle for each call
        if self._trouble:
            raise self._trouble
        if not self.done and self._head_size < 0 and self.streamed is None:
            self._look()

    def _look(self) -> None:
        """The head has come, and not all of the body."""
        named = {name.lower(): value for name, value in self._headers}
        size = named.get("content-length", "")
        length = int(size) if size.isascii() and size.isdigit() else None
        if self._max_body and (length or 0) > self._max_body:
            raise errors.FunctionResponseTooLarge
        if self._above is not None and self._status == 200:
            self.streamed = Streamed(
                self._body, above=self._above, kind=named.get("content-type", ""), length=length,
                gunzip=self._passed_headers()[1], limit=self._max_body,
            )  # fmt: skip

    def head(self, body: bytes) -> Response:
        """The head of what is streamed, *body* being the first piece of it."""
        if self.streamed:
            self.streamed.begun = True
        return Response(self._status, self._passed_headers()[0], body)

    def end_of_stream(self) -> None:
        """The connection is closed; raises FunctionResponseError when the answer is not whole."""
        if self.done:
            return
        if self.started and self._headers_done() and self._until_close():
            self.done = True
            return
        raise errors.FunctionResponseError(detail="the connection was closed before the answer was complete")

    def response(self) -> Response:
        """The answer; raises what a client is to be told when the function did not answer 200."""
        status = self._status
        if status == 502:
            raise errors.FunctionFailed
        if status == 504:
            raise errors.CallTimedOut(detail="the function said that it ran out of time")
        if status != 200:
            raise errors.FunctionInvalidResponse(detail=f"the function's FDK answered with status {status}")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        headers, packed = self._passed_headers()
        if packed:
            inflater = Gunzip(self._max_body)
            body = b"".join(inflater.pieces(body))
            inflater.end()
        return Response(status, headers, body)

    def _passed_headers(self) -> tuple[list[Header], bool]:
        """What goes on to the client, and whether the body is first to be unpacked."""
        passed, packed = [], False
        for header in self._headers:
            lower = header[0].lower()
            if lower in _NOT_PASSED or (lower == "te" and header[1] != "trailers"):
                continue
            if lower == "content-encoding" and self._gunzip and header[1].lower() == "gzip":
                packed = True
            passed.append(header)
        if packed:
            passed = [header for header in passed if header[0].lower() != "content-encoding"]
        return passed, packed

    def _headers_done(self) -> bool:
        return self._head_size < 0

    def _until_close(self) -> bool:
        """Neither a length nor chunks were announced: the body goes on until the connection is closed."""
        names = {name.lower() for name, _ in self._headers}
        return "content-length" not in names and "transfer-encoding" not in names

    # -- what httptools calls ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.done:  # a second answer to the same call
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.done or self._head_size < 0:  # trailers are nobody's: they could say what the head did not
            return
        self._count_head(len(name) + len(value) + 4)
        self._headers.append((name.decode("latin-1"), header_text(value)))

    def on_status(self, status: bytes) -> None:
        self._count_head(len(status) + 15)

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._max_head and self._head_size > self._max_head:
            self._trouble = errors.FunctionHeadersTooLarge()

    def on_headers_complete(self) -> None:
        if not self.done:
            self._head_size = -1
            assert self._parser is not None
            self._status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        if self.done:
            return
        self._size += len(data)
        if self._max_body and self._size > self._max_body:
            self._trouble = self._trouble or errors.FunctionResponseTooLarge()
            self._body.clear()
            return
        self._body.append(data)
        if self.streamed:
            self.streamed.arrive(len(data))

    def on_message_complete(self) -> None:
        if self.done:
            return
        if 100 <= self._status < 200:
            self._headers.clear()
            self._head_size = 0
            return
        self.done = True
        assert self._parser is not None
        self.reusable = self._parser.should_keep_alive()
