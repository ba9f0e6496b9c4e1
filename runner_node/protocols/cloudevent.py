"""The cloudevent format: CloudEvents 0.1 in JSON, one per call on stdin, one per answer on stdout.

A request that is an event itself is passed through and answered as one; any other body is the ``data``
of an event made for it, and has to be JSON.
Source: recorded from Fn 0.3.484 in tests/wire (inv-cloudevent-*, inv-async*).
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from runner_node.protocols.contract import AnswerParser, Format, StdioCall
from runner_node.protocols.headers import answered, plain, text_of
from runner_node.protocols.http_stream import Header, Response
from runner_node.protocols.json_document import ObjectAnswer, readable
from runner_node.protocols.json_format import checked_status, protocol_of, with_type
from shared_models import errors, times, wire

CONTENT_TYPE = "application/cloudevents+json"
_NO_TIME = "0001-01-01T00:00:00Z"
_NULL = msgspec.Raw(b"null")


def is_event(content_type: str) -> bool:
    """Whether a request with this Content-Type is an event itself, and so picks this format."""
    return content_type.startswith(CONTENT_TYPE)


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event. ``data`` and extensions are kept as compact JSON text, unknown fields are dropped."""

    version: str = msgspec.field(default="", name="cloudEventsVersion")
    id: str = msgspec.field(default="", name="eventID")
    source: str = ""
    type: str = msgspec.field(default="", name="eventType")
    type_version: str = msgspec.field(default="", name="eventTypeVersion")
    time: str = msgspec.field(default=_NO_TIME, name="eventTime")
    schema_url: str = msgspec.field(default="", name="schemaURL")
    content_type: str = msgspec.field(default="", name="contentType")
    extensions: dict[str, msgspec.Raw] | None = None
    data: msgspec.Raw | None = None

    def wire(self) -> bytes:
        """The event in JSON and a newline; ``data`` is left out when it is null."""
        fields = {info.encode_name: getattr(self, info.name) for info in msgspec.structs.fields(self)}
        if self.data is None:
            del fields["data"]
        return wire.encode(fields)


def decode(document: bytes) -> CloudEvent:
    """The event in *document* (readable JSON); raises InvalidJSON."""
    event = wire.decode(document, CloudEvent)
    try:
        times.normalise(event.time)
    except ValueError as exc:
        raise errors.InvalidJSON(f"eventTime: {exc}") from None
    extensions = event.extensions
    if extensions is not None:
        extensions = {name: _checked(bytes(value)) for name, value in extensions.items()}
    data = None if event.data is None else _checked(bytes(event.data))
    return msgspec.structs.replace(event, extensions=extensions, data=data)


def _checked(text: bytes) -> msgspec.Raw:
    """*text*, which is one JSON value to its last letter, without space; raises InvalidJSON."""
    try:
        msgspec.json.decode(text)
        return msgspec.Raw(msgspec.json.format(text, indent=-1))
    except (msgspec.MsgspecError, ValueError) as exc:
        raise errors.InvalidJSON(str(exc)) from None
    except RecursionError:
        raise errors.InvalidJSON("nested too deeply") from None


def _first_value(body: bytes) -> bytes:
    """The first JSON value in *body*; what follows does not matter, as in Fn. Raises InvalidJSON."""
    text = readable(body).decode().lstrip(" \t\r\n")
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except ValueError as exc:
        raise errors.InvalidJSON(str(exc)) from None
    except RecursionError:
        raise errors.InvalidJSON("nested too deeply") from None
    return text[:end].encode()


class CloudEventFormat(Format):
    """Raises EventUnusable for a body that is no event, or no JSON."""

    name = "cloudevent"
    hot = True

    def encode(self, call: StdioCall) -> bytes:
        try:
            event = _passed_on(call) if is_event(call.content_type) else _made_for(call)
        except errors.InvalidJSON as exc:
            raise errors.EventUnusable(f"request body: {exc.detail}") from None
        extensions = dict(event.extensions or {})
        extensions["protocol"] = msgspec.Raw(msgspec.json.encode(protocol_of(call)))
        extensions["deadline"] = msgspec.Raw(msgspec.json.encode(call.deadline))
        return msgspec.structs.replace(event, extensions=extensions).wire()

    def parser(self, call: StdioCall, *, max_body: int = 0) -> AnswerParser:
        return _Answer(max_body, whole=is_event(call.content_type))


def _passed_on(call: StdioCall) -> CloudEvent:
    # Unlike other bodies, an event has to be the only thing in the body.
    return decode(bytes(_checked(readable(call.body))))


def _made_for(call: StdioCall) -> CloudEvent:
    data = _checked(_first_value(call.body)) if call.body else None
    return CloudEvent(
        version="0.1",
        id=call.id,
        source=plain(call.url),
        type="http",
        content_type=plain(call.content_type),
        data=None if data is None or bytes(data) == b"null" else data,
    )


class _Answer(ObjectAnswer):
    """*whole*: the client sent an event and gets one."""

    _event = CloudEvent()

    def __init__(self, max_body: int, *, whole: bool) -> None:
        super().__init__(max_body)
        self._whole = whole
        self._status = 200
        self._headers: list[Header] = []
        self._body = b""
        self._trouble: errors.EventUnusable | None = None

    def _take(self, document: bytes) -> None:
        self._event = decode(document)
        # As JSON goes, the answer is one: the container stays, only this call has failed.
        try:
            self._status, self._headers = _protocol(self._event)
            self._body = self._fits(self._event.wire() if self._whole else _body(self._event))
        except errors.EventUnusable as exc:
            self._trouble = exc

    def response(self) -> Response:
        """Raises EventUnusable for an answer that no HTTP answer can be made of."""
        if self._trouble:
            raise self._trouble
        content_type = self._event.content_type
        headers = with_type(answered(self._headers), content_type)
        return Response(self._status, headers, self._body, content_type_wins=bool(content_type))

    def log_text(self) -> bytes:
        return self._event.wire()


def _protocol(event: CloudEvent) -> tuple[int, list[Header]]:
    """Status and headers in the event's ``protocol`` extension."""
    raw = (event.extensions or {}).get("protocol", _NULL)
    found: Any = msgspec.json.decode(raw)
    if found is None:
        return 200, []
    if not isinstance(found, dict):
        raise errors.EventUnusable("extensions.protocol is not an object")
    status = found.get("status_code") or 0
    if isinstance(status, bool) or not isinstance(status, int | float) or abs(status) > 1 << 31:
        raise errors.EventUnusable("extensions.protocol.status_code is not a number")
    return checked_status(int(status)), _headers(found.get("headers") or {})


def _headers(found: object) -> list[Header]:
    pairs: list[Header] = []
    for name, values in found.items() if isinstance(found, dict) else [("", None)]:
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise errors.EventUnusable("extensions.protocol.headers is not an object of lists of texts")
        pairs.extend((name, value) for value in values)
    return pairs


def _body(event: CloudEvent) -> bytes:
    """The data of an event as a body: JSON, or the text in it, as the content type says."""
    data = bytes(event.data or _NULL)
    if event.content_type == "application/json":
        return data
    if event.content_type == "text/plain":
        text: object = msgspec.json.decode(data)
        if isinstance(text, str):
            return text.encode()
        raise errors.EventUnusable("data is not a text, as contentType says")
    raise errors.EventUnusable(
        f"contentType {text_of(event.content_type.encode())[:64]!r} of the answer is neither "
        "application/json nor text/plain"
    )
