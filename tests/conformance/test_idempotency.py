"""The contract of clients' keys: one key, one call, on all nodes."""

from __future__ import annotations

import asyncio

import pytest

from services.datastore.database import Database
from services.datastore.idempotency import SQLIdempotencyKeys
from shared_models.call_interfaces import IdempotencyKeys
from shared_models.errors import Invalid
from tests.conformance.conftest import Clock

DAY = 86400.0
Nodes = tuple[IdempotencyKeys, IdempotencyKeys]


@pytest.fixture
def nodes(two_databases: tuple[Database, Database], clock: Clock) -> Nodes:
    one, other = two_databases
    return SQLIdempotencyKeys(one, clock), SQLIdempotencyKeys(other, clock)


@pytest.fixture
def keys(nodes: Nodes) -> IdempotencyKeys:
    return nodes[0]


async def test_a_key_stands_for_the_call_that_claimed_it_first(keys: IdempotencyKeys) -> None:
    claims = [await keys.claim("fn", "key", call_id, DAY) for call_id in ("a", "b", "a")]
    assert claims == [("a", False)] * 3


async def test_whether_its_call_was_accepted_is_known(keys: IdempotencyKeys) -> None:
    await keys.claim("fn", "key", "a", DAY)
    await keys.accept("fn", "key", "b")
    assert await keys.claim("fn", "key", "b", DAY) == ("a", False)
    for _ in range(2):
        await keys.accept("fn", "key", "a")
        assert await keys.claim("fn", "key", "b", DAY) == ("a", True)
    await keys.accept("fn", "never claimed", "a")
    assert await keys.claim("fn", "never claimed", "a", DAY) == ("a", False)


async def test_a_key_is_that_of_one_function(keys: IdempotencyKeys) -> None:
    assert await keys.claim("f1", "key", "a", DAY) == ("a", False)
    await keys.accept("f1", "key", "a")
    assert await keys.claim("f2", "key", "b", DAY) == ("b", False)


@pytest.mark.parametrize("key", ["\U00020000" * 255, "\udcff\udc80", "a\0b", "İ'\"\\ %s"])
async def test_any_text_is_a_key(keys: IdempotencyKeys, key: str) -> None:
    assert await keys.claim("fn", key, "a", DAY) == ("a", False)
    assert await keys.claim("fn", key[:-1], "b", DAY) == ("b", False)
    assert await keys.claim("fn", key, "c", DAY) == ("a", False)


async def test_keys_that_look_alike_are_different_keys(keys: IdempotencyKeys) -> None:
    alike = ["key", "KEY", "key ", "ke\u0301y", "k\u00e9y"]
    assert [await keys.claim("fn", key, key[:3], DAY) for key in alike] == [(key[:3], False) for key in alike]


async def test_a_key_that_ran_out_stands_for_the_next_call(keys: IdempotencyKeys, clock: Clock) -> None:
    await keys.claim("fn", "key", "a", DAY)
    await keys.accept("fn", "key", "a")
    clock.move(DAY - 1)
    assert await keys.claim("fn", "key", "b", DAY) == ("a", True)
    clock.move(1)
    assert await keys.claim("fn", "key", "b", DAY) == ("b", False)
    await keys.accept("fn", "key", "a")
    assert await keys.claim("fn", "key", "c", DAY) == ("b", False)
    clock.move(DAY - 1)
    assert await keys.claim("fn", "key", "c", DAY) == ("b", False)


@pytest.mark.parametrize("before", [False, True], ids=["new", "ran-out"])
async def test_of_claims_at_once_one_wins_on_all_nodes(nodes: Nodes, clock: Clock, before: bool) -> None:
    if before:
        await nodes[0].claim("fn", "key", "earlier", DAY)
        clock.move(DAY)
    claims = [nodes[number % 2].claim("fn", "key", f"call{number}", DAY) for number in range(12)]
    answers = await asyncio.gather(*claims)
    assert len(set(answers)) == 1
    assert answers[0][0].startswith("call")
    assert answers[0][1] is False


async def test_keys_that_ran_out_are_removed_a_batch_at_a_time(keys: IdempotencyKeys, clock: Clock) -> None:
    for number in range(7):
        await keys.claim(f"f{number % 2}", f"old{number}", "a", DAY)
    await keys.claim("fn", "young", "a", DAY + 1)
    await keys.accept("fn", "young", "a")
    assert await keys.expire(100) == 0
    clock.move(DAY)
    assert [await keys.expire(5) for _ in range(3)] == [5, 2, 0]
    assert await keys.claim("fn", "young", "b", DAY) == ("a", True)
    clock.move(1)
    assert await keys.expire(100) == 1


async def test_a_key_that_is_claimed_while_it_is_removed_stands_for_one_call(
    nodes: Nodes, clock: Clock
) -> None:
    for number in range(10):
        await nodes[0].claim("fn", "key", "earlier", DAY)
        clock.move(DAY)
        first, _, second = await asyncio.gather(
            nodes[0].claim("fn", "key", f"a{number}", DAY),
            nodes[1].expire(10),
            nodes[1].claim("fn", "key", f"b{number}", DAY),
        )
        assert first == second == await nodes[0].claim("fn", "key", "late", DAY)
        clock.move(DAY)


async def test_a_function_that_cannot_be_is_invalid(keys: IdempotencyKeys) -> None:
    with pytest.raises(Invalid):
        await keys.claim("\ud800", "key", "a", DAY)
