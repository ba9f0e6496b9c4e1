"""Where completion callbacks arrive: now and then it refuses one, as a receiver that is restarted does."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.system.faults.book import Book

REFUSED = 0.1
"""Part of the callbacks that are answered with 500, and must come again."""


@asynccontextmanager
async def receiving(book: Book, seed: int) -> AsyncIterator[str]:
    """The address that callbacks are to be sent to while the block runs; *book* keeps what they said."""
    rng = random.Random(seed)

    async def receive(request: web.Request) -> web.Response:
        said = await request.json()
        if rng.random() < REFUSED:
            return web.Response(status=500)
        book.callbacks.setdefault(said["call_id"], []).append((said["status"], said["attempt"]))
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/done", receive)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/done"
    finally:
        await runner.cleanup()
