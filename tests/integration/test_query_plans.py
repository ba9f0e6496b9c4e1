"""Every page is a short range of an index on each SQL database: no table is read whole, nothing is sorted.

The statements are those that the stores send, and the plans are those of filled, analysed tables. What is
asked for is the oldest third, where a search from the newest on in the order of ids takes longest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Index, delete, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database, open_database
from services.datastore.dead_letters import SQLDeadLetters
from services.datastore.idempotency import SQLIdempotencyKeys
from services.datastore.outbox import SQLOutbox
from services.datastore.sql import SQLDatastore
from services.datastore.tables import (
    apps,
    callbacks,
    calls,
    dead_letters,
    fns,
    idempotency_keys,
    logs,
    metadata,
    routes,
    triggers,
)
from services.logstore import removal
from services.logstore.records import insert_rows, row_of
from services.logstore.sql import SQLLogStore
from shared_models import errors, ids, times
from shared_models.app import App
from shared_models.call import Call
from shared_models.call_interfaces import Callback, DeadLetterFilter
from shared_models.fn import Fn
from shared_models.interfaces import AppFilter, CallFilter, FnFilter, Purge, RouteFilter, TriggerFilter
from shared_models.route import Route
from shared_models.trigger import Trigger
from tests.integration.query_plans import captured, plan_of

CALLS, OLD, RESOURCES = 36_000, 12_000, 2_000
LETTERS = 6_000
"""Dead letters, keys and callbacks, of each: a sixth of the calls."""
START = times.seconds_of("2027-01-15T08:00:00.000Z")
ANALYZE = {"sqlite": ["ANALYZE"], "postgresql": ["ANALYZE"]}


def at(number: int) -> str:
    """When call *number* was made."""
    return times.to_text(START + 60 * number)


def an_id(number: int) -> str:
    return ids.IdMaker(1, lambda: START + 60 * number)()


def a_call(number: int) -> Call:
    owner = "old" if number < OLD else f"new{number % 5}"
    return Call(
        id=an_id(number),
        app_id=owner,
        fn_id=owner,
        path=f"/p{number % 3}",
        status=("success", "error", "timeout", "queued", "running", "success")[number // 3 % 6],
        type="sync",
        created_at=at(number),
    )


def a_letter(number: int) -> dict[str, Any]:
    call = a_call(CALLS // LETTERS * number)
    owner = {"call_id": call.id, "fn_id": call.fn_id, "app_id": call.app_id}
    rest = {"died_at": call.created_at, "redriven_as": "", "call": '{"id":"x"}', "payload": b"x" * 500}
    return owner | rest


def a_key(number: int) -> dict[str, Any]:
    owner = {"fn_id": f"fn{number % 50:05}", "key_hash": f"{number:032}", "call_id": an_id(number)}
    return owner | {"accepted": 1, "until": START + 60 * number}


def a_callback(number: int) -> dict[str, Any]:
    owner = {"call_id": an_id(number), "attempt": 1, "fn_id": "fn", "app_id": "app", "status": "success"}
    rest = {"url": "https://example.org", "body": b"x" * 500, "tries": 1, "created": START}
    return owner | rest | {"due": START + 60 * number}


def rows_of(made: list[Any], **more: Any) -> list[dict[str, Any]]:
    return [{**{name: getattr(one, name) for name in one.__struct_fields__}, **more} for one in made]


def changed_later(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """*rows* that were changed one after the other, some of which want warm containers."""
    return [
        {**row, "updated_at": at(number), "warm": "1" if number % 400 == 200 else ""}
        for number, row in enumerate(rows)
    ]


async def fill(url: str) -> None:
    """Thousands of everything in otherwise empty tables."""
    now = times.now()
    many = range(RESOURCES)
    made_apps = [App(name=f"app{i:05}").created(f"app{i:05}", now) for i in many]
    made_fns = [Fn(name=f"fn{i:05}", app_id="app00000", image="i").created(f"fn{i:05}", now) for i in many]
    made_triggers = [
        Trigger(
            name=f"t{i:05}", app_id="app00000", fn_id=f"fn{i // 500:05}", type="http", source=f"/{i}"
        ).created(f"t{i:05}", now)
        for i in many
    ]
    made_routes = [Route(app_id="app00000", path=f"/r{i:05}", image="i").created(now) for i in many]
    made_calls = [a_call(i) for i in range(CALLS)]

    async def work(connection: AsyncConnection) -> None:
        for table in reversed(metadata.sorted_tables):
            await connection.execute(delete(table))
        await insert_rows(connection, apps, changed_later(rows_of(made_apps)))
        await insert_rows(connection, fns, changed_later(rows_of(made_fns)))
        await insert_rows(connection, triggers, rows_of(made_triggers))
        await insert_rows(connection, routes, changed_later(rows_of(made_routes)))
        await insert_rows(connection, calls, [row_of(call, "", call.created_at) for call in made_calls])
        await insert_rows(
            connection, logs, [{"call_id": call.id, "piece": 0, "body": b"x"} for call in made_calls]
        )
        some = range(LETTERS)
        await insert_rows(connection, dead_letters, [a_letter(i) for i in some])
        await insert_rows(connection, idempotency_keys, [a_key(i) for i in some])
        await insert_rows(connection, callbacks, [a_callback(i) for i in some])

    async with open_database(url) as database:
        await database.transact(work)
        await database.transact(analyze)


async def analyze(connection: AsyncConnection) -> None:
    names = ", ".join(metadata.tables)
    for statement in ANALYZE.get(connection.dialect.name, [f"ANALYZE TABLE {names}"]):
        await connection.execute(text(statement))


async def empty(url: str) -> None:
    async def work(connection: AsyncConnection) -> None:
        for table in reversed(metadata.sorted_tables):
            await connection.execute(delete(table))

    async with open_database(url) as database:
        await database.transact(work)


@pytest.fixture(scope="module", params=["sqlite", "postgres", "mariadb"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """The URL of a filled database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('plans')}/fn.db"
    else:
        url = f"{request.getfixturevalue(request.param).url}?timeout=600"
    asyncio.run(fill(url))
    yield url
    asyncio.run(empty(url))


