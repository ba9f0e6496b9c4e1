"""What is measured of the stores: one operation each, which answers how many things it did."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from shared_models import times
from shared_models.app import App
from shared_models.call import Call, Finished, LeaseKey
from shared_models.ids import new_id
from shared_models.interfaces import CallFilter, Datastore, LogStore, MessageQueue

PAGE = 30
_TTL = 600.0
_AT_ONCE = 256
_PAYLOAD = b'{"name": "Johnny"}'
_LOG = b"a line of a log\n" * 8


async def counted(operation: Callable[[], Awaitable[object]]) -> int:
    """One, after *operation*."""
    await operation()
    return 1


async def insert_app(datastore: Datastore) -> int:
    """A new app with a small config."""
    await datastore.insert_app(App(name=f"a{new_id().lower()}", config={"KEY": "value"}))
    return 1


async def finish(logstore: LogStore, batch: int) -> int:
    """Records of sync calls that have ended, with small logs."""
    now = times.now()
    ended = Call(
        app_id="app",
        fn_id="fn",
        image="registry.example/fn:1",
        type="sync",
        status="success",
        created_at=now,
        started_at=now,
        completed_at=now,
    )
    made = [Finished(call=msgspec.structs.replace(ended, id=new_id()), log=_LOG) for _ in range(batch)]
    assert not await logstore.finish_calls(made)
    return batch


async def page(logstore: LogStore) -> int:
    """The newest calls of a function."""
    assert len(await logstore.calls(CallFilter(fn_id="fn", limit=PAGE))) == PAGE
    return 1


async def push(queue: MessageQueue) -> int:
    """A call with a small payload."""
    assert await queue.push(Call(id=new_id(), app_id="app", fn_id="fn", type="async", payload=_PAYLOAD))
    return 1


async def through(queue: MessageQueue, batch: int) -> int:
    """As many calls into the queue as come out of it, all at once on either side."""
    await asyncio.gather(*[push(queue) for _ in range(batch)])
    leased = await queue.reserve(batch, 10, _TTL)
    await queue.delete([one.key for one in leased])
    return len(leased)


class Backlog:
    """A queue that has calls in it, of which some are leased by us. Nobody else may use it."""

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self._leased: deque[LeaseKey] = deque()

    async def fill(self, size: int) -> None:
        """Pushes until *size* wait, if none did."""
        for start in range(0, size, _AT_ONCE):
            await asyncio.gather(*[push(self._queue) for _ in range(min(_AT_ONCE, size - start))])

    async def reserve(self, batch: int) -> int:
        """Leases *batch* of those that wait; 0 when none is left."""
        leased = await self._queue.reserve(batch, 0, _TTL)
        self._leased.extend(one.key for one in leased)
        return len(leased)

    async def delete(self, batch: int) -> int:
        """Deletes *batch* of those that were leased; 0 when none is left."""
        keys = [self._leased.popleft() for _ in range(min(batch, len(self._leased)))]
        await self._queue.delete(keys)
        return len(keys)

    async def clear(self) -> None:
        """Removes all."""
        while await self.reserve(_AT_ONCE) or self._leased:
            while await self.delete(_AT_ONCE):
                pass
