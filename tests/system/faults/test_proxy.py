"""The proxy breaks what it says, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.servers.proxy import proxy


@asynccontextmanager
async def counting() -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of a server that answers each line with itself, and the lines that it got."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            got.append(line)
            writer.write(line)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], got


async def ask(port: int, line: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(line)
        return await reader.readline()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_an_answer_is_lost_after_its_request_has_arrived() -> None:
    async with counting() as (port, got), proxy(port) as link:
        link.losing = 1
        assert await ask(link.port, b"first\n") == b""
        assert await ask(link.port, b"second\n") == b"second\n"
        assert got == [b"first\n", b"second\n"]


async def test_a_link_that_refuses_takes_connections_again_on_its_port() -> None:
    async with counting() as (port, _), proxy(port) as link:
        await link.refuse()
        with pytest.raises(OSError, match="Connect call failed"):
            await ask(link.port, b"lost\n")
        await link.accept()
        assert await ask(link.port, b"through\n") == b"through\n"
