"""Bodies of requests: within their limits of size, time and speed, and within what the node holds of all.

A client that falls silent is timed out, and so is one that goes on sending next to nothing; only time spent
waiting for the client counts, not the time that a function takes to read what has arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web

from shared_models import errors

_MIB = 1 << 20


@dataclass(slots=True, kw_only=True)
class Bodies:
    """What a server accepts, and *held*: what it has of the bodies of all requests now. 0 is no limit.

    *largest* and *most* in bytes, for one and for all; *silence* in seconds; *rate* in bytes a second.
    """

    largest: int
    most: int
    silence: float
    rate: int
    held: int = 0
    by_request: dict[int, int] = field(default_factory=dict)


BODIES = web.AppKey("bodies", Bodies)


async def read_body(request: web.Request) -> bytes:
    """The body as it was sent.

    Raises BodyTooLarge or TooLarge above the server's limit, Invalid when it is cut or malformed,
    TimedOut when the client falls silent or is too slow, ServerBusy when too much is held of others.
    """
    if not request.can_read_body:
        return b""
    content, limit = request.content, body_limit(request)
    if content.is_eof() and content.exception() is None:
        # All of it came with the head, as most bodies do: nothing to wait for.
        body = content.read_nowait(-1)
        if limit and len(body) > limit:
            raise _too_large(limit)
        _hold(request, len(body))
        return body
    pieces = []
    async for piece in body_pieces(request):
        _hold(request, len(piece))
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def body_limit(request: web.Request) -> int:
    """The largest body in bytes that this server takes, 0 for no limit.

    Runner nodes may send more: what a runner took from a client comes here as text inside of JSON.
    """
    limit = request.app[BODIES].largest
    return 2 * limit + _MIB if limit and request.path.startswith("/v1/runner/") else limit


async def body_pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it arrives; raises what ``read_body`` raises but ServerBusy: nobody holds it."""
    limit, bodies = body_limit(request), request.app[BODIES]
    if limit and (request.content_length or 0) > limit:
        raise errors.BodyTooLarge(request.content_length or 0, limit)
    loop = asyncio.get_running_loop()
    size, left = 0, bodies.silence
    try:
        while True:
            asked = loop.time()
            async with asyncio.timeout(min(bodies.silence, left)):
                piece = await request.content.readany()
            if not piece:
                return
            size += len(piece)
            if limit and size > limit:
                raise _too_large(limit)
            if bodies.rate:
                left += len(piece) / bodies.rate - (loop.time() - asked)
            yield piece
    except TimeoutError:
        raise errors.TimedOut("Timed out while the request body was read") from None
    except web.RequestPayloadError as exc:
        raise errors.Invalid("Request body cannot be read", detail=str(exc)) from None
    except ConnectionError:
        # Nobody reads the answer; but the call that the body was for has a record.
        raise errors.Invalid("Request body cannot be read", detail="the client hung up") from None


def let_go(request: web.Request) -> None:
    """The request has been answered: what was held of its body is free."""
    bodies = request.app[BODIES]
    bodies.held -= bodies.by_request.pop(id(request), 0)


def _hold(request: web.Request, size: int) -> None:
    bodies = request.app[BODIES]
    if bodies.most and bodies.held and bodies.held + size > bodies.most:
        raise errors.ServerBusy(
            detail=f"the bodies of other requests have {bodies.held} bytes; "
            f"FN_HTTP_MAX_BODIES_BYTES is {bodies.most}"
        )
    bodies.held += size
    bodies.by_request[id(request)] = bodies.by_request.get(id(request), 0) + size


def _too_large(limit: int) -> errors.TooLarge:
    return errors.TooLarge(f"Request body too large for this server, max {limit}")
