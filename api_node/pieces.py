"""Answers that come from a store in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from aiohttp import web


async def in_pieces(
    request: web.Request, pieces: AsyncIterator[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    """The answer 200 whose body is *pieces*; raises what the store raises before there is any."""
    # The first piece before the head, so that a store that fails can still be answered for.
    first = await anext(pieces, b"")
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    if first:
        await response.write(first)
    async for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response
