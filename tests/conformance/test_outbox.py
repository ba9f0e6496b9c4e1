"""The contract of the outbox: each callback is one deliverer's at a time, until it is removed."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from sqlalchemy import text

from services.datastore.database import Database
from services.datastore.outbox import SQLOutbox
from shared_models.call_interfaces import Callback, Outbox
from shared_models.errors import TooLarge
from shared_models.ids import new_id
from tests.conformance.conftest import Clock

Nodes = tuple[Outbox, Outbox]


@pytest.fixture
def nodes(two_databases: tuple[Database, Database], clock: Clock) -> Nodes:
    one, other = two_databases
    return SQLOutbox(one, clock), SQLOutbox(other, clock)


@pytest.fixture
def outbox(nodes: Nodes) -> Outbox:
    return nodes[0]


def a_callback(**more: object) -> Callback:
    fields = {
        "call_id": new_id(),
        "attempt": 1,
        "fn_id": "fn",
        "app_id": "app",
        "status": "success",
        "url": "https://example.org/done",
        "body": b"body",
    }
    return Callback(**{**fields, **more})


def ids(callbacks: list[Callback]) -> list[str]:
    return [callback.call_id for callback in callbacks]


async def test_a_callback_is_due_at_once_and_whole(outbox: Outbox, clock: Clock) -> None:
    callback = a_callback(
        attempt=3, status="timeout", url="https://example.org/" + "x" * 5000, body=bytes(range(256)) * 300
    )
    await outbox.put([callback])
    [found] = await outbox.due(10, 60)
    assert found == msgspec.structs.replace(callback, tries=1, created=clock())


async def test_a_leased_callback_is_due_again_when_its_lease_runs_out(outbox: Outbox, clock: Clock) -> None:
    await outbox.put([a_callback()])
    tries = []
    for seconds in (0, 59, 1, 59, 1):
        clock.move(seconds)
        tries.append([callback.tries for callback in await outbox.due(10, 60)])
    assert tries == [[1], [], [2], [], [3]]


async def test_those_that_are_due_longest_come_first(outbox: Outbox, clock: Clock) -> None:
    some = [a_callback() for _ in range(5)]
    for callback in some[::-1]:
        await outbox.put([callback])
        clock.move(1)
    assert ids(await outbox.due(2, 60)) == ids(some)[:2:-1]
    assert ids(await outbox.due(10, 60)) == ids(some)[2::-1]


async def test_a_postponed_callback_is_due_after_its_delay(outbox: Outbox, clock: Clock) -> None:
    await outbox.put([a_callback()])
    [callback] = await outbox.due(10, 60)
    await outbox.postpone(callback, 90)
    clock.move(89)
    assert await outbox.due(10, 60) == []
    clock.move(1)
    [again] = await outbox.due(10, 60)
    await outbox.postpone(again, 0)
    assert [one.tries for one in await outbox.due(10, 60)] == [3]


async def test_a_lease_that_was_of_no_use_may_stay_uncounted(outbox: Outbox, clock: Clock) -> None:
    await outbox.put([a_callback()])
    [callback] = await outbox.due(10, 60)
    await outbox.postpone(callback, 90, counted=False)
    clock.move(89)
    assert await outbox.due(10, 60) == []
    clock.move(1)
    [again] = await outbox.due(10, 60)
    assert again == callback


async def test_who_lost_a_callback_does_not_postpone_it_for_who_has_it(nodes: Nodes, clock: Clock) -> None:
    await nodes[0].put([a_callback()])
    [late] = await nodes[0].due(10, 60)
    clock.move(60)
    assert len(await nodes[1].due(10, 60)) == 1
    for counted in (True, False):
        await nodes[0].postpone(late, 0, counted=counted)
    assert await nodes[0].due(10, 60) == []
    clock.move(60)
    assert [callback.tries for callback in await nodes[0].due(10, 60)] == [3]


async def test_two_ends_of_one_attempt_are_two_callbacks(outbox: Outbox) -> None:
    """A node put the first and died before it could store that end; another gave the call up."""
    first = a_callback(attempt=3, status="timeout")
    other = msgspec.structs.replace(first, status="error", body=b"gave up")
    await outbox.put([first])
    await outbox.put([other])
    found = await outbox.due(5, 30)
    assert {(one.status, one.body) for one in found} == {("timeout", b"body"), ("error", b"gave up")}
    await outbox.remove([one for one in found if one.status == "timeout"])
    assert await outbox.count() == 1


async def test_a_callback_is_one_calls_one_attempt(outbox: Outbox) -> None:
    first = a_callback(body=b"first")
    again = msgspec.structs.replace(first, body=b"again")
    second = msgspec.structs.replace(first, attempt=2, body=b"second")
    await outbox.put([first, again])
    await outbox.put([again, second])
    assert await outbox.count() == 2
    found = await outbox.due(10, 60)
    assert sorted((one.attempt, one.body) for one in found) == [(1, b"first"), (2, b"second")]
    await outbox.put([again])
    assert await outbox.due(10, 60) == [], "its lease stays as it is"
    await outbox.remove([first])
    assert await outbox.count() == 1


async def test_of_two_nodes_that_put_the_same_both_succeed(nodes: Nodes) -> None:
    some = [a_callback() for _ in range(20)]
    await asyncio.gather(*[node.put(some if back else some[::-1]) for back in (0, 1) for node in nodes])
    assert await nodes[0].count() == 20


async def test_a_callback_is_given_to_one_of_many_that_ask(nodes: Nodes) -> None:
    some = [a_callback() for _ in range(60)]
    await nodes[0].put(some)
    found: list[str] = []
    # Who finds all that it sees in the hands of others gets nothing, and asks again.
    while len(found) < len(some):
        for part in await asyncio.gather(*[nodes[number % 2].due(7, 60) for number in range(12)]):
            assert {callback.tries for callback in part} <= {1}
            found += ids(part)
    assert sorted(found) == sorted(ids(some))
    assert await nodes[1].due(100, 60) == []


async def test_what_is_removed_while_it_is_leased_does_not_come_back(outbox: Outbox, clock: Clock) -> None:
    removed, kept = a_callback(), a_callback()
    await outbox.put([removed, kept])
    leased = {callback.call_id: callback for callback in await outbox.due(10, 60)}
    for _ in range(2):
        await outbox.remove([removed, a_callback()])
    await outbox.postpone(leased[removed.call_id], 0)
    clock.move(60)
    assert ids(await outbox.due(10, 60)) == [kept.call_id]
    assert await outbox.count() == 1


async def test_removals_and_leases_at_once_are_no_trouble(nodes: Nodes) -> None:
    some = [a_callback(attempt=number % 3 + 1) for number in range(40)]
    await nodes[0].put(some)
    await asyncio.gather(
        *[nodes[number % 2].due(10, 60) for number in range(4)],
        *[nodes[number % 2].remove(some[number::4][::-1]) for number in range(4)],
    )
    assert await nodes[0].count() == 0
    assert await nodes[0].due(100, 60) == []


async def test_a_large_batch_goes_out_and_away_whole(outbox: Outbox) -> None:
    some = [a_callback() for _ in range(1500)]
    await outbox.put(some)
    assert len(await outbox.due(2000, 60)) == await outbox.count() == 1500
    await outbox.remove(some)
    assert await outbox.count() == 0


async def test_no_callbacks_are_no_trouble(outbox: Outbox) -> None:
    await outbox.put([])
    await outbox.remove([])
    assert await outbox.due(10, 60) == []
    assert await outbox.count() == 0


async def test_a_callback_that_the_database_does_not_take_is_named_and_stops_no_other(
    nodes: Nodes, two_databases: tuple[Database, Database]
) -> None:
    outbox, [database, _] = nodes[0], two_databases
    if database.backend.scheme != "mysql":
        large, small = a_callback(body=b"x" * 2**24), a_callback()
        await outbox.put([large, small])
        assert {len(one.body) for one in await outbox.due(10, 60)} == {2**24, 4}
        return
    most = int(await database.read(lambda it: it.scalar(text("SELECT @@max_allowed_packet"))))
    large, small = a_callback(body=b"\0" * (most // 2)), a_callback()
    with pytest.raises(TooLarge) as raised:
        await outbox.put([large, small])
    assert large.call_id in raised.value.detail
    assert ids(await outbox.due(10, 60)) == [small.call_id]
