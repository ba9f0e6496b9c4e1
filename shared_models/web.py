"""Serving over HTTP: one server for every type of node, and errors as Fn words them.

Handlers are plain coroutines ``async def handler(request) -> web.StreamResponse`` that raise an
``FnError`` for what a client did wrong; routes are lists of ``web.RouteDef`` (``allow_head=False``:
Fn answers HEAD with 405 where only GET is known). Bodies reach handlers as they were sent: nothing
is decompressed, and escapes in paths are decoded once.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from shared_models import cors, env, errors, telemetry, wire

log = logging.getLogger(__name__)
_protocol_log = logging.getLogger(f"{__name__}.protocol")


def _worth_a_line(record: logging.LogRecord) -> bool:
    # Anybody can send what is not HTTP, or hang up before the answer; that must not fill the log.
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | ConnectionError))


_protocol_log.addFilter(_worth_a_line)

FN_VERSION = "0.3.753"
"""The version of Fn whose API this is; the ``fn`` command asks for it."""
JSON = "application/json; charset=utf-8"

COMMON_PATHS = ("/", "/version", "/metrics", "/healthz", "/readyz")
"""What every node answers to GET."""

_LIMIT = web.AppKey("limit", int)
_READ_TIMEOUT = web.AppKey("read_timeout", float)
_STOPPING = web.AppKey("stopping", asyncio.Event)
_MIB = 1 << 20
_NO_METRICS = frozenset({"/metrics", "/healthz", "/readyz"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPSettings:
    """Where a node listens, and what it accepts there."""

    port: int = env.env("FN_PORT", 8080, "Port to listen on; 0 lets the system choose", parse=env.port)
    host: str = env.env("FN_HOST", "0.0.0.0", "Address to listen on")
    max_request_size: int = env.env(
        "FN_MAX_REQUEST_SIZE", 32 * 1024 * 1024, "Largest request body, 0 for no limit", unit="bytes"
    )
    drain: float = env.env(
        "FN_HTTP_DRAIN", 310.0, "How long a node that stops waits for requests in flight", unit="s"
    )
    keep_alive: float = env.env(
        "FN_HTTP_KEEP_ALIVE",
        75.0,
        "How long a connection may be idle, or take to send the head of a request",
        unit="s",
    )
    read_timeout: float = env.env(
        "FN_HTTP_READ_TIMEOUT", 60.0, "Longest silence while a request body is read", unit="s"
    )
    max_header_size: int = env.env(
        "FN_HTTP_MAX_HEADER_SIZE", 16 * 1024, "Largest request line and largest single header", unit="bytes"
    )
    max_headers: int = env.env("FN_HTTP_MAX_HEADERS", 200, "Largest number of headers of a request")
    cors_origins: tuple[str, ...] = env.env(
        "FN_API_CORS_ORIGINS",
        (),
        "Origins whose web pages may ask this node, separated by commas; * for all",
        parse=cors.origins,
    )
    cors_headers: tuple[str, ...] = env.env(
        "FN_API_CORS_HEADERS",
        (),
        "Headers that such pages may send; empty: Origin, Content-Length, Content-Type",
        parse=env.words,
    )


@asynccontextmanager
async def serving(
    routes: Iterable[web.RouteDef],
    settings: HTTPSettings,
    *,
    node_type: str,
    ready: Callable[[], str] = lambda: "",
    middlewares: Sequence[Middleware] = (),
) -> AsyncIterator[int]:
    """A server for *routes* and for those that every node has; yields the port that it listens on.

    *ready* gives the reason why the node is not ready, or "". *middlewares* (of extensions) are around all of
    it, the first one outermost: they see every answer, errors included. When the block ends the node is no
    longer ready, takes no new connections, gives requests in flight ``settings.drain`` seconds, and
    closes. Raises OSError when the address cannot be bound.
    """
    app = _application(routes, settings, node_type, ready, middlewares)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_protocol_log,
        auto_decompress=False,
        keepalive_timeout=settings.keep_alive,
        max_line_size=settings.max_header_size,
        max_field_size=settings.max_header_size,
        max_headers=settings.max_headers,
        shutdown_timeout=settings.drain,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
        port: int = runner.addresses[0][1]
        log.info("%s node listens on %s:%d", node_type, settings.host, port)
        yield port
    finally:
        app[_STOPPING].set()
        await runner.cleanup()


def stopping(request: web.Request) -> asyncio.Event:
    """Set when the node begins to stop: long polls end then."""
    return request.app[_STOPPING]


def client_gone(request: web.Request) -> bool:
    """Whether the connection of *request* is closed: nobody will read the answer."""
    return request.transport is None or request.transport.is_closing()


# -- answers and bodies ------------------------------------------------------------------------


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """*body* (builtins and structs) as JSON with the newline that Fn writes."""
    return web.Response(
        body=wire.encode(body),
        status=status,
        headers={"Content-Type": JSON, **headers} if headers else {"Content-Type": JSON},
    )


def tagged_response(request: web.Request, body: object) -> web.Response:
    """*body* as JSON with its ETag, or 304 when the client has it already."""
    text = wire.encode(body)
    tag = f'"{hashlib.blake2b(text, digest_size=16).hexdigest()}"'
    if tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers={"ETag": tag})
    return web.Response(body=text, headers={"Content-Type": JSON, "ETag": tag})


def error_response(exc: BaseException, *, v1: bool, headers: Mapping[str, str] | None = None) -> web.Response:
    """What a client is told of *exc*: of anything but an FnError, that it was an internal error.

    The body has Fn's words only; what else is known (``detail``) goes into ``Error-Detail``.
    """
    known = exc if isinstance(exc, errors.FnError) else errors.FnError()
    extra = dict(headers or {})
    if known.detail:
        extra["Error-Detail"] = _one_line(known.detail)
    if isinstance(known, errors.Unavailable | errors.TooMany):
        extra["Retry-After"] = str(max(1, math.ceil(known.retry_after)))
    if isinstance(known, errors.Unauthorized):
        extra["WWW-Authenticate"] = "Bearer"
    body: object = {"message": known.message}
    return json_response({"error": body} if v1 else body, known.code, extra)


def is_v1(path: str) -> bool:
    """Whether errors of *path*, or of what is meant by it, have the shape of the v1 API."""
    first = path.lstrip("/").partition("/")[0]
    return first in ("v1", "V1", "r")


async def read_body(request: web.Request) -> bytes:
    """The body as it was sent.

    Raises BodyTooLarge or TooLarge above the server's limit, Invalid when it is cut or malformed,
    TimedOut when the client falls silent.
    """
    if not request.can_read_body:
        return b""
    content, limit = request.content, body_limit(request)
    if content.is_eof() and content.exception() is None:
        # All of it came with the head, as most bodies do: nothing to wait for.
        body = content.read_nowait(-1)
        if limit and len(body) > limit:
            raise _too_large(limit)
        return body
    pieces = [piece async for piece in body_pieces(request)]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def body_limit(request: web.Request) -> int:
    """The largest body in bytes that this server takes, 0 for no limit.

    Runner nodes may send more: what a runner took from a client comes here as text inside of JSON.
    """
    limit = request.app[_LIMIT]
    return 2 * limit + _MIB if limit and request.path.startswith("/v1/runner/") else limit


async def body_pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it arrives; raises what ``read_body`` raises."""
    limit = body_limit(request)
    if limit and (request.content_length or 0) > limit:
        raise errors.BodyTooLarge(request.content_length or 0, limit)
    size, silence = 0, request.app[_READ_TIMEOUT]
    try:
        while True:
            async with asyncio.timeout(silence):
                piece = await request.content.readany()
            if not piece:
                return
            size += len(piece)
            if limit and size > limit:
                raise _too_large(limit)
            yield piece
    except TimeoutError:
        raise errors.TimedOut("Timed out while the request body was read") from None
    except web.RequestPayloadError as exc:
        raise errors.Invalid("Request body cannot be read", detail=str(exc)) from None
    except ConnectionError:
        # Nobody reads the answer; but the call that the body was for has a record.
        raise errors.Invalid("Request body cannot be read", detail="the client hung up") from None


