"""The json format: one JSON object per call on stdin, one per answer on stdout.

Source: recorded from Fn 0.3.484 in tests/wire (inv-json-*, inv-errors-json, inv-async*).
"""

from __future__ import annotations

from typing import Any

import msgspec

from runner_node.protocols.contract import AnswerParser, Format, StdioCall
from runner_node.protocols.headers import answered, given, plain, text_of
from runner_node.protocols.http_stream import Header, Response
from runner_node.protocols.json_document import ObjectAnswer
from shared_models import errors, wire


def protocol_of(call: StdioCall) -> dict[str, Any]:
    """How the call came in, as both JSON formats tell it."""
    return {
        "type": "http",
        "method": plain(call.method),
        "request_url": plain(call.url),
        "headers": given(call.headers),
    }


def checked_status(status: int) -> int:
    """*status* (200 for 0) when an answer can have it; raises FunctionAnswerInvalid."""
    if status and not 200 <= status <= 999:
        raise errors.FunctionAnswerInvalid("json", f"status_code {status} is not between 200 and 999")
    return status or 200


def with_type(headers: list[Header], content_type: str) -> list[Header]:
    """*headers*, in which *content_type* (when it is not empty) stands alone."""
    if not content_type:
        return headers
    kept = [(name, value) for name, value in headers if name != "Content-Type"]
    return kept + answered([("Content-Type", content_type)])


class JSONFormat(Format):
    """Bodies are strings: what is not UTF-8 in a request's body becomes U+FFFD."""

    name = "json"
    hot = True

    def encode(self, call: StdioCall) -> bytes:
        return wire.encode(
            {
                "call_id": call.id,
                "deadline": call.deadline,
                "body": text_of(call.body),
                "content_type": plain(call.content_type),
                "protocol": protocol_of(call),
            }
        )

    def parser(self, call: StdioCall, *, max_body: int = 0) -> AnswerParser:
        return _Answer(max_body)


class _Protocol(msgspec.Struct, frozen=True):
    status_code: int = 0
    headers: dict[str, list[str | None] | None] = {}


class _Object(msgspec.Struct, frozen=True):
    body: str = ""
    content_type: str = ""
    protocol: _Protocol | None = None

    def headers(self) -> dict[str, list[str]]:
        """``null`` for a list is an empty one, for a value an empty text."""
        given = self.protocol.headers if self.protocol else {}
        return {name: [value or "" for value in values or []] for name, values in given.items()}


class _Answer(ObjectAnswer):
    _object = _Object()
    _body = b""
    _status = 200

    def _take(self, document: bytes) -> None:
        self._object = wire.decode(document, _Object)
        self._body = self._fits(self._object.body.encode())
        self._status = checked_status(self._object.protocol.status_code if self._object.protocol else 0)

    def response(self) -> Response:
        found = self._object
        headers = answered((name, value) for name, values in found.headers().items() for value in values)
        return Response(
            self._status,
            with_type(headers, found.content_type),
            self._body,
            content_type_wins=bool(found.content_type),
        )

    def log_text(self) -> bytes:
        found = self._object
        text: dict[str, Any] = {"body": found.body, "content_type": found.content_type}
        if found.protocol is not None:
            pairs = {"status_code": found.protocol.status_code, "headers": found.headers()}
            text["protocol"] = {name: value for name, value in pairs.items() if value}
        return wire.encode(text)
