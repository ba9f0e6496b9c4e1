"""The usual steps of calls on PostgreSQL and MariaDB: in statements of many rows, as one by one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore import raw
from services.datastore.database import Database, open_database
from services.datastore.tables import calls
from services.logstore import arrays
from services.logstore.sql import SQLLogStore
from shared_models import errors, times
from shared_models.async_policy import KEEP_RESULT
from shared_models.call import Call, Finished, Lease, LeasedCall, LeaseKey, Stat
from shared_models.ids import new_id
from tests.servers.postgres import Postgres
from tests.servers.server import Server

LIMIT = 60.0
NODE = "node'\"\\"
ODD = "a'b\"c\\d\0e\n,{}NULL 𠀋"


@pytest.fixture(params=["postgres", "mariadb"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """On a server that is there to stay."""
    async with open_database(request.getfixturevalue(request.param).url) as database:
        yield database


@pytest.fixture
def store(database: Database) -> SQLLogStore:
    return SQLLogStore(database)


def some(count: int, type_: str = "detached") -> list[Call]:
    return [Call(id=new_id(), app_id="app", fn_id="fn", type=type_, image="i") for _ in range(count)]


def leases(calls: Sequence[Call], attempt: int = 1) -> list[LeasedCall]:
    return [
        LeasedCall(call=call, lease=Lease(token=f"{attempt}{call.id}", attempt=attempt, ttl=30))
        for call in calls
    ]


def ended(one: LeasedCall, **more: object) -> Finished:
    log = more.pop("log", b"")
    assert isinstance(log, bytes)
    told = {"status": "success", "attempt": 1, "started_at": times.now(), "completed_at": times.now(), **more}
    fields = {name: getattr(one.call, name) for name in Call.__struct_fields__}
    return Finished(call=Call(**{**fields, **told}), log=log, token=one.key.token)


async def made(store: SQLLogStore, count: int) -> list[LeasedCall]:
    new = some(count)
    assert all(await asyncio.gather(*map(store.insert_call, new)))
    return leases(new)


async def started(store: SQLLogStore, leased: Sequence[LeasedCall]) -> list[BaseException | None]:
    starts = [store.start_call(one.key, times.now()) for one in leased]
    return await asyncio.gather(*starts, return_exceptions=True)


async def log_of(store: SQLLogStore, call_id: str) -> bytes:
    return b"".join([piece async for piece in await store.log(call_id)])


@pytest.mark.parametrize("count", [1, 600])
async def test_many_calls_go_through_all_their_steps(store: SQLLogStore, count: int) -> None:
    leased = await made(store, count)
    assert await store.claim(leased, NODE) == []
    claimed = await store.call(leased[-1].call.id)
    assert (claimed.status, claimed.attempt, claimed.node) == ("queued", 1, NODE)
    assert await started(store, leased) == [None] * count
    assert (await store.call(leased[0].call.id)).status == "running"
    ends = [ended(one, log=b"%d" % number if number % 2 else b"") for number, one in enumerate(leased)]
    assert await store.finish_calls(ends) == []
    for number in {0, 1, count // 2, count - 1} & set(range(count)):
        record = await store.call(leased[number].call.id)
        assert (record.status, record.completed_at) == ("success", ends[number].call.completed_at)
        assert await log_of(store, record.id) == ends[number].log
    assert await store.finish_calls(ends) == []  # the same again is no other result


async def test_odd_values_are_kept_as_one_by_one(store: SQLLogStore) -> None:
    [leased] = await made(store, 1)
    assert await store.claim([leased], ODD) == []
    assert await started(store, [leased]) == [None]
    stats = [Stat(timestamp=times.now(), metrics={"cpu": 7, "memory": 2**40})]
    body = bytes(range(256)) * 1024
    end = ended(leased, status="error", error=ODD, stats=stats, log=body)
    assert await store.finish_calls([end]) == []
    sync = ended(LeasedCall(call=some(1, "sync")[0]), path=ODD, error=ODD, log=b"\0")
    assert await store.finish_calls([sync]) == []
    record, other = await store.call(end.call.id), await store.call(sync.call.id)
    kept = {ODD, ODD.replace("\0", "\u2400")}
    assert {record.error, record.node, other.error, other.path} <= kept
    assert record.stats == stats
    assert await log_of(store, record.id) == body
    assert await log_of(store, other.id) == b"\0"


async def test_a_value_that_cannot_be_stored_is_refused_and_leaves_the_others(store: SQLLogStore) -> None:
    fine, bad = some(2)
    wrong = Call(id=bad.id, app_id="app", fn_id="fn", type="detached", image="\ud800")
    outcomes = await asyncio.gather(store.insert_call(fine), store.insert_call(wrong), return_exceptions=True)
    assert outcomes[0] is True
    assert isinstance(outcomes[1], errors.Invalid)
    [leased] = await made(store, 1)
    with pytest.raises(errors.Invalid):
        await store.claim([leased], "n" * 300)


async def test_a_call_that_is_there_is_told_and_the_others_are_made(store: SQLLogStore) -> None:
    first, *others = some(40)
    assert await store.insert_call(first)
    assert await asyncio.gather(*map(store.insert_call, [*others, first])) == [True] * 39 + [False]
    assert (await store.call(others[-1].id)).status == "queued"


async def test_what_is_not_as_usual_is_judged_and_the_rest_is_done(store: SQLLogStore) -> None:
    final, later, usual = await made(store, 3)
    [unknown] = leases(some(1))
    second = leases([later.call], 2)
    assert await store.claim([final, *second], NODE) == []
    assert await store.finish_calls([ended(final)]) == []
    assert await store.claim([final, later, usual, unknown], NODE) == [final.call.id]
    outcomes = await started(store, [final, later, usual, unknown])
    assert [type(one) for one in outcomes] == [errors.LeaseLost, errors.LeaseLost, type(None), type(None)]
    others = ended(usual, fn_id="another")
    assert await store.finish_calls([ended(later), others, ended(unknown)]) == [later.call.id, usual.call.id]
    assert (await store.call(unknown.call.id)).status == "success"
    assert (await store.call(usual.call.id)).status == "running"


async def test_a_start_without_a_token_takes_the_record_over(store: SQLLogStore) -> None:
    held, named = await made(store, 2)
    assert await store.claim([held, named], NODE) == []
    anybody = LeasedCall(call=held.call)
    assert await started(store, [named, anybody]) == [None, None]
    assert await store.finish_calls([ended(held), ended(named)]) == [held.call.id]
    assert await store.finish_calls([ended(anybody)]) == []


async def test_a_call_that_is_in_a_batch_twice_ends_once(store: SQLLogStore) -> None:
    [one] = await made(store, 1)
    assert await store.claim([one], NODE) == []
    end = ended(one, log=b"first")  # at another time it would be another result
    again = Finished(call=end.call, log=b"second", token=end.token)
    assert await store.finish_calls([end, again]) == []
    assert await log_of(store, one.call.id) == b"first"


async def test_logs_too_large_for_one_statement_are_stored(store: SQLLogStore) -> None:
    leased = await made(store, 3)
    assert await store.claim(leased, NODE) == []
    ends = [ended(one, log=bytes([number]) * 2**22) for number, one in enumerate(leased)]
    assert await store.finish_calls(ends) == []
    assert [await log_of(store, one.call.id) == one.log for one in ends] == [True] * 3


async def test_ends_without_results_to_keep_name_their_table_in_no_statement(
    store: SQLLogStore, database: Database
) -> None:
    said: list[str] = []
    event.listen(
        database.backend.engine.sync_engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, *_: said.append(statement),
    )
    leased = await made(store, 4)
    assert await store.claim(leased, NODE) == []
    keep = {"annotations": {KEEP_RESULT: msgspec.Raw(b"true")}}
    answers = [
        ended(leased[0], log=b"log"),
        ended(leased[1], **keep),
        msgspec.structs.replace(ended(leased[2]), body=b"for a callback", answered=True),
        msgspec.structs.replace(ended(leased[3], **keep), body=b"x" * 2**17, answered=True),
    ]
    for one, kept in zip(answers, (0, 0, 0, 1), strict=True):
        said.clear()
        assert await store.finish_calls([one]) == []
        assert said
        assert sum("INTO results" in statement for statement in said) == kept


async def test_many_results_are_kept_in_one_batch_also_too_large_for_one_statement(
    store: SQLLogStore,
) -> None:
    leased = await made(store, 40)
    assert await store.claim(leased, NODE) == []
    keep = {"annotations": {KEEP_RESULT: msgspec.Raw(b"true")}}
    for some, size in ((leased[:30], 70_000), (leased[30:], 2**20)):
        ends = [
            msgspec.structs.replace(ended(one, **keep, log=b"log"), body=bytes([place]) * size, answered=True)
            for place, one in enumerate(some)
        ]
        assert await store.finish_calls(ends) == []
        assert await store.finish_calls(ends) == []
        for end in ends:
            found = await store.result(end.call.id)
            assert b"".join([piece async for piece in found.body]) == end.body
            assert await log_of(store, end.call.id) == b"log"


async def test_steps_that_want_the_same_rows_in_other_orders_all_end(
    store: SQLLogStore, caplog: pytest.LogCaptureFixture
) -> None:
    leased = await made(store, 64)
    orders = [leased, leased[::-1], leased[32:] + leased[:32], leased[::2] + leased[1::2]]
    async with asyncio.timeout(LIMIT):
        for attempt in range(1, 16):
            claims = [leases([one.call for one in order], attempt) for order in orders]
            assert await asyncio.gather(*[store.claim(some, NODE) for some in claims]) == [[]] * 4
        last = leases([one.call for one in leased], 15)
        ends = [[ended(one, log=b"x") for one in order] for order in (last, last[::-1])]
        ends[1] = [*ends[0][::-1]]
        assert await asyncio.gather(*map(store.finish_calls, ends)) == [[], []]
    assert not caplog.records


# -- PostgreSQL --------------------------------------------------------------------------------


@pytest.fixture
async def own(own_server: Callable[..., Server]) -> AsyncIterator[tuple[Postgres, Database]]:
    """A server of the test's own, and its database of one connection."""
    server = own_server(Postgres)
    assert isinstance(server, Postgres)
    async with open_database(server.url_of("fn", pool_size=1)) as database:
        yield server, database


