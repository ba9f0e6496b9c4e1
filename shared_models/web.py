"""Serving over HTTP: one server for every type of node, and errors as Fn words them.

Handlers are plain coroutines ``async def handler(request) -> web.StreamResponse`` that raise an
``FnError`` for what a client did wrong; routes are lists of ``web.RouteDef`` (``allow_head=False``:
Fn answers HEAD with 405 where only GET is known). Bodies reach handlers as they were sent: nothing
is decompressed, and escapes in paths are decoded once.

A handler goes on to its end when its client hangs up; who would work for nobody asks ``client_gone``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from shared_models import cors, errors, expositions, telemetry
from shared_models.answers import JSON, error_response, is_v1, json_response, one_line, tagged_response
from shared_models.bodies import BODIES, Bodies, body_limit, body_pieces, let_go, read_body
from shared_models.connections import Connections
from shared_models.drain import CUT, finish, stop_listening
from shared_models.fast_exchange import Rest
from shared_models.fast_path import FastPath
from shared_models.http_settings import HTTPSettings
from shared_models.unrouted import api_refusals, runner_refusals, unrouted
from shared_models.workers import Siblings

__all__ = [
    "COMMON_PATHS",
    "FN_VERSION",
    "JSON",
    "HTTPSettings",
    "api_refusals",
    "body_limit",
    "body_pieces",
    "client_gone",
    "error_response",
    "is_v1",
    "json_response",
    "read_body",
    "runner_refusals",
    "serving",
    "stopping",
    "tagged_response",
]

log = logging.getLogger(__name__)
_protocol_log = logging.getLogger(f"{__name__}.protocol")


def _worth_a_line(record: logging.LogRecord) -> bool:
    # Anybody can send what is not HTTP, or hang up before the answer; that must not fill the log.
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | ConnectionError))


_protocol_log.addFilter(_worth_a_line)

FN_VERSION = "0.3.753"
"""The version of Fn whose API this is; the ``fn`` command asks for it."""
COMMON_PATHS = ("/", "/version", "/metrics", "/healthz", "/readyz")
"""What every node answers to GET."""

_LEAVING = web.AppKey("leaving", asyncio.Event)
_STOPPING = web.AppKey("stopping", asyncio.Event)
_BACKLOG = 1024
_NO_METRICS = frozenset({"/metrics", "/healthz", "/readyz"})


@asynccontextmanager
async def serving(
    routes: Iterable[web.RouteDef],
    settings: HTTPSettings,
    *,
    node_type: str,
    ready: Callable[[], str] = lambda: "",
    middlewares: Sequence[Middleware] = (),
    siblings: Siblings | None = None,
    fast_path: FastPath | None = None,
) -> AsyncIterator[int]:
    """A server for *routes* and for those that every node has; yields the port that it listens on.

    *ready* gives the reason why the node is not ready, or "". *middlewares* (of extensions) are around all of
    it, the first one outermost: they see every answer, errors included. With *siblings* they listen on the
    same port, and ``/metrics`` has those of all.

    *fast_path* may take requests before all of that, while the node does not stop and neither middlewares nor
    pages of other origins want to see them.

    When the block ends the node is no longer ready; after ``settings.not_ready``
    seconds, in which it serves on, it takes no new connections, gives requests in flight ``settings.drain``
    seconds, and closes. Raises OSError when the address cannot be bound.
    """
    app = _application(routes, settings, node_type, ready, middlewares, siblings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CUT)
    await runner.setup()
    assert runner.server is not None
    connections = Connections(
        runner.server,
        most=settings.max_connections,
        head_timeout=settings.head_timeout,
        max_head=4 * settings.max_header_size,
        write_timeout=settings.write_timeout,
        access_log=None,
        logger=_protocol_log,
        auto_decompress=False,
        keepalive_timeout=settings.keep_alive,
        max_line_size=settings.max_header_size,
        max_field_size=settings.max_header_size,
        max_headers=settings.max_headers,
    )
    connections.bodies = app[BODIES]
    connections.continued = _continued(app)
    if not (middlewares or settings.cors_origins):
        connections.fast_path = fast_path
    try:
        server = await asyncio.get_running_loop().create_server(
            connections, settings.host, settings.port, backlog=_BACKLOG, reuse_port=siblings is not None
        )
        try:
            port: int = server.sockets[0].getsockname()[1]
            log.info("%s node listens on %s:%d", node_type, settings.host, port)
            yield port
            connections.fast_path = None  # it knows nothing of answers that close their connection
            app[_LEAVING].set()
            await asyncio.sleep(settings.not_ready)
        finally:
            connections.fast_path = None
            app[_LEAVING].set()
            await stop_listening(server, connections)
            app[_STOPPING].set()
            await finish(connections, settings.drain)
    finally:
        await runner.cleanup()


def stopping(request: web.Request) -> asyncio.Event:
    """Set when the node listens no more: long polls end then."""
    return request.app[_STOPPING]


def client_gone(request: web.Request) -> bool:
    """Whether the connection of *request* is closed: nobody will read the answer."""
    return request.transport is None or request.transport.is_closing()


# -- the server --------------------------------------------------------------------------------


def _application(
    routes: Iterable[web.RouteDef],
    settings: HTTPSettings,
    node_type: str,
    ready: Callable[[], str],
    middlewares: Sequence[Middleware],
    siblings: Siblings | None,
) -> web.Application:
    if siblings:
        siblings.answer("metrics", telemetry.exposition)

    async def ping(request: web.Request) -> web.StreamResponse:
        return json_response({"goto": "https://github.com/fnproject/fn", "hello": "world!"})

    async def version(request: web.Request) -> web.StreamResponse:
        return json_response({"version": FN_VERSION})

    async def metrics(request: web.Request) -> web.StreamResponse:
        page = expositions.joined(await siblings.ask("metrics")) if siblings else telemetry.exposition()
        return web.Response(body=page, headers={"Content-Type": telemetry.CONTENT_TYPE})

    async def live(request: web.Request) -> web.StreamResponse:
        return json_response({"status": "ok", "node_type": node_type})

    async def readiness(request: web.Request) -> web.StreamResponse:
        if reason := "The node is stopping" if app[_LEAVING].is_set() else ready():
            return json_response({"message": reason}, 503)
        return json_response({"status": "ready", "node_type": node_type})

    layers = [_guarding, *middlewares, _answering] if middlewares else [_answering]
    app = web.Application(middlewares=layers, client_max_size=0)
    if settings.cors_origins:
        app.middlewares.insert(0, cors.cors(app, settings.cors_origins, settings.cors_headers))
    app.on_response_prepare.append(_closing)
    app[BODIES] = Bodies(
        largest=settings.max_request_size,
        most=settings.max_bodies,
        silence=settings.read_timeout,
        rate=settings.min_rate,
    )
    app[_LEAVING], app[_STOPPING] = asyncio.Event(), asyncio.Event()
    common = zip(COMMON_PATHS, (ping, version, metrics, live, readiness), strict=True)
    app.add_routes([web.get(path, handler, allow_head=False) for path, handler in common])
    app.add_routes(
        web.RouteDef(route.method, route.path, route.handler, {"expect_handler": _expected, **route.kwargs})
        for route in routes
    )
    return app


def _continued(app: web.Application) -> Callable[[Rest], Handler]:
    """Requests that a fast path handed back to a handler: limits, errors and metrics are as of all others."""

    def continued(rest: Rest) -> Handler:
        async def going_on(request: web.Request) -> web.StreamResponse:
            match = await app.router.resolve(request)
            match.add_app(app)
            match.freeze()
            request._match_info = match
            return await _answering(request, rest.handler, rest.began)

        return going_on

    return continued


async def _closing(request: web.Request, response: web.StreamResponse) -> None:
    """On a node that stops every answer is the last one on its connection, and says so."""
    if request.app[_LEAVING].is_set():
        response.headers["Connection"] = "close"
        response.force_close()


async def _expected(request: web.Request) -> web.StreamResponse | None:
    """Answers a client that waits before it sends a body: to go on (None), or what it would be told then."""
    v1, expected = is_v1(request.path), request.headers.get("Expect", "")
    if expected.lower() != "100-continue":
        said = {"message": f"Unknown expectation: {one_line(expected, 80)}"}
        return json_response({"error": said} if v1 else said, 417)
    limit, announced = body_limit(request), request.content_length or 0
    if limit and announced > limit:
        return error_response(errors.BodyTooLarge(announced, limit), v1=v1)
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun
    return None


@web.middleware
async def _answering(request: web.Request, handler: Handler, began: float = 0.0) -> web.StreamResponse:
    """Limits, errors and metrics of every request, which *began* before now if it says so."""
    started = began or time.perf_counter()
    if "traceparent" in request.headers:
        telemetry.join_trace(request.headers)
    failure: Exception | None = None
    try:
        limit = body_limit(request)
        # Routes have words, and a call id, of their own for it.
        if limit and (request.content_length or 0) > limit and not request.path.startswith("/r/"):
            raise errors.BodyTooLarge(request.content_length or 0, limit)
        response = await handler(request)
    except web.HTTPException as exc:
        failure, response = exc, await unrouted(request, exc)
    except Exception as exc:
        failure, response = exc, _told(request, exc)
    finally:
        let_go(request)
    if failure is not None:
        _cut_if_begun(request, failure)
    _observe(request, response, failure, started)
    return response


@web.middleware
async def _guarding(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around the middlewares of extensions, for what they raise: the rest has been answered inside."""
    started = time.perf_counter()
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as exc:
        failure, response = exc, _told(request, exc)
    finally:
        let_go(request)
    _cut_if_begun(request, failure)
    _observe(request, response, failure, started)
    return response