@pytest.fixture
async def database(filled: str) -> AsyncIterator[Database]:
    async with open_database(filled) as opened:
        yield opened


async def objections(
    database: Database, asked: Callable[[], Awaitable[object]], seeks: set[str]
) -> list[str]:
    """What is wrong with the plans of the queries that *asked* sends; they are to be bounded by *seeks*."""
    with captured(database) as statements:
        await asked()
    assert statements
    found = []
    for statement in statements:
        plan = await plan_of(database, statement)
        wrong = plan.wrong + [f"{name} does not bound it" for name in sorted(seeks - plan.seeks)]
        found += [f"{one}: {statement[0]}\n{plan.said}" for one in wrong]
    return found


MIDDLE = an_id(OLD // 2)
FROM, TO = at(OLD // 8), at(OLD // 2)
OWNERS: list[tuple[dict[str, str], set[str]]] = [
    ({"fn_id": "old"}, {"fn_id"}),
    ({"fn_id": "old", "status": "error"}, {"fn_id", "status"}),
    ({"app_id": "old"}, {"app_id"}),
    ({"app_id": "old", "path": "/p1"}, {"app_id", "path_hash"}),
    ({"status": "running"}, {"status"}),
]
PLACES: list[tuple[dict[str, str], set[str]]] = [
    ({}, set()),
    ({"before": MIDDLE}, {"id"}),
    ({"to_time": TO}, {"id"}),
    ({"from_time": FROM}, {"id"}),
    ({"from_time": FROM, "to_time": TO}, {"id"}),
    ({"from_time": FROM, "to_time": TO, "before": MIDDLE}, {"id"}),
]
PAGES = [
    pytest.param(CallFilter(**owner, **place), seeks | more, id="-".join([*owner, *place]))
    for owner, seeks in OWNERS
    for place, more in PLACES
]


@pytest.mark.parametrize(("page", "seeks"), PAGES)
async def test_a_page_of_calls_is_a_range_of_an_index(
    database: Database, page: CallFilter, seeks: set[str]
) -> None:
    store = SQLLogStore(database)
    assert await store.calls(page)
    assert await objections(database, lambda: store.calls(page), seeks) == []


@pytest.mark.parametrize("after", ["", "app01000"])
async def test_a_page_of_apps_is_a_range_of_an_index(database: Database, after: str) -> None:
    store = SQLDatastore(database)
    asked = AppFilter(after=after)
    seeks = {"name"} if after else set()
    assert await objections(database, lambda: store.apps(asked), seeks) == []


@pytest.mark.parametrize("after", ["", "fn01000"])
async def test_a_page_of_functions_is_a_range_of_an_index(database: Database, after: str) -> None:
    store = SQLDatastore(database)
    asked = FnFilter(app_id="app00000", after=after)
    assert await objections(database, lambda: store.fns(asked), {"app_id", "name"}) == []


@pytest.mark.parametrize("fn_id", ["", "fn00001"])
@pytest.mark.parametrize("after", [None, ("t00750", "t00750")])
async def test_a_page_of_triggers_is_a_range_of_an_index(
    database: Database, fn_id: str, after: tuple[str, str] | None
) -> None:
    store = SQLDatastore(database)
    asked = TriggerFilter(app_id="app00000", fn_id=fn_id, after=after)
    seeks = {"fn_id" if fn_id else "app_id"} | ({"name"} if after else set())
    assert await objections(database, lambda: store.triggers(asked), seeks) == []


@pytest.mark.parametrize("after", ["", "/r01000"])
async def test_a_page_of_routes_is_a_range_of_an_index(database: Database, after: str) -> None:
    store = SQLDatastore(database)
    asked = RouteFilter(app_id="app00000", after=after)
    assert await objections(database, lambda: store.routes(asked), {"app_id", "path"}) == []


async def test_what_is_invoked_is_found_by_an_index(database: Database) -> None:
    store = SQLDatastore(database)
    assert await objections(database, lambda: store.app_id("app00100"), {"name"}) == []
    route = await objections(database, lambda: store.route("app00000", "/r00100"), {"app_id", "path"})
    assert route == []
    seeks = {"app_id", "type", "source"}
    trigger = await objections(database, lambda: store.trigger_by_source("app00000", "http", "/100"), seeks)
    assert trigger == []


@pytest.mark.parametrize("number", [10, RESOURCES - 10])
async def test_what_has_changed_lately_is_a_range_of_an_index(database: Database, number: int) -> None:
    store = SQLDatastore(database)
    assert len(await store.changes(at(number), 100)) in (20, 100)
    assert await objections(database, lambda: store.changes(at(number), 100), set()) == []
    with captured(database) as statements:
        await store.changes(at(number), 100)
    seeks = [(await plan_of(database, statement)).seeks for statement in statements]
    assert ["updated_at" in one for one in seeks] == [True, True, False], "functions, routes; and their apps"
    assert "id" in seeks[2]


async def test_what_is_to_be_kept_warm_is_found_by_indexes(database: Database) -> None:
    store = SQLDatastore(database)
    assert len(await store.warm(100)) == 10
    found = await objections(database, lambda: store.warm(100), set())
    assert found == []
    with captured(database) as statements:
        await store.warm(100)
    seeks = [(await plan_of(database, statement)).seeks for statement in statements]
    assert all({"warm", "app_id", "id"} & one for one in seeks), seeks
    assert len(seeks) == 14, "apps; functions and routes by themselves and by each app; others' apps"


async def test_calls_that_wait_for_the_queue_are_found_by_an_index(database: Database) -> None:
    store = SQLLogStore(database)
    assert await objections(database, lambda: store.unqueued(TO, 100), {"status", "recorded_at"}) == []


async def test_a_call_and_its_log_are_found_by_their_key(database: Database) -> None:
    store = SQLLogStore(database)

    async def read_log() -> None:
        assert [piece async for piece in store._log_pieces(Call(id=MIDDLE))] == [b"x"]

    assert await objections(database, lambda: store.call(MIDDLE, fn_id="old"), {"id"}) == []
    assert await objections(database, read_log, {"call_id", "piece"}) == []


@pytest.mark.parametrize(
    ("page", "seeks"),
    [
        (DeadLetterFilter(before=MIDDLE), {"call_id"}),
        (DeadLetterFilter(fn_id="old"), {"fn_id"}),
        (DeadLetterFilter(fn_id="old", before=MIDDLE), {"fn_id", "call_id"}),
    ],
    ids=["before", "of-a-function", "of-a-function-before"],
)
async def test_a_page_of_dead_letters_is_a_range_of_an_index(
    database: Database, page: DeadLetterFilter, seeks: set[str]
) -> None:
    store = SQLDeadLetters(database)
    assert len(await store.page(page)) == page.limit
    assert await objections(database, lambda: store.page(page), seeks) == []


async def test_a_dead_letter_is_found_by_its_key(database: Database) -> None:
    store = SQLDeadLetters(database)
    letter = a_letter(100)["call_id"]
    assert await objections(database, lambda: store.get(letter), {"call_id"}) == []


class Undone(Exception):
    """Rolls back what a test removed."""


@pytest.mark.parametrize(
    ("remove", "seeks"),
    [
        (lambda connection: removal.expire_calls(connection, TO, 100), {"id"}),
        (lambda connection: removal.expire_logs(connection, TO, 100), {"call_id"}),
        (lambda connection: removal.remove_calls(connection, Purge(fn_id="old"), 100), {"fn_id", "status"}),
        (
            lambda connection: removal.remove_calls(connection, Purge(fn_id="old", to_time=TO), 100),
            {"fn_id", "status", "id"},
        ),
        (lambda connection: removal.remove_calls(connection, Purge(app_id="old"), 100), {"app_id"}),
    ],
    ids=["calls", "logs", "of-a-function", "of-a-time", "of-an-app"],
)
async def test_what_is_to_be_removed_is_found_by_an_index(
    database: Database, remove: Callable[[AsyncConnection], Awaitable[int]], seeks: set[str]
) -> None:
    async def work(connection: AsyncConnection) -> None:
        assert await remove(connection) == 100
        raise Undone

    async def asked() -> None:
        with pytest.raises(Undone):
            await database.transact(work)

    assert await objections(database, asked, seeks) == []


async def test_dead_letters_that_are_to_be_removed_are_found_by_an_index(database: Database) -> None:
    store = SQLDeadLetters(database)
    for owner in ("fn_id", "app_id"):
        found = await objections(
            database, lambda owner=owner: store.purge(**{owner: "old"}, limit=5), {owner}
        )
        assert found == []
    assert await objections(database, lambda: store.purge(older_than=TO, limit=5), {"died_at"}) == []


async def test_keys_are_found_by_their_hash_and_those_that_ran_out_by_an_index(database: Database) -> None:
    store = SQLIdempotencyKeys(database, lambda: START + 60 * 100)

    async def claim() -> None:
        assert await store.claim("fn00001", "key", "call", 60) == ("call", False)

    assert await objections(database, claim, {"fn_id", "key_hash"}) == []
    assert await objections(database, lambda: store.expire(5), {"until"}) == []


async def test_callbacks_that_are_due_are_found_by_an_index(database: Database) -> None:
    store = SQLOutbox(database, lambda: START + 60 * 1000)
    found: list[Callback] = []

    async def asked() -> None:
        found.extend(await store.due(5, 0))

    assert await objections(database, asked, {"due"}) == []
    assert [one.call_id for one in found] == [an_id(number) for number in range(5)]


@pytest.mark.parametrize(
    "index", sorted(calls.indexes, key=lambda index: str(index.name)), ids=lambda i: i.name
)
async def test_a_lost_index_is_noticed(database: Database, index: Index) -> None:
    store = SQLLogStore(database)

    async def all_pages() -> list[str]:
        found = await objections(database, lambda: store.unqueued(TO, 100), {"status", "recorded_at"})
        for page, seeks in [one.values for one in PAGES]:
            found += await objections(database, lambda page=page: store.calls(page), seeks)
        return found

    await database.transact(lambda connection: connection.run_sync(index.drop))
    try:
        found = await all_pages()
    except errors.StoreUnavailable as exc:
        found = [str(exc)]  # MariaDB is told the index, and says at once that there is none
    finally:
        await database.transact(lambda connection: connection.run_sync(index.create))
    assert found
