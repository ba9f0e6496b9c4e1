"""A Redis server of a test's own, and nodes that share it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import redis.asyncio

from services.queue import open_queue
from shared_models.interfaces import MessageQueue
from tests.servers.redis import Redis
from tests.servers.server import Server


@pytest.fixture
def own_redis(own_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> Server:
    """A durable one of the test's own; who waits does not look by itself now and then."""
    monkeypatch.setattr("services.queue.redis.LOOK_EVERY", 3600.0)
    return own_server(Redis, True)


@pytest.fixture
async def admin(own_redis: Server) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the server."""
    async with redis.asyncio.from_url(own_redis.url, protocol=2, decode_responses=True) as client:
        yield client


@pytest.fixture
async def nodes(
    own_redis: Server, admin: redis.asyncio.Redis
) -> AsyncIterator[tuple[MessageQueue, MessageQueue]]:
    async with open_queue(own_redis.url) as one, open_queue(own_redis.url) as other:
        yield one, other
