"""Several API nodes on one log store: what they decide about a call is decided once."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from services import janitor
from services.datastore import dialects
from services.datastore.database import open_database
from services.datastore.tables import calls, logs
from services.logstore.sql import SQLLogStore
from services.stores import StoreSettings, open_stores
from services.urls import Address
from shared_models import times
from shared_models.call import Call, Finished, Lease, LeasedCall, LeaseKey
from shared_models.call_interfaces import Callback, DeadLetter
from shared_models.ids import new_id
from shared_models.interfaces import CallFilter, Purge
from shared_models.runner import RunnerReport
from shared_models.times import NEVER

NODES = 3


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
async def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[SQLLogStore]]:
    """Stores of nodes that know nothing of each other."""
    server = request.param
    url = f"sqlite:///{tmp_path}/fn.db" if server == "sqlite" else request.getfixturevalue(server).url

    async def empty(connection: AsyncConnection) -> None:
        for table in (logs, calls):
            await connection.execute(delete(table))

    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(open_database(url)) for _ in range(NODES)]
        await databases[0].transact(empty)
        yield [SQLLogStore(database) for database in databases]


def some_calls(count: int) -> list[Call]:
    return [Call(id=new_id(), app_id="app", fn_id="fn", type="detached") for _ in range(count)]


def leased(call: Call, token: str, attempt: int) -> LeasedCall:
    return LeasedCall(call=call, lease=Lease(token=token, attempt=attempt, ttl=30))


def ended(call: Call, token: str, error: str = "", log: bytes = b"log") -> Finished:
    status = "error" if error else "success"
    return Finished(call=msgspec.structs.replace(call, status=status, error=error), token=token, log=log)


async def held(node: SQLLogStore, made: list[Call], token: str) -> None:
    await node.claim([leased(call, token, 1) for call in made], "runner")
    for call in made:
        await node.start_call(LeaseKey(call.id, token), NEVER)


async def test_of_nodes_that_record_one_call_one_does(nodes: list[SQLLogStore]) -> None:
    made = some_calls(20)
    outcomes = await asyncio.gather(*[node.insert_call(call) for call in made for node in nodes])
    for number in range(len(made)):
        assert sorted(outcomes[number * NODES : (number + 1) * NODES]) == [False] * (NODES - 1) + [True]


async def test_of_results_that_nodes_are_given_for_one_call_one_is_stored(nodes: list[SQLLogStore]) -> None:
    made = some_calls(10)
    await held(nodes[0], made, "t")
    # In opposite orders, which must not make them wait for each other.
    batches = [[ended(call, "t", f"by {number}") for call in made] for number in range(NODES)]
    batches[1].reverse()
    refused = await asyncio.gather(
        *[node.finish_calls(batch) for node, batch in zip(nodes, batches, strict=True)]
    )
    for call in made:
        (winner,) = [number for number in range(NODES) if call.id not in refused[number]]
        assert (await nodes[0].call(call.id)).error == f"by {winner}"


async def test_results_of_sync_calls_that_are_handed_in_twice_are_stored_once(
    nodes: list[SQLLogStore],
) -> None:
    made = [msgspec.structs.replace(call, type="sync") for call in some_calls(50)]
    batch = [ended(call, "") for call in made]
    answers = await asyncio.gather(*[node.finish_calls(batch) for node in nodes for _ in range(3)])
    assert answers == [[]] * (3 * NODES)
    assert [piece async for piece in await nodes[1].log(made[7].id)] == [b"log"]


async def test_a_result_and_a_new_lease_do_not_both_win(nodes: list[SQLLogStore]) -> None:
    made = some_calls(20)
    await held(nodes[0], made, "old")
    outcomes = await asyncio.gather(
        *[
            asyncio.gather(
                nodes[1].finish_calls([ended(call, "old")]), nodes[2].claim([leased(call, "new", 2)], "b")
            )
            for call in made
        ]
    )
    for call, (refused, must_not_run) in zip(made, outcomes, strict=True):
        assert (refused == [call.id]) != (must_not_run == [call.id])


async def test_nodes_that_clean_up_together_remove_each_call_once(nodes: list[SQLLogStore]) -> None:
    made = [msgspec.structs.replace(call, type="sync") for call in some_calls(100)]
    await nodes[0].finish_calls([ended(call, "") for call in made])

    async def cleaned_by(node: SQLLogStore) -> int:
        total = 0
        while count := await node.remove_calls(Purge(fn_id="fn"), 7):
            total += count
        return total

    assert sum(await asyncio.gather(*[cleaned_by(node) for node in nodes])) == len(made)
    assert await nodes[0].calls(CallFilter(fn_id="fn")) == []


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
async def test_nodes_go_by_the_time_of_the_datastores_server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    """To a node whose clock is an hour ahead, the server's is an hour behind."""
    opened = dialects.open_backend

    async def behind(address: Address, variable: str) -> dialects.Backend:
        backend = await opened(address, variable)
        return dataclasses.replace(backend, time=f"{backend.time} - 3600")

    monkeypatch.setattr(dialects, "open_backend", behind)
    now = time.time() - 3600
    call = Call(id=new_id(), app_id="app", fn_id="fn", type="detached")
    callback = Callback(
        call_id=call.id, attempt=1, fn_id="fn", app_id="app", status="error", url="", body=b""
    )
    url = request.getfixturevalue(server).url
    async with open_stores(StoreSettings(datastore_url=url, queue_url="memory://")) as stores:
        assert stores.clock() == pytest.approx(now, abs=10)
        await stores.datastore.put_runner(RunnerReport(id=call.id))
        await stores.dead_letters.put([DeadLetter(call=call)])
        await stores.outbox.put([callback])
        await stores.logstore.insert_call(call)
        (runner,) = [one for one in await stores.datastore.runners() if one.report.id == call.id]
        (due,) = [one for one in await stores.outbox.due(1000, 60) if one.call_id == call.id]
        died_at = (await stores.dead_letters.get(call.id)).died_at
        seen = [times.seconds_of(runner.seen_at), times.seconds_of(died_at), due.created]
        assert seen == [pytest.approx(now, abs=10)] * 3
        assert runner.state == "active"
        # Recorded a moment ago, and not yet queued: no node may take it for one that was never accepted.
        assert call.id not in await janitor.clean(stores)
        assert (await stores.logstore.call(call.id)).status == "queued"
