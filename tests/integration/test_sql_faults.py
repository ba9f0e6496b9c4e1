"""What goes wrong with database servers: refused, killed, held still, slow, cut, raced for a name."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore import open_datastore
from services.datastore.database import open_database
from services.datastore.tables import locks
from services.stores import Stores, StoreSettings, open_stores
from shared_models.app import App
from shared_models.call import Call
from shared_models.call_interfaces import Callback, DeadLetter
from shared_models.errors import AppExists, FnExists, StoreUnavailable, TriggerExists, TriggerSourceExists
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.interfaces import AppFilter, CallFilter
from shared_models.runner import RunnerState
from shared_models.trigger import Trigger
from tests.servers.mariadb import MariaDB
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.servers.proxy import Proxy, proxy
from tests.servers.server import Server

LIMIT = 60.0
"""Seconds that an answer may take at the very most, where the URL says two seconds."""
SHORT = "timeout=2&connect_timeout=2"
LONG = "timeout=50&connect_timeout=50"
KINDS: dict[str, type[Postgres] | type[MariaDB]] = {"postgres": Postgres, "mariadb": MariaDB}


@pytest.fixture(params=list(KINDS))
def shared(request: pytest.FixtureRequest) -> str:
    """The URL of a server that is there to stay."""
    return str(request.getfixturevalue(request.param).url)


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def own(request: pytest.FixtureRequest, own_server: Callable[..., Server]) -> Any:
    """A durable server of the test's own."""
    return own_server(request.param, True)


@pytest.fixture
async def between(own: Any) -> AsyncIterator[tuple[Proxy, str]]:
    """What is between a node and its server, and the URL through it."""
    async with proxy(own.port) as network:
        url = f"{own.url_of('fn')}?{LONG}"
        yield network, url.replace(f":{own.port}/", f":{network.port}/")


def settings(url: str) -> StoreSettings:
    return StoreSettings(datastore_url=url, queue_url="memory://")


def a_call() -> Call:
    return Call(id=new_id(), app_id="app", fn_id="fn", type="detached", path="/𠀋")


async def refusal(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """What the node's operator reads when a store cannot be opened."""
    async with asyncio.timeout(LIMIT):
        with pytest.raises(StoreUnavailable) as caught:
            async with open_stores(settings(url)):
                pass
    said = f"{caught.value} {caught.value.detail} {caplog.text}"
    lines = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(lines) <= 1, said
    assert all("\n" not in record.getMessage() for record in lines), said
    assert not {"hush", "secret"} & set(re.findall(r"\w+", said)), said
    return said


@pytest.mark.parametrize("scheme", ["postgres", "mysql"])
async def test_a_server_that_is_not_there_is_one_clear_line(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = await refusal(f"{scheme}://fn:hush@127.0.0.1:{free_port()}/fn", caplog)
    assert "refuses connections: is it running?" in said


async def test_a_wrong_password_is_one_clear_line(shared: str, caplog: pytest.LogCaptureFixture) -> None:
    said = await refusal(shared.replace(":secret@", ":hush@"), caplog)
    assert "refuses user 'fn': check user, password and rights (FN_DB_URL)" in said


async def test_an_unknown_database_is_one_clear_line(shared: str, caplog: pytest.LogCaptureFixture) -> None:
    said = await refusal(f"{shared.rpartition('/')[0]}/nowhere", caplog)
    assert "nowhere" in said


async def test_what_an_insert_has_answered_survives_a_kill_of_the_server(own: Any) -> None:
    answered: list[str] = []
    failed: list[BaseException] = []
    enough, over = asyncio.Event(), asyncio.Event()

    async def insert_on(stores: Stores) -> None:
        while not over.is_set():
            call = a_call()
            try:
                assert await stores.logstore.insert_call(call)
            except StoreUnavailable as exc:
                failed.append(exc)
                await asyncio.sleep(0)
                continue
            answered.append(call.id)
            if len(answered) >= 100:
                enough.set()

    async with open_stores(settings(own.url)) as stores, asyncio.timeout(6 * LIMIT):
        inserters = [asyncio.create_task(insert_on(stores)) for _ in range(8)]
        await enough.wait()
        await asyncio.to_thread(own.stop)
        while not failed:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(own.start)
        before = len(answered)
        while len(answered) < before + 100:
            await asyncio.sleep(0.01)
        over.set()
        await asyncio.gather(*inserters)
        for call_id in answered:
            assert (await stores.logstore.call(call_id)).status == "queued"
        app = await stores.datastore.insert_app(App(name="after"))
        assert await stores.datastore.app_id("after") == app.id


async def unavailable(*work: Coroutine[Any, Any, Any]) -> None:
    """All of *work* answers in time that the store does not."""
    ends = await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), LIMIT)
    assert [type(end) for end in ends] == [StoreUnavailable] * len(work), ends


