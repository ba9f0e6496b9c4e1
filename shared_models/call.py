"""Calls: one run of a function, from the moment that its id is given out.

    queued -> running -> success | error | timeout | cancelled        detached and async calls
              running -> success | error | timeout                    sync calls

A queued call that a runner has leased is still "queued" until that runner starts it. When a lease
is lost the call is queued again with the next attempt number. A final state never changes.
"""

from __future__ import annotations

import base64
import enum
from typing import Any

import msgspec

from shared_models import times
from shared_models.annotations import Annotations
from shared_models.config import Config, Headers
from shared_models.errors import Invalid, InvalidJSON
from shared_models.ids import is_id
from shared_models.wire import Int32, Uint32, Uint64


class Status(enum.StrEnum):
    """The states of a call, in the words of the wire."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


_LARGE = 64 * 1024
_CONTROLS = bytes(range(0x20)).translate(None, b"\t\n\r")  # JSON has two bytes for each of these three
FINAL = frozenset({Status.SUCCESS, Status.ERROR, Status.TIMEOUT, Status.CANCELLED})


class CallType(enum.StrEnum):
    """How the client waits: ``sync``, ``detached`` (functions) or ``async`` (routes)."""

    SYNC = "sync"
    DETACHED = "detached"
    ASYNC = "async"


class Reason(enum.StrEnum):
    """Why a call did not succeed, in one word for machines; ``error`` says it for people."""

    FUNCTION = "function"
    """It answered with a failure, or with what is no answer."""
    TIMEOUT = "timeout"
    OOM = "oom"
    """Its container was killed because it took more memory than the function has."""
    EXIT = "exit"
    """Its container ended during the call."""
    NOT_STARTED = "not_started"
    """No container could be started for it: image, engine, or a socket that was never opened."""
    NO_ROOM = "no_room"
    """It needs more than the runner has."""
    RUNNER_LOST = "runner_lost"
    """Its runner died or was cut off, and no attempt is left."""
    RUNNER_STOPPED = "runner_stopped"
    """Its runner stopped before the function had answered."""
    EXPIRED = "expired"
    """It waited in the queue for longer than its function allows."""
    CANCELLED = "cancelled"
    GONE = "gone"
    """Its function was removed, or is no longer what was called."""
    UNUSABLE = "unusable"
    """It cannot be put into the format of its function, or was refused by an extension."""
    LOST = "lost"
    """It has no message in the queue: never accepted, or lost by the queue."""


WITHOUT_RESULT = frozenset({Reason.NOT_STARTED, Reason.NO_ROOM, Reason.RUNNER_LOST, Reason.RUNNER_STOPPED})
"""Ends of an attempt in which the function had no chance: the call is run again while attempts are left."""


class Stat(msgspec.Struct, frozen=True, kw_only=True):
    """One sample of what a container used while it ran the call."""

    timestamp: str = ""
    metrics: dict[str, int] = {}


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    id: str = ""
    status: str = ""
    app_id: str = ""
    fn_id: str = ""
    trigger_id: str = ""
    path: str = ""
    image: str = ""
    type: str = CallType.SYNC
    format: str = ""
    url: str = ""
    method: str = ""
    priority: Int32 = 0
    delay: Int32 = 0
    timeout: Int32 = 0
    idle_timeout: Int32 = 0
    tmpfs_size: Uint32 = 0
    memory: Uint64 = 0
    cpus: str = ""
    config: Config = {}
    annotations: Annotations = {}
    headers: Headers = {}
    syslog_url: str = ""
    created_at: str = times.NEVER
    started_at: str = times.NEVER
    completed_at: str = times.NEVER
    error: str = ""
    reason: str = ""
    stats: list[Stat] = []
    attempt: int = 0
    node: str = ""
    callback_url: str = ""
    idempotency_key: str = ""


class Call(_Call, frozen=True, kw_only=True):
    """A call: what is needed to run it, and what became of it.

    Time limits and delay in seconds, memory in MB, times as wire text (``times.NEVER``: not yet).
    ``url``, ``method`` and ``headers`` are those of the client's request as the function is to see
    them. ``error`` and ``reason`` (a ``Reason``) say why a call did not succeed. ``node`` is the runner that
    has it. ``callback_url`` is posted the result. ``idempotency_key``: the same key is the same call.
    """

    payload: bytes = b""

    @property
    def final(self) -> bool:
        """Whether the call has ended."""
        return self.status in FINAL

    def record(self) -> dict[str, Any]:
        """The JSON object of the v2 API: what became of the call, not what was needed to run it."""
        body: dict[str, Any] = {
            "id": self.id,
            "status": self.status,
            "type": self.type,
            "app_id": self.app_id,
        }
        for name in ("fn_id", "trigger_id", "path", "error", "reason", "node"):
            if value := getattr(self, name):
                body[name] = value
        body["attempt"] = self.attempt
        for name in ("created_at", "started_at", "completed_at"):
            body[name] = getattr(self, name)
        if self.stats:
            body["stats"] = self.stats
        return body

    def wire(self) -> dict[str, Any]:
        """The JSON object of the runner API: all of the call.

        A payload that is not UTF-8 travels as ``payload_base64``; empty fields are left out where
        Fn 0.3.484 leaves them out.
        """
        body: dict[str, Any] = {"id": self.id, "status": self.status}
        for name in ("path", "image", "delay", "type", "format"):
            if value := getattr(self, name):
                body[name] = value
        if self.payload:
            body.update(bytes_on_wire("payload", self.payload))
        for name in ("url", "method"):
            if value := getattr(self, name):
                body[name] = value
        body["priority"] = self.priority
        for name in (
            "timeout", "idle_timeout", "tmpfs_size", "memory", "cpus", "config", "annotations", "headers",
            "syslog_url", "error", "reason", "stats", "app_id", "fn_id", "trigger_id", "attempt", "node",
            "callback_url", "idempotency_key",
        ):  # fmt: skip
            if value := getattr(self, name):
                body[name] = value
        for name in ("completed_at", "created_at", "started_at"):
            body[name] = getattr(self, name)
        return body

    def whole(self) -> dict[str, Any]:
        """The JSON object that Fn keeps in an object store, and v1 then shows: all of the call.

        One that was never prepared to be run has no priority. Attempts and nodes are not in it.
        """
        body = self.wire()
        for ours in ("attempt", "node", "reason", "callback_url", "idempotency_key"):
            body.pop(ours, None)
        if not self.method and not self.priority:
            del body["priority"]
        return body


class CallOnWire(_Call, frozen=True, kw_only=True):
    """A call as it arrives in JSON; ``call()`` checks it."""

    payload: str = ""
    payload_base64: str = ""

    def call(self) -> Call:
        """The call; raises Invalid when its id, a time or its base64 is none."""
        fields = {name: getattr(self, name) for name in Call.__struct_fields__}
        for name in ("created_at", "started_at", "completed_at"):
            try:
                fields[name] = times.normalise(fields[name])
            except ValueError as exc:
                raise InvalidJSON(f"{name}: {exc}") from None
        if not is_id(self.id):
            raise Invalid(f"Call id is not an id: {self.id[:64]!r}")
        fields["payload"] = bytes_from_wire("payload", self.payload, self.payload_base64)
        fields["type"] = self.type or CallType.SYNC
        return Call(**fields)


class LeaseKey(msgspec.Struct, frozen=True):
    """Names one lease: the call's *id* and the secret *token* that its holder was given."""

    id: str = ""
    token: str = ""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What the holder knows of its lease; *ttl* in seconds from when it was given or renewed.

    *age* is the seconds since the call was queued, by the queue's clock (the call's ``created_at``
    is by that of whoever took the call).
    """

    token: str = ""
    attempt: Int32 = 1
    ttl: float = 0.0
    age: float = 0.0


class LeasedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A dequeued call; *lease* is None when an unmodified Fn API node gave it."""

    call: Call
    lease: Lease | None = None

    @property
    def key(self) -> LeaseKey:
        """The name of the lease (an empty token when there is none)."""
        return LeaseKey(self.call.id, self.lease.token if self.lease else "")


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has ended, with its log and, for a queued call, the token of its lease.

    *body* (its beginning, where it is long: *truncated*) and *content_type* are what the function *answered*,
    for a call with a ``callback_url`` or whose result is to be kept.
    """

    call: Call
    log: bytes = b""
    token: str = ""
    body: bytes = b""
    content_type: str = ""
    truncated: bool = False
    answered: bool = False

    @property
    def key(self) -> LeaseKey:
        """The name of its lease (an empty token when there is none)."""
        return LeaseKey(self.call.id, self.token)


def bytes_on_wire(name: str, value: bytes) -> dict[str, str]:
    """``{name: text}``, or ``{name_base64: ...}`` when *value* is not UTF-8 or JSON would swell it."""
    try:
        # A control character takes six bytes: a large value of those would not fit into a request.
        if len(value) < _LARGE or len(value) - len(value.translate(None, _CONTROLS)) < len(value) // 16:
            return {name: value.decode()}
    except UnicodeDecodeError:
        pass
    return {f"{name}_base64": base64.b64encode(value).decode()}


def bytes_from_wire(name: str, text: str, encoded: str) -> bytes:
    """The bytes of a pair of fields; raises Invalid when the base64 one is not base64."""
    if not encoded:
        return text.encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise Invalid(f"{name}_base64: not base64") from None