async def deadlocks(connection: AsyncConnection) -> int:
    await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    query = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(await connection.scalar(query) or 0)


async def test_usual_steps_need_no_transaction_of_several_statements(
    own: tuple[Postgres, Database],
) -> None:
    database = own[1]
    said: list[str] = []
    event.listen(
        database.backend.engine.sync_engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, *_: said.append(statement.split()[0]),
    )
    store = SQLLogStore(database)
    leased = await made(store, 100)
    assert await store.claim(leased, NODE) == []
    assert await started(store, leased) == [None] * 100
    assert await store.finish_calls([ended(one, log=b"log") for one in leased]) == []
    sync = [ended(one) for one in leases(some(100, "sync"))]
    assert await store.finish_calls([Finished(call=one.call, log=b"log") for one in sync]) == []
    assert said == ["INSERT", "UPDATE", "UPDATE", "WITH", "WITH"]


async def test_a_statement_waits_for_rows_in_order_and_locks_nobody_out(postgres: Server) -> None:
    async with open_database(postgres.url) as database:
        store = SQLLogStore(database)
        leased = await made(store, 2)
        low, high = (one.call.id for one in leased)
        before = await database.read(deadlocks)

        async def holding(connection: AsyncConnection) -> None:
            lock = calls.select().with_for_update()
            await connection.execute(lock.where(calls.c.id == low))
            claim.append(asyncio.create_task(store.claim(leased[::-1], NODE)))
            # It waits for the first row, and has not taken the second: otherwise this would be a deadlock.
            while not await connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                await asyncio.sleep(0.01)
            await connection.execute(lock.where(calls.c.id == high))

        claim: list[asyncio.Task[list[str]]] = []
        async with asyncio.timeout(LIMIT):
            await database.transact(holding)
            assert await claim[0] == []
        assert await database.read(deadlocks) == before


