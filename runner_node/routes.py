"""``/r/{app}/{route...}``: functions as Fn's first API knows them, sync and async. Errors have v1's shape."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from runner_node import calls, content_type
from runner_node.agent import Agent
from runner_node.call_trace import enqueued, enqueuing, told_of
from runner_node.durations import go_duration
from runner_node.function_socket import Body
from runner_node.guard import Guard
from runner_node.hot_container import StartFailed
from runner_node.job import Job, route_job
from runner_node.protocols.cloudevent import CloudEventFormat, is_event
from runner_node.protocols.http_stream import Header, Response
from runner_node.request_body import sync_body
from runner_node.to_client import ToClient
from runner_node.wishes import NO_WISHES, Wishes, foreign, wishes_of
from shared_models import errors, times, tracing
from shared_models.app import App
from shared_models.call import Call, CallType
from shared_models.config import Headers, canonical_header
from shared_models.ids import new_id, time_of
from shared_models.invoke_policy import private
from shared_models.route import Route, clean_path
from shared_models.web import body_limit, client_gone, error_response, json_response, read_body

CALL_ID = "Fn_call_id"
WAIT = "Xxx-Fxlb-Wait"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
TOO_LARGE_RETRY = 15.0
"""Seconds after which to ask again for a route that this runner has no room for: what Fn says."""


async def _in_routes_words(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for piece in body:
            yield piece
    except errors.TooLarge:
        raise errors.RequestTooLarge from None


def route_routes(agent: Agent, guard: Guard) -> list[web.RouteDef]:
    """The URL table of routes."""

    async def invoke(request: web.Request) -> web.StreamResponse:
        if request.method not in METHODS:
            raise errors.NotFound(f"Path not found: {request.path}")
        visit = await guard.visit(request)
        app = await agent.data.app(await agent.data.app_id(request.match_info["app"]))
        route = await agent.data.route(app.id, clean_path(request.match_info["path"] or "/"))
        theirs = await visit.admitted(app, private=private(app.annotations, route.annotations))
        return await _Invocation(agent, request, app, route, theirs).answer()

    return [web.route("*", "/r/{app}{path:(?:/.*)?}", invoke)]


class _Invocation:
    """One request to a route."""

    def __init__(
        self, agent: Agent, request: web.Request, app: App, route: Route, theirs: Iterable[Header]
    ) -> None:
        self._agent = agent
        self._request = request
        self._route = route
        self._headers: list[Header] = [
            (canonical_header(name), value) for name, value in foreign(theirs) if name.lower() != "host"
        ]
        self._target = agent.route_target(route, app, self._format())
        self._is_async = route.type == CallType.ASYNC
        self._begun = False
        kept: Headers = {}
        for name, value in self._headers:
            kept.setdefault(name, []).append(value)
        self._call = Call(
            id=new_id(), app_id=app.id, path=route.path, image=route.image, type=route.type,
            format=self._target.format.name if self._target.format else calls.HTTP_STREAM,
            url=f"{request.scheme}://{request.host}{request.raw_path}", method=request.method,
            timeout=route.timeout, idle_timeout=route.idle_timeout, tmpfs_size=route.tmpfs_size,
            memory=route.memory, cpus=route.cpus, config=self._target.env, headers=kept,
            annotations=self._target.annotations, syslog_url=app.syslog_url or "", created_at=times.now(),
        )  # fmt: skip

    def _format(self) -> str:
        """The route's format, unless the request is an event: those have a format of their own."""
        if is_event(self._request.headers.get("Content-Type", "")):
            return CloudEventFormat.name
        return self._route.format

    async def answer(self) -> web.StreamResponse:
        """Runs or queues the call; what is refused carries the call's id all the same."""
        try:
            self._must_fit()
            wishes = wishes_of(self._request.headers) if self._is_async else NO_WISHES
            body = await self._body()
            if isinstance(body, bytes) and self._is_async:
                return await self._queued(body, wishes)
            return await self._run(body)
        except errors.FnError as exc:
            if self._begun:
                raise  # the server cuts the answer
            return self._refusal(exc)

    def _must_fit(self) -> None:
        target, resources = self._target, self._agent.scheduler.resources
        if not resources.ever_fits(target.memory, target.cpus):
            # Fn's words; what does not fit, and into what, is said beside them.
            raise errors.ServerBusy(
                detail=f"the route needs {target.memory >> 20} MB and {target.cpus} mCPU, this runner has "
                f"{resources.memory >> 20} MB and {resources.cpus} mCPU",
                retry_after=TOO_LARGE_RETRY,
            )

    async def _body(self) -> Body:
        limit, announced = body_limit(self._request), self._request.content_length
        if limit and announced is not None and announced > limit:
            raise errors.RequestTooLarge
        try:
            if self._is_async or self._target.format is not None:
                return await read_body(self._request)
            body = await sync_body(self._request, self._agent.settings.stream_above)
        except errors.TooLarge:
            raise (errors.InvalidPayload if self._is_async else errors.RequestTooLarge) from None
        return body if isinstance(body, bytes) else _in_routes_words(body)

    async def _queued(self, body: bytes, wishes: Wishes) -> web.StreamResponse:
        call = wishes.of(msgspec.structs.replace(self._call, payload=body))
        span = enqueuing() if tracing.on else None
        if span:
            call = msgspec.structs.replace(call, headers=told_of(span, call.headers))
        call_id = await enqueued(self._agent, call, self._target, span)
        # For a key that was seen before it is that of an earlier call.
        self._call = msgspec.structs.replace(call, id=call_id)
        answer = json_response({"call_id": call_id}, 202)
        self._add_own_headers(answer.headers, content_type_too=False)
        return answer

    async def _run(self, body: Body) -> web.StreamResponse:
        job = route_job(self._call, self._target, self._headers, body)
        sink = job.sink = ToClient(self._request, lambda response: self._head(response, job))
        job.patience = self._agent.settings.slot_wait
        job.left = lambda: client_gone(self._request)
        try:
            response = await self._agent.run(job)
        except StartFailed as failure:
            return self._refusal(failure.error)
        except errors.FnError as exc:
            if sink.answer is not None:
                self._begun = True
                sink.spoil()
                raise
            return self._refusal(exc, job)
        if sink.answer is not None:
            return sink.answer
        status, headers = self._head(response, job)
        return web.Response(status=status, headers=headers, body=response.body)

    def _head(self, response: Response, job: Job) -> tuple[int, CIMultiDict[str]]:
        headers: CIMultiDict[str] = CIMultiDict()
        self._add_own_headers(headers, content_type_too=True)
        self._add_wait(headers, job)
        if response.content_type_wins:
            headers.popall("Content-Type", None)
        for name, value in response.headers:
            if name.lower() != "content-length":
                headers.add(canonical_header(name), value)
        if "Content-Type" not in headers and response.status not in (204, 304):
            brace = response.body.startswith(b"{")
            headers["Content-Type"] = (
                "application/json; charset=utf-8" if brace else content_type.detect(response.body)
            )
        return response.status, headers

    def _refusal(self, exc: errors.FnError, job: Job | None = None) -> web.StreamResponse:
        answer = error_response(exc, v1=True)
        if isinstance(exc, errors.ImagePullFailed) and exc.code == errors.BadFunction.status:
            answer.set_status(500)  # what Fn says when the registry gave no status of its own
        self._add_own_headers(answer.headers, content_type_too=False)
        if job:
            self._add_wait(answer.headers, job)
        return answer

    def _add_own_headers(self, headers: CIMultiDict[str], *, content_type_too: bool) -> None:
        headers.add(CALL_ID, self._call.id)
        for name, values in self._route.headers.items():
            if content_type_too or name.lower() != "content-type":
                for value in values:
                    headers.add(name, value)

    def _add_wait(self, headers: CIMultiDict[str], job: Job) -> None:
        if job.started:
            waited = max(job.started - time_of(self._call.id), 0.0)
            headers.add(WAIT, go_duration(int(waited * 1e9) or 1))
