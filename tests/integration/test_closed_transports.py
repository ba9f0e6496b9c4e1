"""uvloop, on which nodes run, has a word of its own for a connection that closed under a driver's hands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection

from services import urls
from services.broken_transport import is_closed_transport
from services.datastore import failures
from services.datastore.failures import Meaning
from services.queue import open_queue
from services.queue.redis_link import open_link
from services.queue.redis_settings import RedisSettings
from shared_models.call import Call
from shared_models.ids import new_id


async def _closed_writer() -> asyncio.StreamWriter:
    def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return writer


def on_uvloop(work: Callable[[], Awaitable[Any]]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        return loop.run(work())


def test_the_word_of_the_loop_is_known_to_be_a_lost_connection() -> None:
    async def provoke() -> Exception:
        writer = await _closed_writer()
        with pytest.raises(RuntimeError) as caught:
            writer.write(b"x")
        return caught.value

    exc = on_uvloop(provoke)
    assert is_closed_transport(exc)
    assert failures.known(exc)
    assert failures.meaning(exc) is Meaning.LOST
    assert not failures.known(RuntimeError("a defect of ours"))


def test_a_redis_connection_that_closes_while_it_is_written_to_is_replaced(redis_server: Any) -> None:
    async def push() -> bool:
        async with open_queue(f"{redis_server.url}?prefix=closed") as queue:
            assert await queue.depths() == []  # there is a connection now
            send = AbstractConnection.send_packed_command
            broken: list[bool] = []

            async def closed(self: Any, *given: Any, **named: Any) -> None:
                if not broken:
                    broken.append(True)
                    self._writer.transport.abort()
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                await send(self, *given, **named)

            AbstractConnection.send_packed_command = closed  # type: ignore[method-assign]
            try:
                call = Call(id=new_id(), fn_id="f")
                return await queue.push(call) and broken == [True]
            finally:
                AbstractConnection.send_packed_command = send  # type: ignore[method-assign]

    assert on_uvloop(push)


def test_a_defect_of_ours_is_not_taken_for_a_lost_connection(redis_server: Any, monkeypatch: Any) -> None:
    async def ask() -> None:
        settings = RedisSettings.of(urls.parse(redis_server.url, "FN_MQ_URL", ("redis",)), "FN_MQ_URL")
        async with open_link(settings) as link:
            await link.ask([("PING",)])

    async def defect(*_given: Any, **_named: Any) -> None:
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(AbstractConnection, "send_packed_command", defect)
    with pytest.raises(RuntimeError, match="a defect of ours"):
        on_uvloop(ask)
