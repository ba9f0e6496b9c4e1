"""The http format: the client's request on stdin, an HTTP response on stdout, one after another.

Source: recorded from Fn 0.3.484 in tests/wire (inv-http-*, inv-errors-http, inv-async).
"""

from __future__ import annotations

import http

import httptools

from runner_node.protocols.contract import AnswerParser, Format, StdioCall
from runner_node.protocols.headers import TOKEN, answered, given, one_line
from runner_node.protocols.http_stream import Header, Response, header_text
from shared_models import errors

MAX_HEAD = 1 << 20
"""Bytes of an answer that may go by without anything of its body."""
_ELSEWHERE = frozenset({"User-Agent", "Content-Length"})
_LOGGED_ELSEWHERE = frozenset({"content-length", "transfer-encoding", "trailer"})
_LINE_ENDS = b"\r\n"


class HTTPFormat(Format):
    """The request as Go's client writes it: Host, User-Agent, Content-Length, the rest by name."""

    name = "http"
    hot = True

    def encode(self, call: StdioCall) -> bytes:
        if not TOKEN.fullmatch(call.method):
            raise errors.Invalid(f"Method {call.method[:64]!r} cannot be put in an HTTP request")
        host, target = _split(call.url)
        headers = given(call.headers)
        headers.update(
            Fn_call_id=[call.id],
            Fn_deadline=[call.deadline],
            Fn_method=[call.method],
            Fn_request_url=[call.url],
        )
        lines = [f"{call.method} {target} HTTP/1.1", f"Host: {host}"]
        # A client that sends an empty one wants none.
        if agent := headers.get("User-Agent", ["Go-http-client/1.1"])[0]:
            lines.append(f"User-Agent: {one_line(agent)}")
        if call.body or call.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(call.body)}")
        for name, values in sorted(headers.items()):
            if name not in _ELSEWHERE:
                lines.extend(f"{name}: {one_line(value)}" for value in values)
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape") + call.body

    def parser(self, call: StdioCall, *, max_body: int = 0) -> AnswerParser:
        return _Answer(max_body, without_body=call.method == "HEAD")


def _split(url: str) -> tuple[str, str]:
    """Host and request target of a URL, with nothing in them that could break out of their lines."""
    rest = url.partition("://")[2] or url
    cut = min((at for at in map(rest.find, "/?") if at >= 0), default=len(rest))
    host, target = rest[:cut], rest[cut:]
    if not target.startswith("/"):
        target = "/" + target
    visible = "".join(char for char in host if "!" <= char <= "~")
    return visible, "".join(char if "!" <= char <= "~" else _escaped(char) for char in target)


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


class _Answer(AnswerParser):
    """One response. Line ends after it do no harm; anything else, a second answer too, makes it unclean.

    A head may have bare line feeds, as Go's parser takes them. An answer with neither a length nor
    chunks goes on until stdout is closed.
    """

    def __init__(self, max_body: int, *, without_body: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self._max_body = max_body
        self._without_body = without_body
        self._headers: list[Header] = []
        self._body: list[bytes] = []
        self._size = 0
        self._silent = 0
        self._status = 0
        self._reason = b""
        self._in_body = False
        self._too_large = False

    def feed(self, data: bytes) -> None:
        if self.done and not self._without_body:
            self.clean = self.clean and not data.strip(_LINE_ENDS)
            return
        self._silent += len(data)
        trouble = ""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            trouble = "unexpected change of protocol"
        except httptools.HttpParserError as exc:
            trouble = f"malformed HTTP response: {exc}"
        if self._too_large:
            raise errors.FunctionAnswerTooLarge
        if trouble and not self.done:
            raise errors.FunctionAnswerInvalid("http", trouble)
        self.clean = self.clean and not trouble
        if not self.done and self._silent > MAX_HEAD:
            raise errors.FunctionHeadersTooLarge

    def end_of_stream(self) -> None:
        if self.done:
            return
        names = {name.lower() for name, _ in self._headers}
        if not self._in_body or names & {"content-length", "transfer-encoding"}:
            raise errors.FunctionAnswerInvalid("http", "unexpected EOF")
        self.done = True

    def response(self) -> Response:
        return Response(self._status, answered(self._headers), b"".join(self._body))

    def log_text(self) -> bytes:
        reason = self._reason.decode("latin-1") or _reason(self._status)
        lines = [f"HTTP/1.1 {self._status} {reason}"]
        body = b"".join(self._body)
        if body or self._status not in (204, 304):
            lines.append(f"Content-Length: {len(body)}")
        rest = [(name, value) for name, value in self._headers if name.lower() not in _LOGGED_ELSEWHERE]
        lines.extend(f"{name}: {value}" for name, value in sorted(rest, key=lambda header: header[0]))
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape") + body

    # -- what httptools calls ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.done:
            self.clean = False

    def on_status(self, status: bytes) -> None:
        if not self.done:
            self._reason = status

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.done and not self._in_body:
            self._headers.append((name.decode("latin-1"), header_text(value)))

    def on_headers_complete(self) -> None:
        if self.done:
            return
        self._status = self._parser.get_status_code()
        if self._status >= 200:
            self._silent = 0
            self._in_body = True
            # Whatever length it names, nothing follows the answer to a HEAD.
            self.done = self._without_body

    def on_body(self, data: bytes) -> None:
        if self.done:
            self.clean = self.clean and not data.strip(_LINE_ENDS)
            return
        self._silent = 0
        self._size += len(data)
        if self._max_body and self._size > self._max_body:
            self._too_large = True
            self._body.clear()
            return
        self._body.append(data)

    def on_message_complete(self) -> None:
        if not self.done and self._in_body:
            self.done = True
        elif not self.done:  # 100 Continue and the like come before the answer
            self._headers.clear()


def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return f"status code {status}"
