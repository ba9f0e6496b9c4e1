"""Where clients call functions: ``POST /invoke/{fn_id}``, any method on ``/t/{app}/{source}``, and routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable

from aiohttp import web
from multidict import CIMultiDict

from runner_node import content_type
from runner_node.agent import Agent
from runner_node.call_trace import enqueued, enqueuing
from runner_node.calls import Target
from runner_node.guard import Guard
from runner_node.hot_container import StartFailed
from runner_node.job import Job
from runner_node.protocols.http_stream import Header, Response, header_text, passes
from runner_node.request_body import sync_body
from runner_node.routes import route_routes
from runner_node.to_client import ToClient
from runner_node.wishes import foreign, wishes_of
from shared_models import errors, times, tracing
from shared_models.call import Call, CallType
from shared_models.config import Headers, canonical_header
from shared_models.fast_path import Handler
from shared_models.ids import new_id
from shared_models.trigger import HTTP
from shared_models.web import client_gone, error_response, json_response, read_body

Shape = Callable[[Response], tuple[int, list[Header]]]
"""How a function's answer becomes a client's: status, and the headers that are let through."""

CALL_ID = "Fn-Call-Id"
_PREFIX = "fn-http-h-"
_STATUS = re.compile(r"[2-9][0-9]{2}")
_NOT_FROM_FUNCTIONS = frozenset({"content-length", "fn-call-id"})


def invoke_routes(agent: Agent, guard: Guard | None = None) -> list[web.RouteDef]:
    """The URL table of a node that runs functions. Without a *guard* nobody may call what is private."""
    guard = guard or Guard()

    async def invoke(request: web.Request) -> web.StreamResponse:
        visit = await guard.visit(request)
        fn = await agent.data.fn(request.match_info["fn_id"])
        app = await agent.data.app(fn.app_id)
        target = agent.target(fn, app)
        theirs = await visit.admitted(app, private=target.private)
        headers = foreign((name, value) for name, value in theirs if passes(name, value))
        if request.headers.get("Fn-Invoke-Type") == "detached":
            return await _detached(agent, request, target, headers)
        call = call_of(target)
        return await _sync(agent, request, call, target, headers, as_invoked)

    async def trigger(request: web.Request) -> web.StreamResponse:
        visit = await guard.visit(request)
        source = request.match_info["source"] or "/"
        found = await agent.data.trigger(request.match_info["app"], HTTP, source)
        target = agent.target(found.fn, found.app)
        theirs = await visit.admitted(found.app, private=target.private)
        call = call_of(target, trigger_id=found.trigger.id)
        return await _sync(agent, request, call, target, _as_gateway(request, theirs), _unwrapped)

    return [
        web.post("/invoke/{fn_id}", invoke),
        web.route("*", "/t/{app}{source:(?:/.*)?}", trigger),
        *route_routes(agent, guard),
    ]


def call_of(target: Target, *, trigger_id: str = "", type_: str = CallType.SYNC) -> Call:
    """A new call of *target*'s function."""
    return Call(
        id=new_id(), app_id=target.app_id, fn_id=target.fn_id, trigger_id=trigger_id, type=type_,
        created_at=times.now(), attempt=1,
    )  # fmt: skip


def as_invoked(response: Response) -> tuple[int, list[Header]]:
    """What a client of ``/invoke`` is told."""
    # Fn passes on a call id that the function made up, behind the real one; so do we.
    return 200, [(name, value) for name, value in response.headers if name.lower() != "content-length"]


def _unwrapped(response: Response) -> tuple[int, list[Header]]:
    """Of a trigger's answer: its own status, content type, and what carries the gateway's prefix."""
    status, given = 200, ""
    headers: list[Header] = []
    for name, value in response.headers:
        lower = name.lower()
        if lower == "content-type":
            given = value
        elif lower == "fn-http-status":
            status = int(value) if _STATUS.fullmatch(value) else status
        elif lower.startswith(_PREFIX) and len(lower) > len(_PREFIX):
            bare = name[len(_PREFIX) :]
            if bare.lower() not in _NOT_FROM_FUNCTIONS and passes(bare, value):
                headers.append((canonical_header(bare), value))
    if given:
        headers = [(name, value) for name, value in headers if name != "Content-Type"]
        headers.append(("Content-Type", given))
    return status, headers


