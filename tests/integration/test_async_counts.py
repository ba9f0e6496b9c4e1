"""What ``/metrics`` tells of queued calls: where they are, and what was fenced off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.data_access import DirectDataAccess
from services.datastore.database import open_database
from services.janitor import running_janitor
from services.logstore.sql import SQLLogStore
from services.queue import open_queue
from services.retention import RetentionSettings
from services.stores import Stores
from shared_models import errors
from shared_models.app import App
from shared_models.async_policy import AsyncSettings
from shared_models.call import LeaseKey, Reason
from shared_models.fn import Fn
from shared_models.telemetry import REGISTRY
from tests.conformance.conftest import Clock
from tests.conformance.test_data_access import NODE, accepted, annotated, ended, taken


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def stores(tmp_path: Path, clock: Clock) -> AsyncIterator[Stores]:
    async with (
        open_database(f"sqlite:///{tmp_path}/fn.db") as database,
        open_queue("memory://", clock=clock) as queue,
    ):
        yield Stores.on(database, SQLLogStore(database, clock), queue, clock)


@pytest.fixture
def data(stores: Stores, clock: Clock) -> DirectDataAccess:
    return DirectDataAccess(stores, AsyncSettings(backoff=0.0), clock=clock)


@pytest.fixture
async def fn(stores: Stores) -> Fn:
    app = await stores.datastore.insert_app(App(name="app"))
    return await stores.datastore.insert_fn(Fn(name="fn", app_id=app.id, image="i:1"))


def told(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def fenced() -> dict[str, float]:
    return {verb: told("fn_async_fenced_total", verb=verb) for verb in ("start", "extend", "finish")}


async def test_what_a_late_runner_tries_is_counted_as_fenced(
    data: DirectDataAccess, fn: Fn, clock: Clock
) -> None:
    await accepted(data, fn)
    late = await taken(data)
    clock.move(31)
    current = await taken(data)
    await data.start(current)
    before = fenced()
    with pytest.raises(errors.LeaseLost):
        await data.start(late)
    for count in (1, 2):
        assert await data.extend([late.key]) == [late.call.id]
        assert await data.finish([ended(late, "error")]) == [late.call.id]
        more = {"start": 1, "extend": count, "finish": count}
        assert fenced() == {verb: before[verb] + more[verb] for verb in before}
    assert await data.extend([current.key]) == []
    assert await data.finish([ended(current)]) == []
    assert fenced()["finish"] == before["finish"] + 2


async def test_calls_are_counted_where_they_are_and_drift_is_what_is_nowhere(
    data: DirectDataAccess, stores: Stores, fn: Fn, clock: Clock
) -> None:
    for _ in range(2):
        lost = await accepted(data, fn)
        await stores.queue.delete([LeaseKey(lost.id, "")])
    await accepted(data, fn, annotations=annotated(max_attempts="1"))
    dead = await taken(data)
    await data.finish([ended(dead, "error", reason=Reason.NOT_STARTED)])
    clock.move(120)
    for _ in range(5):
        await accepted(data, fn)
    await data.dequeue(NODE, 2, 0)
    clock.move(7)
    drifts: list[float] = []

    async def drift_is(value: float) -> None:
        async with asyncio.timeout(60):
            while value not in drifts:
                await asyncio.sleep(0.01)
                drifts.append(told("fn_async_drift"))

    async with running_janitor(stores, RetentionSettings(), every=0.3):
        await drift_is(2)
        drifts.clear()
        await drift_is(0)  # it is counted once: they have ended as lost
        states = {state: told("fn_async_calls", state=state) for state in ("queued", "leased", "dead")}
        assert states == {"queued": 3, "leased": 2, "dead": 1}
        assert told("fn_async_oldest_seconds") == pytest.approx(7)
    assert (await stores.logstore.call(lost.id)).reason == Reason.LOST