async def test_plans_go_by_ids_also_when_statistics_say_that_nothing_is_queued(
    own: tuple[Postgres, Database],
) -> None:
    store = SQLLogStore(own[1])
    assert await store.finish_calls([ended(LeasedCall(call=one)) for one in some(2_000, "sync")]) == []

    async def plans(connection: AsyncConnection) -> str:
        await connection.execute(text("VACUUM ANALYZE calls"))
        await connection.execute(text("SET plan_cache_mode = force_generic_plan"))
        said = ""
        for name, statement, count in (
            ("claim", arrays.CLAIM, 4), ("start", arrays.START, 3), ("ends", arrays.END, 10)
        ):  # fmt: skip
            await connection.exec_driver_sql(f"PREPARE {name} AS {statement}")
            values = ", ".join(["NULL"] * count)
            rows = await connection.exec_driver_sql(f"EXPLAIN EXECUTE {name} ({values})")
            said += "\n".join(row[0] for row in rows)
        return said

    said = await own[1].read(plans)
    assert said.count("Nested Loop") == 3, said
    assert len(re.findall(r"Index Cond: .*\(id\)::text = \(?new\.id", said)) == 3, said


async def test_a_connection_that_the_server_closed_is_replaced_before_anything_is_sent(
    own: tuple[Postgres, Database],
) -> None:
    server, database = own
    store = SQLLogStore(database)
    [first] = await made(store, 1)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    [second] = await made(store, 1)
    assert await store.claim([first, second], NODE) == []


async def test_a_step_whose_connection_is_cut_is_repeated_and_an_insert_is_not(
    own: tuple[Postgres, Database],
) -> None:
    database = own[1]
    cut = "SELECT pg_terminate_backend(pg_backend_pid())"
    assert await raw.run(database.backend.engine, cut, [], repeatable=True) is None
    with pytest.raises(errors.StoreUnavailable):
        await database.at_once(cut, [])
    assert await database.at_once("SELECT 1 AS one", []) == [(1,)]


async def test_a_step_that_is_left_leaves_its_connection_to_nobody(own: tuple[Postgres, Database]) -> None:
    database = own[1]
    sleeping = asyncio.create_task(raw.run(database.backend.engine, "SELECT pg_sleep(600)", []))
    async with asyncio.timeout(LIMIT):
        while database.backend.engine.pool.status().count("Current Checked out connections: 1") == 0:
            await asyncio.sleep(0.01)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert await SQLLogStore(database).insert_call(some(1)[0])
    key = LeaseKey("none", "token")
    with pytest.raises(errors.LeaseLost):
        await SQLLogStore(database).start_call(key, times.now())
