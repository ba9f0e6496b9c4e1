"""What a function gets as the body of a sync call: bytes, or pieces as they come."""

from __future__ import annotations

from aiohttp import web

from runner_node.function_socket import Body
from shared_models.web import body_pieces, read_body


async def sync_body(request: web.Request, stream_above: int) -> Body:
    """All of a small announced body, so that a slow client holds no container; else pieces as they come.

    *stream_above* in bytes: larger bodies, and those of unknown length, are not held in memory. Raises what
    ``read_body`` raises.
    """
    announced = request.content_length
    if request.can_read_body and (announced is None or announced > stream_above):
        return body_pieces(request)
    return await read_body(request)
