"""The http-stream format: HTTP/1.1 over a unix socket that the function makes.

Pure: bytes in, a response out. The request is always ``POST /call`` with a chunked body, as functions
see it from Fn (api/agent/hybrid contract of 0.3.753, recorded in tests/wire). What a function answers:
200 is its answer, 502 that it failed, 504 that it ran out of time; anything else is a broken FDK.
"""

from __future__ import annotations

from collections.abc import Iterable

import httptools

from runner_node.protocols.gunzip import Gunzip
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
        lower = name.lower()
        if lower in _FRAMING or lower in _OWN or not passes(name, value):
            continue
        agent = agent or lower == "user-agent"
        encoding = encoding or lower == "accept-encoding"
        lines.append(f"{canonical_header(name)}: {value}\r\n")
    if not agent:
        # What Fn's own client says of itself; functions and their logs may rely on there being one.
        lines.append("User-Agent: Go-http-client/1.1\r\n")
    if not encoding:
        lines.append("Accept-Encoding: gzip\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("utf-8", "surrogateescape"), not encoding


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

    With *pass_on_above* (bytes) a 200 need not be collected: once ``passes_on``, what has come is taken out
    with ``pieces`` as it comes. That is so when it is larger, is of events, or when ``hurry`` was called.
    """

    __slots__ = (
        "_above", "_body", "_gunzip", "_head_size", "_headers", "_inflater", "_looked", "_max_body",
        "_max_head", "_parser", "_size", "_status", "_trouble", "done", "held", "incomplete", "length",
        "passed_on", "passes_on", "reusable", "started", "typed",
    )  # fmt: skip

    def __init__(
        self, *, max_head: int = 0, max_body: int = 0, gunzip: bool = False, pass_on_above: int | None = None
    ) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[Header] = []
        self._body: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self._max_head = max_head
        self._max_body = max_body
        self._gunzip = gunzip
        self._status = 0
        self._trouble: errors.BadFunction | None = None
        self._above = pass_on_above
        self._inflater: Gunzip | None = None
        self._looked = False
        self.started = False
        self.incomplete = False
        """The head has come, the body has not; it may be passed on."""
        self.passes_on = False
        self.passed_on = False
        """The head was given away: there is no way back."""
        self.held = 0
        """Bytes that ``pieces`` has not given, once ``passes_on``."""
        self.length: int | None = None
        """What is passed on will be so many bytes, if that is known."""
        self.typed = False
        """What is passed on has a content type."""
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
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            if self.done:
                self.reusable = False
                return
            raise self._trouble or errors.FunctionResponseError(detail=f"not HTTP: {exc}") from None
        if self._trouble:
            raise self._trouble
        if not self.done and self._head_size < 0:
            self._look()

    def _look(self) -> None:
        """The head has come, and not all of the body."""
        if not self._looked:
            self._looked = True
            named = {name.lower(): value for name, value in self._headers}
            size = named.get("content-length", "")
            self.length = int(size) if size.isascii() and size.isdigit() else None
            if self._max_body and (self.length or 0) > self._max_body:
                raise errors.FunctionResponseTooLarge
            if self._above is None or self._status != 200:
                return
            self.incomplete = True
            if self._is_gzip(named.get("content-encoding", "")):
                self._inflater, self.length = Gunzip(self._max_body), None
                self.hurry()  # nobody knows how large it will be
            kind = named.get("content-type", "")
            self.typed = bool(kind)
            if kind.lower().startswith("text/event-stream") or (self.length or 0) > self._above:
                self.hurry()
        if self.incomplete and not self.passes_on and self._size > (self._above or 0):
            self.hurry()

    def hurry(self) -> None:
        """What has come is to be passed on now, and the rest as it comes."""
        self.passes_on = True
        self.held = self._size

    def head(self, body: bytes) -> Response:
        """The head of what is passed on, *body* being the first piece of it."""
        self.passed_on = True
        return Response(self._status, self._passed_headers(inflated=self._inflater is not None), body)

    def pieces(self) -> Iterable[bytes]:
        """What has come since the last time, none of it empty; raises as ``feed`` does."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self.held = 0
        if self._inflater:
            return self._inflater.pieces(body)
        return (body,) if body else ()

    def end_of_pieces(self) -> None:
        """All pieces were taken; raises FunctionResponseError when there should be more."""
        if self._inflater:
            self._inflater.end()

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
        headers = self._passed_headers(inflated=False)
        if self._gunzip and any(self._is_gzip(v) for k, v in headers if k.lower() == "content-encoding"):
            inflater = Gunzip(self._max_body)
            body = b"".join(inflater.pieces(body))
            inflater.end()
            headers = self._passed_headers(inflated=True)
        return Response(status, headers, body)

    def _is_gzip(self, encoding: str) -> bool:
        return self._gunzip and encoding.lower() == "gzip"

    def _passed_headers(self, *, inflated: bool) -> list[Header]:
        headers = [(k, v) for k, v in self._headers if k.lower() not in _FRAMING and passes(k, v)]
        if inflated:
            headers = [(k, v) for k, v in headers if k.lower() != "content-encoding"]
        return headers

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
        if self.passes_on:
            self.held += len(data)

    def on_message_complete(self) -> None:
        if self.done:
            return
        if 100 <= self._status < 200:
            self._headers.clear()
            self._head_size = 0
            return
        self.done = True
        self.reusable = self._parser.should_keep_alive()
