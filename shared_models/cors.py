"""Cross-origin requests: which web pages may ask a node, as Fn's servers let them (0.3.484).

A request with an ``Origin`` that is neither listed nor the node's own gets a bare 403. A preflight is
answered for any path, before anything else looks at it.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from shared_models.env import words

ANY = "*"
METHODS = "GET,POST,PUT,PATCH,HEAD,DELETE"
HEADERS = ("Origin", "Content-Length", "Content-Type")
"""Headers that a page may send when the settings name none."""
MAX_AGE = 12 * 3600
"""Seconds for which a browser may remember the answer to a preflight."""


def origins(text: str) -> tuple[str, ...]:
    """Origins like ``https://console.example``, separated by commas or space; or ``*`` alone for all."""
    found = words(text)
    for one in found:
        if one != ANY and not _is_origin(one):
            raise ValueError("must be origins like https://console.example, or *")
    if ANY in found and len(found) > 1:
        raise ValueError("must be * alone, or no * at all")
    return found


def cors(app: web.Application, allowed: tuple[str, ...], headers: tuple[str, ...]) -> Middleware:
    """The middleware for *allowed* origins, and what adds to the answers of *app* that they may be read."""
    named = ",".join(headers or HEADERS)

    async def admit(request: web.Request, response: web.StreamResponse) -> None:
        origin = _foreign(request)
        if origin and ANY in allowed:
            response.headers["Access-Control-Allow-Origin"] = ANY
        elif origin in allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers.add("Vary", "Origin")
            if request.method == "OPTIONS":
                response.headers.add("Vary", "Access-Control-Request-Method")
                response.headers.add("Vary", "Access-Control-Request-Headers")

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = _foreign(request)
        if not origin:
            return await handler(request)
        if origin not in allowed and ANY not in allowed:
            return web.Response(status=403)
        return preflight() if request.method == "OPTIONS" else await handler(request)

    def preflight() -> web.Response:
        answer = web.Response()
        answer.headers["Access-Control-Allow-Methods"] = METHODS
        answer.headers["Access-Control-Allow-Headers"] = named
        answer.headers["Access-Control-Max-Age"] = str(MAX_AGE)
        return answer

    # By the signal, not in the middleware: the head of a streamed answer is out before that sees it.
    app.on_response_prepare.append(admit)
    return guard


def _is_origin(text: str) -> bool:
    try:
        url = URL(text)
        return url.scheme in ("http", "https") and bool(url.host) and str(url.origin()) == text
    except ValueError:
        return False


def _foreign(request: web.Request) -> str:
    """The origin of a page that is not this node's own, else ""."""
    origin = request.headers.get("Origin", "")
    return "" if origin in (f"http://{request.host}", f"https://{request.host}") else origin
