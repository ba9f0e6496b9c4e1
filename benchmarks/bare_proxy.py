"""The least that can be called a gateway: an aiohttp handler that forwards to a function's socket.

What our node is measured against. ``python -m benchmarks.bare_proxy PORT IO_DIR [IO_DIR ...]``
"""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web

from runner_node.drivers.contract import SOCKET
from runner_node.function_socket import FunctionSocket, connect
from runner_node.protocols.http_stream import ResponseParser, encode_head


async def main(port: int, folders: list[str]) -> None:
    """Serves until it is killed, one call at a time per function process."""
    free: asyncio.LifoQueue[FunctionSocket] = asyncio.LifoQueue()
    for folder in folders:
        free.put_nowait(await connect(folder, SOCKET))

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        socket = await free.get()
        parser = ResponseParser()
        head, _ = encode_head(request.headers.items(), "CALL", "2018-06-01T00:00:00Z")
        await socket.call(head, body, parser)
        free.put_nowait(socket)
        response = parser.response()
        return web.Response(body=response.body, headers={"Content-Type": "text/plain"})

    app = web.Application()
    app.router.add_post("/", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(int(sys.argv[1]), sys.argv[2:]))