def _told(request: web.Request, exc: Exception) -> web.Response:
    """The answer that tells of *exc*, logged when it is our fault; raises *exc* when the client is gone."""
    if isinstance(exc, ConnectionError) and client_gone(request):
        raise exc
    if not isinstance(exc, errors.FnError):
        log.error("%s %s failed", request.method, _pattern(request), exc_info=exc)
    elif exc.code >= 500 and exc.detail:
        log.warning("%s %s: %s (%s)", request.method, _pattern(request), exc.message, exc.detail)
    return error_response(exc, v1=is_v1(request.path))


def _cut_if_begun(request: web.Request, failure: Exception) -> None:
    if request.writer.output_size:
        # The head of another answer is out: all that is left is to cut it.
        if request.transport is not None:
            request.transport.close()
        raise ConnectionResetError("the answer was cut") from failure


def _observe(
    request: web.Request, response: web.StreamResponse, failure: Exception | None, started: float
) -> None:
    pattern = _pattern(request)
    if pattern in _NO_METRICS:
        return
    telemetry.observe_request(
        request.method,
        pattern,
        response.status,
        _blame(response.status, failure) if response.status >= 400 else "",
        response.headers.get("Fn-Fdk-Version", ""),
        time.perf_counter() - started,
    )


def _pattern(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def _blame(status: int, failure: Exception | None) -> str:
    at_fault = status < 500 or isinstance(failure, errors.BadFunction | errors.TimedOut)
    return "user" if at_fault or (failure is None and status != 503) else "service"
