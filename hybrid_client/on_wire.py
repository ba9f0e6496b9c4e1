"""What goes over the wire between a runner node and its API node, as structs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from shared_models import errors
from shared_models.app import App
from shared_models.call import CallOnWire, Finished, Lease, LeasedCall, LeaseKey, bytes_on_wire
from shared_models.fn import Fn
from shared_models.route import Route
from shared_models.trigger import Trigger

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ITEMS = 500
MAX_BYTES = 4 * 1024 * 1024
"""Most items, and most bytes of logs, in one request."""


class AppInEnvelope(msgspec.Struct, frozen=True):
    app: App = App()


class RouteInEnvelope(msgspec.Struct, frozen=True):
    route: Route = Route()


class TriggerOnWire(msgspec.Struct, frozen=True):
    trigger: Trigger = Trigger()
    fn: Fn = Fn()
    app: App = App()


class LeasedOnWire(CallOnWire, frozen=True, kw_only=True):
    lease: Lease | None = None


class CallsOnWire(msgspec.Struct, frozen=True):
    calls: list[LeasedOnWire] = []


class Lost(msgspec.Struct, frozen=True):
    lost: list[str] = []


class NotStarted(msgspec.Struct, frozen=True):
    """Leases of a batch that are not held any more."""

    lost: list[LeaseKey] = []


class Accepted(msgspec.Struct, frozen=True):
    """The id under which a call was accepted; older API nodes do not say it."""

    call_id: str = ""


class Refused(msgspec.Struct, frozen=True):
    refused: list[str] = []


class State(msgspec.Struct, frozen=True):
    state: str = ""


def leased_calls(found: Sequence[LeasedOnWire]) -> list[LeasedCall]:
    """The calls of a dequeue; one that cannot be read is left out."""
    calls = []
    for one in found:
        try:
            calls.append(LeasedCall(call=one.call(), lease=one.lease))
        except errors.Invalid as exc:
            # Its lease runs out, and another runner may understand it.
            log.error("the API node handed out a call that cannot be read: %s", exc.message)
    return calls


def split(items: Sequence[T], size: Callable[[T], int] = lambda item: 0) -> Iterator[list[T]]:
    """*items* in parts that an API node takes in one request; one large item may be a part of its own."""
    part: list[T] = []
    total = 0
    for item in items:
        if part and (len(part) >= MAX_ITEMS or total + size(item) > MAX_BYTES):
            yield part
            part, total = [], 0
        part.append(item)
        total += size(item)
    if part:
        yield part


def started_on_wire(leased: LeasedCall) -> dict[str, object]:
    """What an API node needs to know of a call that starts."""
    call = leased.call
    return {
        "id": call.id, "timeout": call.timeout, "started_at": call.started_at, "lease": leased.lease,
    }  # fmt: skip


def finished_on_wire(one: Finished) -> dict[str, object]:
    """One result of a batch."""
    # The payload has done its work: it is not kept, and would only make the request large.
    call = msgspec.structs.replace(one.call, payload=b"")
    body: dict[str, object] = {"call": call.wire(), **bytes_on_wire("log", one.log)}
    if one.token:
        body["lease"] = {"token": one.token}
    if one.body or one.answered:
        body.update(bytes_on_wire("body", one.body))
    if one.content_type:
        body["content_type"] = one.content_type
    if one.truncated:
        body["truncated"] = True
    return body
