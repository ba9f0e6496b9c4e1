"""How each request of a node is answered: limits around it, errors as Fn words them, what is counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from opentelemetry.trace import Span, SpanKind

from shared_models import errors, telemetry, tracing
from shared_models.answers import error_response, is_v1, json_response, one_line
from shared_models.bodies import BODIES, Bodies, body_limit, let_go
from shared_models.fast_exchange import Rest
from shared_models.unrouted import unrouted

log = logging.getLogger(__name__)
protocol_log = logging.getLogger(f"{__name__}.protocol")
"""What aiohttp itself has to say."""


def _worth_a_line(record: logging.LogRecord) -> bool:
    # Anybody can send what is not HTTP, or hang up before the answer; that must not fill the log.
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | ConnectionError))


protocol_log.addFilter(_worth_a_line)

_APIS = ("/v1/", "/v2/")
DEBUG_PATH = "/debug/{page}"
_UNCOUNTED = frozenset({"/metrics", "/healthz", "/readyz", "/debug", DEBUG_PATH})


class Stage:
    """How far a node is on its way out."""

    def __init__(self) -> None:
        self.leaving = asyncio.Event()
        """Set when it is not ready any more."""
        self.stopping = asyncio.Event()
        """Set when it listens no more."""


_STAGE = web.AppKey("stage", Stage)


def application(
    routes: Sequence[web.RouteDef], stage: Stage, bodies: Bodies, middlewares: Sequence[Middleware] = ()
) -> web.Application:
    """*routes* as a node answers them; *middlewares* are around all of it, the first one outermost."""
    layers = [_guarding, *middlewares, _answering] if middlewares else [_answering]
    app = web.Application(middlewares=layers, client_max_size=0)
    app.on_response_prepare.append(_closing)
    app[BODIES], app[_STAGE] = bodies, stage
    app.add_routes(
        web.RouteDef(route.method, route.path, route.handler, {"expect_handler": _expected, **route.kwargs})
        for route in routes
    )
    return app


def stopping(request: web.Request) -> asyncio.Event:
    """Set when the node listens no more: long polls end then."""
    return request.app[_STAGE].stopping


def client_gone(request: web.Request) -> bool:
    """Whether the connection of *request* is closed: nobody will read the answer."""
    return request.transport is None or request.transport.is_closing()


def continued(app: web.Application) -> Callable[[Rest], Handler]:
    """Requests that a fast path handed back to a handler: limits, errors and metrics are as of all others."""

    def going_on(rest: Rest) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            match = await app.router.resolve(request)
            match.add_app(app)
            match.freeze()
            request._match_info = match
            return await _answering(request, rest.handler, rest.began)

        return handle

    return going_on


async def _closing(request: web.Request, response: web.StreamResponse) -> None:
    """On a node that stops every answer is the last one on its connection, and says so."""
    if request.app[_STAGE].leaving.is_set():
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
    if tracing.is_told(request.headers):
        tracing.join(request.headers)
    span = _span(request) if tracing.on else None
    failure: Exception | None = None
    try:
        limit = body_limit(request)
        # Routes have words, and a call id, of their own for it.
        if limit and (request.content_length or 0) > limit and not request.path.startswith("/r/"):
            raise errors.BodyTooLarge(request.content_length or 0, limit)
        if span is None:
            response = await handler(request)
        else:
            with tracing.within(span):
                response = await handler(request)
    except web.HTTPException as exc:
        failure, response = exc, await unrouted(request, exc)
    except Exception as exc:
        failure, response = exc, _told(request, exc)
    finally:
        let_go(request)
        if span:
            span.end()
    if failure is not None:
        _cut_if_begun(request, failure)
    _observe(request, response, failure, started)
    return response


def _span(request: web.Request) -> Span | None:
    """Of a request to the APIs, by whoever is traced; calls have spans of their own."""
    if not request.path.startswith(_APIS) or not (parent := tracing.current()):
        return None
    pattern = _pattern(request)
    span = tracing.begin(f"{request.method} {pattern}", SpanKind.SERVER, parent=parent)
    if span:
        span.set_attributes({"http.request.method": request.method, "http.route": pattern})
    return span


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
    if pattern in _UNCOUNTED:
        return
    if telemetry.log_requests:
        telemetry.log_request(
            request.method, request.path, response.status, time.perf_counter() - started,
            response.headers.get("Fn-Call-Id", ""),
        )  # fmt: skip
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