def _too_large(limit: int) -> errors.TooLarge:
    return errors.TooLarge(f"Request body too large for this server, max {limit}")


def runner_refusals() -> list[web.RouteDef]:
    """What a runner node answers to requests that belong to an API node."""
    return [web.route("*", "/v1/{path:.*}", _refuse_management)]


def api_refusals() -> list[web.RouteDef]:
    """What an API node answers to invocations of routes."""
    return [web.route("*", "/r/{path:.*}", _refuse_invocation)]


async def _refuse_invocation(request: web.Request) -> web.StreamResponse:
    raise errors.InvokeOnAPINode


async def _refuse_management(request: web.Request) -> web.StreamResponse:
    raise errors.ManageOnRunnerNode


def _one_line(text: str, limit: int = 300) -> str:
    shown = "".join(char if " " <= char <= "~" else "?" for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


# -- the server --------------------------------------------------------------------------------


def _application(
    routes: Iterable[web.RouteDef],
    settings: HTTPSettings,
    node_type: str,
    ready: Callable[[], str],
    middlewares: Sequence[Middleware],
) -> web.Application:
    async def ping(request: web.Request) -> web.StreamResponse:
        return json_response({"goto": "https://github.com/fnproject/fn", "hello": "world!"})

    async def version(request: web.Request) -> web.StreamResponse:
        return json_response({"version": FN_VERSION})

    async def metrics(request: web.Request) -> web.StreamResponse:
        return web.Response(body=telemetry.exposition(), headers={"Content-Type": telemetry.CONTENT_TYPE})

    async def live(request: web.Request) -> web.StreamResponse:
        return json_response({"status": "ok", "node_type": node_type})

    async def readiness(request: web.Request) -> web.StreamResponse:
        if reason := "The node is stopping" if app[_STOPPING].is_set() else ready():
            return json_response({"message": reason}, 503)
        return json_response({"status": "ready", "node_type": node_type})

    layers = [_guarding, *middlewares, _answering] if middlewares else [_answering]
    app = web.Application(middlewares=layers, client_max_size=0)
    if settings.cors_origins:
        app.middlewares.insert(0, cors.cors(app, settings.cors_origins, settings.cors_headers))
    app[_LIMIT] = settings.max_request_size
    app[_READ_TIMEOUT] = settings.read_timeout
    app[_STOPPING] = asyncio.Event()
    common = zip(COMMON_PATHS, (ping, version, metrics, live, readiness), strict=True)
    app.add_routes([web.get(path, handler, allow_head=False) for path, handler in common])
    app.add_routes(
        web.RouteDef(route.method, route.path, route.handler, {"expect_handler": _expected, **route.kwargs})
        for route in routes
    )
    return app


async def _expected(request: web.Request) -> web.StreamResponse | None:
    """Answers a client that waits before it sends a body: to go on (None), or what it would be told then."""
    v1, expected = is_v1(request.path), request.headers.get("Expect", "")
    if expected.lower() != "100-continue":
        said = {"message": f"Unknown expectation: {_one_line(expected, 80)}"}
        return json_response({"error": said} if v1 else said, 417)
    limit, announced = body_limit(request), request.content_length or 0
    if limit and announced > limit:
        return error_response(errors.BodyTooLarge(announced, limit), v1=v1)
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun
    return None


@web.middleware
async def _answering(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Limits, errors and metrics of every request."""
    started = time.perf_counter()
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
        failure, response = exc, await _unrouted(request, exc)
    except Exception as exc:
        failure, response = exc, _told(request, exc)
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


async def _unrouted(request: web.Request, exc: web.HTTPException) -> web.StreamResponse:
    """The answer to a path, or a method, that no route knows."""
    path, v1 = request.path, is_v1(request.path)
    if exc.status in (404, 405) and (target := await _other_slash(request, exc.status)):
        if request.method == "GET":
            return web.Response(
                status=301,
                text=f'<a href="{html.escape(target)}">Moved Permanently</a>.\n\n',
                content_type="text/html",
                charset="utf-8",
                headers={"Location": target},
            )
        return web.Response(status=307, headers={"Location": target})
    if v1 and exc.status in (404, 405):
        return error_response(errors.NotFound(f"Path not found: {path}"), v1=True)
    if exc.status == 404:
        return error_response(errors.NotFound(f"Path not found: {request.method} {path}"), v1=False)
    if exc.status == 405:
        return json_response({"message": f"Method not allowed: {request.method} {path}"}, 405)
    return json_response({"error": {"message": exc.reason}} if v1 else {"message": exc.reason}, exc.status)


async def _other_slash(request: web.Request, status: int) -> str:
    """The address with the slash at its end taken off, or put on, when that is known for the method; else "".

    It is put on only where other methods are known without it: what is below a path does not make the
    path itself one.
    """
    raw = request.rel_url.raw_path
    if len(raw) < 2 or raw.startswith("//") or (status == 404 and not raw.endswith("/")):
        return ""
    other = raw[:-1] if raw.endswith("/") else raw + "/"
    target = request.rel_url.with_path(other, encoded=True, keep_query=True)
    found = await request.app.router.resolve(request.clone(rel_url=target))
    return str(target) if found.http_exception is None else ""


def _pattern(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def _blame(status: int, failure: Exception | None) -> str:
    at_fault = status < 500 or isinstance(failure, errors.BadFunction | errors.TimedOut)
    return "user" if at_fault or (failure is None and status != 503) else "service"
