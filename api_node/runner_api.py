"""``/v1/runner``: DataAccess for runner nodes. Decodes, calls it, encodes; nothing else.

The contract is docs/hybrid-protocol.md; what Fn 0.3.484's own runners send is a part of it
(api/server/hybrid.go).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

import msgspec
from aiohttp import web

from shared_models import errors, times, wire
from shared_models.call import (
    FINAL,
    CallOnWire,
    Finished,
    Lease,
    LeasedCall,
    LeaseKey,
    bytes_from_wire,
)
from shared_models.ids import is_id
from shared_models.interfaces import DataAccess
from shared_models.route import clean_path
from shared_models.runner import RunnerReport
from shared_models.trigger import HTTP
from shared_models.web import client_gone, json_response, read_body, stopping, tagged_response

log = logging.getLogger(__name__)

MAX_WAIT = 30.0
"""Longest long poll in seconds."""
MAX_BATCH = 1000
"""Most calls, leases or results in one request."""
MAX_WITHOUT = 100
"""Most functions that a runner may pass over."""
_GLANCE = 0.5
"""Seconds between two looks at whether the client of a long poll is still there."""


class _Start(CallOnWire, frozen=True, kw_only=True):
    lease: Lease | None = None


class _Starts(msgspec.Struct, frozen=True, kw_only=True):
    starts: list[_Start] = []


class _Leases(msgspec.Struct, frozen=True, kw_only=True):
    leases: list[LeaseKey] = []


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    call: CallOnWire = CallOnWire()
    log: str = ""
    log_base64: str = ""
    lease: Lease | None = None
    body: str | None = None
    body_base64: str = ""
    content_type: str = ""
    truncated: bool = False

    def finished(self) -> Finished:
        call = self.call.call()
        if call.status not in FINAL:
            raise errors.Invalid(f"call.status: must be one of {', '.join(sorted(FINAL))}")
        text = bytes_from_wire("log", self.log, self.log_base64)
        return Finished(
            call=call,
            log=text,
            token=self.lease.token if self.lease else "",
            body=bytes_from_wire("body", self.body or "", self.body_base64),
            content_type=self.content_type,
            truncated=self.truncated,
            # An empty answer is one, too; of a call without any there is no body.
            answered=self.body is not None or bool(self.body_base64),
        )


class _Finish(_Result, frozen=True, kw_only=True):
    finished_calls: list[_Result] | None = msgspec.field(default=None, name="finished")


class RunnerAPI:
    """Handlers of what runner nodes ask."""

    def __init__(self, data: DataAccess) -> None:
        self._data = data

    # -- look-ups ------------------------------------------------------------------------------

    async def app(self, request: web.Request) -> web.StreamResponse:
        app = await self._data.app(request.match_info["app_id"])
        return tagged_response(request, {"message": "Successfully loaded app", "app": app.wire()})

    async def route(self, request: web.Request) -> web.StreamResponse:
        path = clean_path(request.match_info["path"])
        route = await self._data.route(request.match_info["app_id"], path)
        return tagged_response(request, {"message": "Successfully loaded route", "route": route.wire()})

    async def fn(self, request: web.Request) -> web.StreamResponse:
        return tagged_response(request, (await self._data.fn(request.match_info["fn_id"])).wire())

    async def trigger(self, request: web.Request) -> web.StreamResponse:
        app, source = request.query.get("app", ""), request.query.get("source", "")
        if not app or not source:
            raise errors.Invalid("app and source: must both be given")
        found = await self._data.trigger(app, request.query.get("type", HTTP), source)
        return tagged_response(
            request, {"trigger": found.trigger.wire(), "fn": found.fn.wire(), "app": found.app.wire()}
        )

    # -- the life of a queued call -------------------------------------------------------------

    async def enqueue(self, request: web.Request) -> web.StreamResponse:
        return json_response({"msg": "enqueued call", "call_id": await self._enqueued(request)})

    async def enqueue_for_fn(self, request: web.Request) -> web.StreamResponse:
        """In the words that Fn's runners know."""
        await self._enqueued(request)
        return json_response({"msg": "enqueued call"})

    async def _enqueued(self, request: web.Request) -> str:
        call = wire.decode(await read_body(request), CallOnWire).call()
        if not 0 <= call.priority <= 2:
            raise errors.Invalid("priority: must be 0, 1 or 2")
        if call.delay < 0:
            raise errors.Invalid("delay: must not be negative")
        return await self._data.enqueue(call)

    async def dequeue(self, request: web.Request) -> web.StreamResponse:
        limit = int(_number(request, "max", 1))
        wait = _number(request, "wait", MAX_WAIT)
        if limit < 1:
            raise errors.Invalid("max: must be at least 1")
        without = _ids(request, "without")
        leased = await self._leased(request, min(limit, MAX_BATCH), min(wait, MAX_WAIT), without)
        return await self._hand_over(request, leased, [_leased_on_wire(one) for one in leased])

    async def dequeue_one(self, request: web.Request) -> web.StreamResponse:
        """For Fn's runners: one call, which they start and finish without naming a lease."""
        leased = await self._leased(request, 1, MAX_WAIT)
        calls = [msgspec.structs.replace(one.call, attempt=0, node="").wire() for one in leased]
        return await self._hand_over(request, leased, calls)

    async def start(self, request: web.Request) -> web.StreamResponse:
        body = wire.decode(await read_body(request), _Start)
        await self._data.start(LeasedCall(call=body.call(), lease=body.lease))
        return json_response({"msg": "slingshot: engage"})

    async def starts(self, request: web.Request) -> web.StreamResponse:
        """Many in one: those whose leases are lost are told, and the others may run."""
        starts = wire.decode(await read_body(request), _Starts).starts
        _check_size("starts", starts)
        batch = [LeasedCall(call=one.call(), lease=one.lease) for one in starts]
        outcomes = await asyncio.gather(*map(self._data.start, batch), return_exceptions=True)
        lost = []
        for one, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, errors.LeaseLost):
                lost.append(one.key)
            elif outcome is not None:
                raise outcome
        return json_response({"lost": lost})

    async def extend(self, request: web.Request) -> web.StreamResponse:
        return json_response({"lost": await self._data.extend(await _keys(request))})

    async def release(self, request: web.Request) -> web.StreamResponse:
        await self._data.release(await _keys(request))
        return json_response({"msg": "released"})

    async def finish(self, request: web.Request) -> web.StreamResponse:
        body = wire.decode(await read_body(request), _Finish)
        results = [body] if body.finished_calls is None else body.finished_calls
        _check_size("finished", results)
        refused = await self._data.finish([result.finished() for result in results])
        answer: dict[str, object] = {"msg": "good night, sweet prince"}
        if refused:
            answer["refused"] = refused
        return json_response(answer)

    async def wanted(self, request: web.Request) -> web.StreamResponse:
        since = request.query.get("since", "")
        try:
            since = since and times.normalise(since)
        except ValueError as exc:
            raise errors.Invalid(f"since: {exc}") from None
        return tagged_response(request, await self._data.wanted(since))

    async def heartbeat(self, request: web.Request) -> web.StreamResponse:
        report = wire.decode(await read_body(request), RunnerReport)
        if not report.id or len(report.id) > 255:
            raise errors.Invalid("id: must be the name of the node, of at most 255 characters")
        return json_response({"state": await self._data.heartbeat(report)})

    # -- handing calls out ---------------------------------------------------------------------

    async def _leased(
        self, request: web.Request, limit: int, wait: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        """Waits for calls; ends early when the client goes away or the node stops."""
        node = request.query.get("node", "")
        poll = asyncio.create_task(self._data.dequeue(node, limit, wait, without), name="long poll")
        stop = asyncio.create_task(stopping(request).wait(), name="long poll: stop")
        try:
            while not (poll.done() or stop.done() or client_gone(request)):
                await asyncio.wait({poll, stop}, timeout=_GLANCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            poll.cancel()
        await asyncio.wait({poll, stop})
        return [] if poll.cancelled() else poll.result()

    async def _hand_over(
        self, request: web.Request, leased: Sequence[LeasedCall], calls: Sequence[object]
    ) -> web.StreamResponse:
        """Answers with *calls*; those that nobody is there to take go back at once."""
        response = json_response({"calls": calls})
        try:
            if client_gone(request):
                raise ConnectionResetError("the client of a long poll went away")
            await response.prepare(request)
            await response.write_eof()
        except OSError:
            if leased:
                log.info("gives %d calls back: the runner that asked is gone", len(leased))
                await self._data.release([one.key for one in leased])
        return response


def _leased_on_wire(leased: LeasedCall) -> dict[str, object]:
    body: dict[str, object] = leased.call.wire()
    if leased.lease:
        body["lease"] = leased.lease
    return body


def _number(request: web.Request, name: str, default: float) -> float:
    text = request.query.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise errors.Invalid(f"{name}: must be a number that is not negative")
    return value


def _ids(request: web.Request, name: str) -> list[str]:
    ids = [one for one in request.query.get(name, "").split(",") if one]
    if len(ids) > MAX_WITHOUT or not all(map(is_id, ids)):
        raise errors.Invalid(f"{name}: must be ids separated by commas, {MAX_WITHOUT} at most")
    return ids


async def _keys(request: web.Request) -> list[LeaseKey]:
    keys = wire.decode(await read_body(request), _Leases).leases
    _check_size("leases", keys)
    for key in keys:
        if not is_id(key.id):
            raise errors.Invalid("leases: each must have the id of a call")
    return keys


def _check_size(name: str, items: Sequence[object]) -> None:
    if len(items) > MAX_BATCH:
        raise errors.Invalid(f"{name}: at most {MAX_BATCH} in one request")
