"""The contract of dead letters: calls that were given up, until somebody redrives or purges them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from sqlalchemy import text

from services.datastore.database import Database
from services.datastore.dead_letters import SQLDeadLetters
from shared_models import times
from shared_models.annotations import texts
from shared_models.call import Call, Reason, Status
from shared_models.call_interfaces import DeadLetter, DeadLetterFilter, DeadLetters
from shared_models.errors import DeadLetterNotFound, Invalid, TooLarge
from shared_models.ids import new_id
from tests.conformance.conftest import Clock

DIED = "2027-01-15T08:00:00.000Z"
Nodes = tuple[DeadLetters, DeadLetters]


@pytest.fixture
def nodes(two_databases: tuple[Database, Database], clock: Clock) -> Nodes:
    one, other = two_databases
    return SQLDeadLetters(one, clock), SQLDeadLetters(other, clock)


@pytest.fixture
def letters(nodes: Nodes) -> DeadLetters:
    return nodes[0]


def a_letter(fn_id: str = "fn", died_at: str = DIED, **more: object) -> DeadLetter:
    fields = {"id": new_id(), "app_id": "app", "status": Status.ERROR, "payload": b"payload", **more}
    return DeadLetter(call=Call(fn_id=fn_id, **fields), died_at=died_at)


def ids(letters: list[DeadLetter]) -> list[str]:
    return [letter.call.id for letter in letters]


async def test_a_dead_letter_reads_back_whole(letters: DeadLetters) -> None:
    letter = a_letter(
        payload=bytes(range(256)) * 300,
        error="said \0 and 𠀋",
        reason=Reason.OOM,
        image="i:1",
        type="detached",
        timeout=30,
        memory=2**40,
        config={"k": "v\0"},
        headers={"X-A": ["1", "2"]},
        annotations={"fn.hybrid/async/max-attempts": msgspec.Raw(b"1e1")},
        callback_url="https://example.org/done",
        idempotency_key="key",
        attempt=3,
        node="runner",
    )
    await letters.put([letter])
    found = await letters.get(letter.call.id)
    assert texts(found.call.annotations) == {"fn.hybrid/async/max-attempts": b"1e1"}
    bare = [msgspec.structs.replace(one.call, annotations={}) for one in (found, letter)]
    assert bare[0] == bare[1]
    assert (found.died_at, found.redriven_as) == (DIED, "")


async def test_a_call_dies_once_and_its_first_letter_stays(letters: DeadLetters) -> None:
    first = a_letter(error="first")
    again = msgspec.structs.replace(first, call=msgspec.structs.replace(first.call, error="again"))
    await letters.put([first, again])
    await letters.put([again, second := a_letter()])
    assert (await letters.get(first.call.id)).call.error == "first"
    assert ids(await letters.page(DeadLetterFilter())) == [second.call.id, first.call.id]
    await letters.redrive(first.call.id, "new")
    await letters.put([again])
    assert (await letters.get(first.call.id)).redriven_as == "new"


async def test_of_two_nodes_that_put_the_same_letters_both_succeed(nodes: Nodes) -> None:
    some = [a_letter() for _ in range(20)]
    await asyncio.gather(*[node.put(some if back else some[::-1]) for back in (0, 1) for node in nodes])
    assert await nodes[0].count() == 20


async def test_a_letter_without_a_time_died_now(letters: DeadLetters, clock: Clock) -> None:
    letter = a_letter(died_at=times.NEVER)
    await letters.put([letter])
    assert (await letters.get(letter.call.id)).died_at == times.to_text(clock())


async def test_an_unknown_call_is_no_dead_letter(letters: DeadLetters) -> None:
    await letters.put([])
    with pytest.raises(DeadLetterNotFound):
        await letters.get("unknown")
    with pytest.raises(DeadLetterNotFound):
        await letters.redrive("unknown", "new")
    assert await letters.remove(["unknown"]) == 0
    assert await letters.remove([]) == 0


async def test_pages_are_newest_first_of_a_function_or_of_all_and_without_payloads(
    letters: DeadLetters,
) -> None:
    some = [a_letter(fn_id=f"fn{number % 2}") for number in range(10)]
    await letters.put(some)
    newest_first = ids(some)[::-1]
    page, found = DeadLetterFilter(limit=3), []
    while rows := await letters.page(page):
        assert all(row.call.payload == b"" for row in rows)
        found += ids(rows)
        page = msgspec.structs.replace(page, before=found[-1])
    assert found == newest_first
    of_one = DeadLetterFilter(fn_id="fn1", before=some[7].call.id, limit=2)
    assert ids(await letters.page(of_one)) == [some[5].call.id, some[3].call.id]
    assert await letters.page(DeadLetterFilter(fn_id="fn2")) == []


async def test_the_first_redrive_names_the_call_that_takes_the_place(letters: DeadLetters) -> None:
    letter = a_letter()
    await letters.put([letter])
    assert [await letters.redrive(letter.call.id, new) for new in ("a", "b")] == ["a", "a"]
    assert (await letters.get(letter.call.id)).redriven_as == "a"
    assert [one.redriven_as for one in await letters.page(DeadLetterFilter())] == ["a"]


async def test_redrives_at_once_agree_on_one_call(nodes: Nodes) -> None:
    letter = a_letter()
    await nodes[0].put([letter])
    answers = await asyncio.gather(*[nodes[i % 2].redrive(letter.call.id, f"new{i}") for i in range(8)])
    assert len(set(answers)) == 1


async def test_removed_letters_are_gone_and_counted(letters: DeadLetters) -> None:
    some = [a_letter() for _ in range(3)]
    await letters.put(some)
    assert await letters.remove([some[0].call.id, some[0].call.id, some[1].call.id, "unknown"]) == 2
    assert ids(await letters.page(DeadLetterFilter())) == [some[2].call.id]


async def test_letters_are_purged_by_function_app_and_age_a_batch_at_a_time(letters: DeadLetters) -> None:
    old, young = "2027-01-01T00:00:00.000Z", "2027-02-01T00:00:00.000Z"
    for fn_id, app_id in (("f1", "a1"), ("f2", "a1"), ("f3", "a2")):
        await letters.put([a_letter(fn_id, died_at, app_id=app_id) for died_at in (old, old, young)])
    between = "2027-01-15T00:00:00.000Z"
    assert await letters.purge(limit=100) == 0
    assert [await letters.purge(fn_id="f1", limit=2) for _ in range(3)] == [2, 1, 0]
    assert await letters.purge(fn_id="f2", older_than=between, limit=1) == 1
    assert await letters.purge(fn_id="f2", app_id="a2", limit=100) == 0
    assert await letters.purge(older_than=old, limit=100) == 0
    assert await letters.purge(older_than=between, limit=100) == 3
    assert [await letters.count(fn_id) for fn_id in ("f1", "f2", "f3")] == [0, 1, 1]
    assert await letters.purge(app_id="a1", limit=100) == 1
    assert await letters.count() == 1


async def test_a_large_batch_is_stored_listed_and_removed_whole(letters: DeadLetters) -> None:
    some = [a_letter() for _ in range(1500)]
    await letters.put(some)
    await letters.put(some)
    assert await letters.count() == await letters.count("fn") == 1500
    assert ids(await letters.page(DeadLetterFilter(limit=2000))) == ids(some)[::-1]
    assert await letters.remove(ids(some)) == 1500


async def test_what_no_database_can_store_is_invalid(letters: DeadLetters) -> None:
    for letter in (a_letter(error="\ud800"), a_letter(fn_id="\ud800")):
        with pytest.raises(Invalid):
            await letters.put([letter])


async def test_a_letter_that_the_database_does_not_take_is_named_and_stops_no_other(
    nodes: Nodes, two_databases: tuple[Database, Database]
) -> None:
    letters, [database, _] = nodes[0], two_databases
    if database.backend.scheme != "mysql":
        most = 2**20  # the others take what a request may have
    else:
        most = int(await database.read(lambda it: it.scalar(text("SELECT @@max_allowed_packet"))))
    fits, small = a_letter(payload=b"x" * (most - 2**14)), a_letter()
    large, escaped = a_letter(payload=b"x" * most), a_letter(payload=b"'" * (most // 2))
    put = letters.put([large, fits, escaped, small])
    if database.backend.scheme != "mysql":
        await put
        assert await letters.count() == 4
    else:
        with pytest.raises(TooLarge) as raised:
            await put
        assert large.call.id in raised.value.detail
        assert escaped.call.id in raised.value.detail
        assert ids(await letters.page(DeadLetterFilter())) == [small.call.id, fits.call.id]
    assert (await letters.get(fits.call.id)).call.payload == fits.call.payload
