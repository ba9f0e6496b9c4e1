"""Nodes that die between any two steps of a request, and a world in which others go on.

Every step is a verb of a store. A node dies before it is done, or after it was done and before anybody was
told; then the client sends the request again, to another node, or nobody does and time passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from services.data_access import DirectDataAccess
from services.janitor import clean
from services.stores import Stores
from shared_models import errors
from shared_models.async_policy import AsyncSettings
from shared_models.call import Call, Finished, LeasedCall
from shared_models.call_interfaces import DeadLetterFilter
from shared_models.fn import Fn
from tests.conformance.conftest import STORES
from tests.conformance.test_data_access import NODE, a_call, ended

SETTINGS = AsyncSettings(backoff=0.0)
LATER = 31.0
"""Seconds after which a lease has run out."""
MOST_STEPS = 12
_SAID = {True: ("after", "repeated"), False: ("before", "left")}


class Died(BaseException):
    """The node is gone: nothing after this is its work."""


class Life:
    """Steps until the death of a node, counted over all of its stores."""

    def __init__(self, steps: int, *, done: bool) -> None:
        self.steps = steps
        self.done = done
        self.died = False

    async def step(self, work: Callable[[], Awaitable[Any]]) -> Any:
        if self.died:
            raise Died
        self.steps -= 1
        if self.steps > 0:
            return await work()
        self.died = True
        if self.done:
            await work()
        raise Died


class Mortal:
    """A store of a node that dies."""

    def __init__(self, store: Any, life: Life) -> None:
        self._store, self._life = store, life

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        return lambda *given, **named: self._life.step(lambda: verb(*given, **named))


def mortal(stores: Stores, life: Life) -> Stores:
    parts = {one.name: Mortal(getattr(stores, one.name), life) for one in dataclasses.fields(stores)}
    return Stores(**parts)


class World:
    """One call, and what is known of it outside of the stores."""

    def __init__(self, stores: Stores, fn: Fn, clock: Any, call: Call) -> None:
        self.stores, self.fn, self.clock, self.call = stores, fn, clock, call
        self.alive = DirectDataAccess(stores, SETTINGS, clock=clock)
        self.runs: list[int] = []

    async def leased(self) -> LeasedCall | None:
        found = await self.alive.dequeue(NODE, 1, 0)
        return found[0] if found else None

    def result(self, leased: LeasedCall, status: str = "success", **more: Any) -> Finished:
        return ended(leased, status, **more)

    async def run_to_its_end(self) -> None:
        """Runners that live do what there is to do; what nobody holds comes back in time."""
        for _ in range(6):
            if leased := await self.leased():
                try:
                    await self.alive.start(leased)
                except errors.LeaseLost:
                    continue
                self.runs.append(leased.lease.attempt)
                await self.alive.finish([self.result(leased)])
            self.clock.move(LATER)
        self.clock.move(120)
        await clean(self.stores, self.clock)

    async def record(self) -> Call:
        return await self.stores.logstore.call(self.call.id, app_id=self.call.app_id, fn_id=self.call.fn_id)

    async def dead(self) -> list[str]:
        return [one.call.id for one in await self.stores.dead_letters.page(DeadLetterFilter())]


Request = Callable[[DirectDataAccess], Awaitable[Any]]


async def dying(world: World, steps: int, *, done: bool, request: Request) -> bool:
    """Whether the node of *request* died; it did not where the request has fewer steps."""
    life = Life(steps, done=done)
    try:
        await request(DirectDataAccess(mortal(world.stores, life), SETTINGS, clock=world.clock))
    except Died:
        return True
    return life.died


def each_step(test: Any) -> Any:
    """On all stores. To die before a step leaves what dying after the one before it left: once is enough."""
    ways = [
        pytest.param(opener, done, repeated, id=f"{name}-{_SAID[done][0]}-{_SAID[repeated][1]}")
        for name, opener in STORES.items()
        for done in ((True, False) if name == "sqlite" else (True,))
        for repeated in (True, False)
    ]
    return pytest.mark.parametrize(("stores", "done", "repeated"), ways, indirect=["stores"])(test)


async def worlds(stores: Stores, fn: Fn, clock: Any, **more: Any) -> Any:
    """A world for each step that a request may have, until it has no more."""
    for steps in range(1, MOST_STEPS):
        yield steps, World(stores, fn, clock, a_call(fn, payload=b"work", **more))