def _as_gateway(request: web.Request, theirs: Iterable[Header]) -> list[Header]:
    """The client's headers, prefixed, and what the function is to know of the request."""
    headers: list[Header] = []
    for name, value in foreign(theirs):
        lower = name.lower()
        if lower == "content-type":
            headers.append((name, value))
        elif lower != "host" and passes(name, value):
            headers.append((f"Fn-Http-H-{canonical_header(name)}", value))
    path = request.raw_path
    url = path if path.startswith("http") else f"{request.scheme}://{request.host}{path}"
    headers += [
        ("Fn-Http-Method", request.method),
        ("Fn-Http-Request-Url", url),
        ("Fn-Intent", "httprequest"),
    ]
    return headers


async def _sync(
    agent: Agent, request: web.Request, call: Call, target: Target, headers: list[Header], shape: Shape
) -> web.StreamResponse:
    """Runs the call. A client that hangs up before it has a container is the end of it; a call that the
    function has got goes on to its end, and its record says how it ended."""
    try:
        body = await sync_body(request, agent.settings.stream_above)
    except errors.ServerBusy as exc:
        return error_response(exc, v1=False, headers={CALL_ID: call.id})
    job = Job(
        call=call, target=target, headers=headers, body=body, sync=True,
        patience=agent.settings.slot_wait, left=lambda: client_gone(request),
    )  # fmt: skip
    return await told(job, shape, agent.run(job))(request)


def told(job: Job, shape: Shape, answer: Coroutine[None, None, Response]) -> Handler:
    """Answers a client with what comes of *answer*: at once, or in pieces where *job* gives it so."""
    call_id = job.call.id

    async def telling(request: web.Request) -> web.StreamResponse:
        job.sink = sink = ToClient(request, lambda response: _head(call_id, shape(response), response.body))
        try:
            response = await answer
        except StartFailed as failure:
            return error_response(failure.error, v1=False, headers={CALL_ID: call_id})
        except errors.FnError as exc:
            if sink.answer is not None:
                sink.spoil()
                raise  # the answer has begun, the server cuts it
            return error_response(exc, v1=False, headers={CALL_ID: call_id})
        if sink.answer is not None:
            return sink.answer
        status, out = _head(call_id, shape(response), response.body)
        return web.Response(status=status, headers=out, body=response.body)

    return telling


def _head(call_id: str, shaped: tuple[int, list[Header]], body: bytes) -> tuple[int, CIMultiDict[str]]:
    status, headers = shaped
    out: CIMultiDict[str] = CIMultiDict([(CALL_ID, call_id), *headers])
    if body and "Content-Type" not in out:
        out["Content-Type"] = content_type.detect(body)
    return status, out


def _as_text(value: str) -> str:
    """What aiohttp read, bytes that are not UTF-8 included, as text that can be stored and sent as JSON."""
    return value if value.isascii() else header_text(value.encode("utf-8", "surrogateescape"))


async def _detached(
    agent: Agent, request: web.Request, target: Target, headers: list[Header]
) -> web.StreamResponse:
    """Accepts the call: when the client reads 202, it is recorded and durably queued.

    Its id is then that under which it was accepted: an earlier one for a key that was seen before.
    """
    wishes = wishes_of(request.headers)
    payload = await read_body(request)
    span = enqueuing() if tracing.on else None
    if span:
        headers = tracing.below(span, headers)
    kept: Headers = {}
    for name, value in headers:
        if name.lower() not in ("host", "content-length"):
            kept.setdefault(canonical_header(name), []).append(_as_text(value))
    call = Call(
        id=new_id(), app_id=target.app_id, fn_id=target.fn_id, type=CallType.DETACHED, image=target.image,
        format="http-stream", payload=payload, method=request.method, timeout=int(target.timeout),
        idle_timeout=int(target.idle_timeout), memory=target.memory >> 20, headers=kept,
        annotations=target.annotations, created_at=times.now(),
        url=_as_text(f"{request.scheme}://{request.host}{request.raw_path}"),
    )  # fmt: skip
    try:
        call_id = await enqueued(agent, wishes.of(call), target, span)
    except errors.FnError as exc:
        return error_response(exc, v1=False, headers={CALL_ID: call.id})
    return json_response({"call_id": call_id}, 202, {CALL_ID: call_id})