async def again(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What the store answers once it has got over what happened to it."""
    async with asyncio.timeout(LIMIT):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await ask()
            await asyncio.sleep(0.05)


def questions(stores: Stores) -> list[Coroutine[Any, Any, Any]]:
    call = a_call()
    callback = Callback(
        call_id=call.id, attempt=1, fn_id="fn", app_id="app", status="error", url="", body=b"x"
    )
    return [
        stores.datastore.app_id("one"),
        stores.datastore.apps(AppFilter()),
        stores.datastore.insert_app(App(name="two")),
        stores.datastore.hold("cleaning", "me", 1),
        stores.datastore.set_runner_state("one", RunnerState.DRAINING),
        stores.dead_letters.put([DeadLetter(call=call)]),
        stores.dead_letters.get(call.id),
        stores.dead_letters.redrive(call.id, new_id()),
        stores.idempotency_keys.claim("fn", "key", call.id, 60),
        stores.outbox.put([callback]),
        stores.outbox.due(1, 60),
        stores.outbox.postpone(callback, 1),
        stores.logstore.insert_call(a_call()),
        stores.logstore.calls(CallFilter(fn_id="fn")),
        stores.logstore.log(new_id()),
    ]


async def test_a_server_that_is_held_still_is_unavailable_in_time_and_used_again(own: Any) -> None:
    url = f"{own.url_of('fn')}?{SHORT}"
    async with open_stores(settings(url)) as stores:
        app = await stores.datastore.insert_app(App(name="one"))
        own.pause()
        try:
            await unavailable(*questions(stores))
            async with asyncio.timeout(LIMIT):
                with pytest.raises(StoreUnavailable):
                    async with open_datastore(url):
                        pass
        finally:
            own.resume()
        assert await again(lambda: stores.datastore.app_id("one")) == app.id
        assert await again(lambda: stores.logstore.insert_call(a_call()))


async def test_a_network_that_hangs_is_unavailable_in_time_and_used_again(
    between: tuple[Proxy, str],
) -> None:
    network, url = between
    async with open_stores(settings(url.replace(LONG, SHORT))) as stores:
        app = await stores.datastore.insert_app(App(name="one"))
        network.hang()
        await unavailable(*questions(stores))
        network.flow()
        assert await again(lambda: stores.datastore.app_id("one")) == app.id


async def test_a_slow_server_gives_right_answers(between: tuple[Proxy, str]) -> None:
    network, url = between
    network.delay = 0.02
    async with asyncio.timeout(6 * LIMIT), open_stores(settings(url)) as stores:
        made = await asyncio.gather(
            *[stores.datastore.insert_app(App(name=f"app-{number}")) for number in range(10)]
        )
        assert [app.id for app in await stores.datastore.apps(AppFilter())] == [
            app.id for app in sorted(made, key=lambda app: app.name)
        ]


async def test_connections_that_break_are_replaced(between: tuple[Proxy, str]) -> None:
    network, url = between
    async with open_stores(settings(url)) as stores:
        app = await stores.datastore.insert_app(App(name="one"))
        network.cut()
        assert await stores.datastore.app_id("one") == app.id
        await network.refuse()
        await unavailable(*questions(stores))
        await network.accept()
        assert await stores.datastore.app_id("one") == app.id


async def test_when_all_connections_break_at_once_nobody_is_told(between: tuple[Proxy, str]) -> None:
    network, url = between
    async with open_stores(settings(url)) as stores:
        app = await stores.datastore.insert_app(App(name="one"))

        async def use() -> None:
            assert await stores.datastore.app_id("one") == app.id
            await stores.datastore.insert_app(App(name=f"a-{new_id().lower()}"))

        # So many that the pool is full of connections, all of them used a moment ago.
        await asyncio.gather(*[use() for _ in range(30)])
        network.cut()
        await asyncio.gather(*[use() for _ in range(30)])
        network.cut()
        await use()


async def test_the_largest_config_and_characters_of_four_bytes_come_back(shared: str) -> None:
    # Requests have at most 10 MiB by default (FN_MAX_REQUEST_SIZE).
    config = {"BIG": '𠀋é\\"' * (1 << 20), "𝒌": "💾"}
    name = new_id()
    async with open_datastore(shared) as datastore:
        app = await datastore.insert_app(App(name=name, config=config))
        fn = await datastore.insert_fn(Fn(name="𠀋", app_id=app.id, image="a/b:1", config=config))
        assert (await datastore.app(app.id)).config == config
        assert (await datastore.fn(fn.id)).config == config
        await datastore.remove_app(app.id)


async def test_of_nodes_that_race_for_a_name_one_wins(shared: str) -> None:
    async with open_datastore(shared) as one, open_datastore(shared) as other:
        nodes = (one, other, one, other)

        async def race(makes: list[Coroutine[Any, Any, Any]], loses: type[Exception]) -> Any:
            ends = await asyncio.gather(*makes, return_exceptions=True)
            (winner,) = [end for end in ends if not isinstance(end, BaseException)]
            assert [type(end) for end in ends if end is not winner] == [loses] * (len(makes) - 1), ends
            return winner

        for _ in range(10):
            name = new_id()
            app = await race([node.insert_app(App(name=name)) for node in nodes], AppExists)
            fn = await race(
                [node.insert_fn(Fn(name="fn", app_id=app.id, image="a/b:1")) for node in nodes], FnExists
            )
            named = [
                Trigger(name="t", app_id=app.id, fn_id=fn.id, type="http", source=f"/{number}")
                for number in range(len(nodes))
            ]
            await race(
                [node.insert_trigger(one) for node, one in zip(nodes, named, strict=True)], TriggerExists
            )
            sourced = [
                Trigger(name=f"t-{number}", app_id=app.id, fn_id=fn.id, type="http", source="/t")
                for number in range(len(nodes))
            ]
            won = await race(
                [node.insert_trigger(one) for node, one in zip(nodes, sourced, strict=True)],
                TriggerSourceExists,
            )
            assert (await other.trigger_by_source(app.id, "http", "/t")).id == won.id
            await one.remove_app(app.id)


async def test_a_node_that_vanishes_within_a_transaction_keeps_its_locks_for_a_while_only(
    shared: str,
) -> None:
    async with open_database(f"{shared}?timeout=1") as gone, open_database(shared) as other:
        rows = delete(locks)
        await other.transact(lambda connection: connection.execute(rows))
        await other.transact(lambda connection: connection.execute(insert(locks), a_lock()))
        async with asyncio.timeout(LIMIT), gone.backend.engine.connect() as silent:
            await silent.execute(select(locks).with_for_update())
            await other.transact(lambda connection: connection.execute(rows))
            await silent.invalidate()


async def test_a_server_that_is_gone_is_told_once_however_many_ask(
    between: tuple[Proxy, str], caplog: pytest.LogCaptureFixture
) -> None:
    network, url = between
    async with open_datastore(url) as datastore:
        for gone in (1, 2):
            await network.refuse()
            asked = await asyncio.gather(
                *[datastore.apps(AppFilter()) for _ in range(50)], return_exceptions=True
            )
            assert {type(one) for one in asked} == {StoreUnavailable}
            assert [record.levelname for record in caplog.records].count("ERROR") == gone
            await network.accept()
            await datastore.apps(AppFilter())


@pytest.mark.parametrize("failure", [StoreUnavailable, AppExists, ZeroDivisionError])
async def test_work_that_fails_leaves_nothing_open_on_its_connection(
    shared: str, failure: type[Exception]
) -> None:
    rows = delete(locks)

    async def failing(connection: AsyncConnection) -> None:
        await connection.execute(rows)
        raise failure

    async with open_database(f"{shared}?pool_size=1") as one, open_database(f"{shared}?timeout=5") as other:
        await one.transact(lambda connection: connection.execute(rows))
        await one.transact(lambda connection: connection.execute(insert(locks), a_lock()))
        with pytest.raises(failure):
            await one.transact(failing)
        await other.transact(lambda connection: connection.execute(update(locks).values(holder="other")))
        holder = select(locks.c.holder)
        assert await one.read(lambda connection: connection.scalar(holder)) == "other"
        await other.transact(lambda connection: connection.execute(update(locks).values(holder="it again")))
        assert await one.read(lambda connection: connection.scalar(holder)) == "it again"
        await other.transact(lambda connection: connection.execute(rows))


def a_lock() -> dict[str, Any]:
    return {"name": "lock", "holder": "node", "until": 0.0}
