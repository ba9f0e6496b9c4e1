"""Every implementation of each contract, behind one fixture a contract.

A new one is one opener and one entry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from api_node.app import APISettings, api_routes
from hybrid_client.client import ClientSettings, open_data_access
from services import urls
from services.call_control import StoresCallControl
from services.data_access import DirectDataAccess
from services.datastore.database import Database, open_database
from services.datastore.sql import SQLDatastore
from services.datastore.tables import metadata
from services.listening import ListeningDatastore
from services.logstore.s3 import open_s3_logstore
from services.logstore.sql import SQLLogStore
from services.queue import open_queue, redis, sql, sqlite
from services.stores import Stores
from shared_models.async_policy import AsyncSettings
from shared_models.ids import new_id
from shared_models.interfaces import DataAccess, Datastore, LogStore, MessageQueue
from shared_models.listeners import Listener, Listeners
from shared_models.web import HTTPSettings, serving

AT_ONCE = AsyncSettings(backoff=0.0)
"""No pause between attempts."""


class Clock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        """Lets *seconds* pass."""
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Here:
    """What an opener may use: a *folder* of its own, the test's *clock*, servers once it asks for them.

    *fresh* is a name that no other test has.
    """

    request: pytest.FixtureRequest
    folder: Path
    clock: Clock
    fresh: str = field(default_factory=lambda: f"t-{new_id().lower()}")

    def url(self, server: str) -> str:
        """The URL of the server that is the fixture *server*."""
        url = str(self.request.getfixturevalue(server).url)
        # To read the system's certificates takes longer than many a test; servers of ours have no TLS.
        return f"{url}?sslmode=disable" if server in ("postgres", "mariadb") and "?" not in url else url


Opener = Callable[[Here], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def emptied(url: str) -> AsyncIterator[Database]:
    """A database on a server that all tests share, without what earlier ones left."""
    async with open_database(url) as database:

        async def work(connection: AsyncConnection) -> None:
            for table in reversed(metadata.sorted_tables):
                await connection.execute(delete(table))

        await database.transact(work)
        yield database


@asynccontextmanager
async def sqlite_database(here: Here) -> AsyncIterator[Database]:
    async with open_database(f"sqlite:///{here.folder}/fn.db") as database:
        yield database


def server_database(server: str) -> Opener:
    def opened(here: Here) -> AbstractAsyncContextManager[Database]:
        return emptied(here.url(server))

    return opened


@asynccontextmanager
async def sqlite_datastore(here: Here) -> AsyncIterator[Datastore]:
    async with open_database(f"sqlite:///{here.folder}/fn.db") as database:
        yield SQLDatastore(database, here.clock)


@asynccontextmanager
async def memory_datastore(here: Here) -> AsyncIterator[Datastore]:
    async with open_database("sqlite://") as database:
        yield SQLDatastore(database, here.clock)


@asynccontextmanager
async def listening_datastore(here: Here) -> AsyncIterator[Datastore]:
    """With a listener of each kind that changes nothing."""
    listeners = Listeners()
    for kind in (listeners.apps, listeners.fns, listeners.routes, listeners.triggers):
        kind.add("test", Listener())
    async with memory_datastore(here) as inner:
        yield ListeningDatastore(inner, listeners)


def server_datastore(server: str) -> Opener:
    @asynccontextmanager
    async def opened(here: Here) -> AsyncIterator[Datastore]:
        async with emptied(here.url(server)) as database:
            yield SQLDatastore(database, here.clock)

    return opened


@asynccontextmanager
async def sqlite_logstore(here: Here) -> AsyncIterator[LogStore]:
    async with open_database(f"sqlite:///{here.folder}/fn.db") as database:
        yield SQLLogStore(database, here.clock)


def server_logstore(server: str) -> Opener:
    @asynccontextmanager
    async def opened(here: Here) -> AsyncIterator[LogStore]:
        async with emptied(here.url(server)) as database:
            yield SQLLogStore(database, here.clock)

    return opened


@asynccontextmanager
async def s3_logstore(here: Here) -> AsyncIterator[LogStore]:
    address = urls.parse(f"{here.url('s3')}?prefix={here.fresh}", "FN_LOGSTORE_URL", ("s3",))
    async with open_s3_logstore(address, here.clock) as store:
        yield store


@asynccontextmanager
async def memory_queue(here: Here) -> AsyncIterator[MessageQueue]:
    async with open_queue("memory://", clock=here.clock) as queue:
        yield queue


@asynccontextmanager
async def sqlite_queue(here: Here) -> AsyncIterator[MessageQueue]:
    async with open_queue(f"sqlite:///{here.folder}/queue.db", clock=here.clock) as queue:
        yield queue


def server_queue(server: str) -> Opener:
    @asynccontextmanager
    async def opened(here: Here) -> AsyncIterator[MessageQueue]:
        url = here.url(server)
        async with emptied(url), open_queue(url, clock=here.clock) as queue:
            yield queue

    return opened


@asynccontextmanager
async def redis_queue(here: Here) -> AsyncIterator[MessageQueue]:
    url = f"{here.url('redis_server')}?prefix={here.fresh}"
    async with open_queue(url, clock=here.clock) as queue:
        yield queue


@asynccontextmanager
async def sqlite_stores(here: Here) -> AsyncIterator[Stores]:
    async with (
        open_database(f"sqlite:///{here.folder}/fn.db") as database,
        sqlite_queue(here) as queue,
    ):
        yield Stores.on(database, SQLLogStore(database, here.clock), queue, here.clock)


def server_stores(server: str) -> Opener:
    """One database and nothing else."""

    @asynccontextmanager
    async def opened(here: Here) -> AsyncIterator[Stores]:
        url = here.url(server)
        async with emptied(url) as database, open_queue(url, clock=here.clock) as queue:
            yield Stores.on(database, SQLLogStore(database, here.clock), queue, here.clock)

    return opened


@asynccontextmanager
async def split_stores(here: Here) -> AsyncIterator[Stores]:
    """PostgreSQL, Redis and S3, each for what it is best at."""
    async with (
        emptied(here.url("postgres")) as database,
        s3_logstore(here) as logstore,
        redis_queue(here) as queue,
    ):
        yield Stores.on(database, logstore, queue, here.clock)


@asynccontextmanager
async def direct(stores: Stores, clock: Clock) -> AsyncIterator[DataAccess]:
    yield DirectDataAccess(stores, AT_ONCE, clock=clock)


@asynccontextmanager
async def over_http(stores: Stores, clock: Clock) -> AsyncIterator[DataAccess]:
    below = DirectDataAccess(stores, AT_ONCE, clock=clock)
    control = StoresCallControl(stores, below, AT_ONCE, clock)
    routes = api_routes(stores, below, control, APISettings(runner_tokens=("secret",)))
    async with (
        serving(routes, HTTPSettings(port=0, host="127.0.0.1", drain=1.0), node_type="api") as port,
        open_data_access(
            ClientSettings(api_urls=(f"http://127.0.0.1:{port}",), token="secret", max_pause=0.05)
        ) as client,
    ):
        yield client


DATABASES: dict[str, Opener] = {
    "sqlite": sqlite_database,
    "postgres": server_database("postgres"),
    "mariadb": server_database("mariadb"),
}
DATASTORES: dict[str, Opener] = {
    "sqlite": sqlite_datastore,
    "memory": memory_datastore,
    "listening": listening_datastore,
    "postgres": server_datastore("postgres"),
    "mariadb": server_datastore("mariadb"),
}
LOGSTORES: dict[str, Opener] = {
    "sqlite": sqlite_logstore,
    "postgres": server_logstore("postgres"),
    "mariadb": server_logstore("mariadb"),
    "s3": s3_logstore,
}
QUEUES: dict[str, Opener] = {
    "memory": memory_queue,
    "sqlite": sqlite_queue,
    "postgres": server_queue("postgres"),
    "mariadb": server_queue("mariadb"),
    "redis": redis_queue,
}
STORES: dict[str, Opener] = {
    "sqlite": sqlite_stores,
    "postgres": server_stores("postgres"),
    "mariadb": server_stores("mariadb"),
    "postgres+redis+s3": split_stores,
}
DATA_ACCESS: dict[str, Callable[..., AbstractAsyncContextManager[DataAccess]]] = {
    "direct": direct,
    "over_http": over_http,
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits does not look by itself now and then: what does not wake it is found out."""
    monkeypatch.setattr(sqlite, "LOOK_EVERY", 600.0)
    monkeypatch.setattr(redis, "LOOK_EVERY", 600.0)
    monkeypatch.setattr(sql, "LOOK_EVERY", dict.fromkeys(sql.LOOK_EVERY, 600.0))


@pytest.fixture
def here(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Here:
    return Here(request, tmp_path, clock)


@pytest.fixture(params=DATABASES.values(), ids=DATABASES.keys())
async def two_databases(
    request: pytest.FixtureRequest, here: Here
) -> AsyncIterator[tuple[Database, Database]]:
    """One database, as two nodes have it."""
    async with request.param(here) as one, request.param(here) as other:
        yield one, other


@pytest.fixture(params=DATASTORES.values(), ids=DATASTORES.keys())
async def datastore(request: pytest.FixtureRequest, here: Here) -> AsyncIterator[Datastore]:
    async with request.param(here) as opened:
        yield opened


@pytest.fixture(params=LOGSTORES.values(), ids=LOGSTORES.keys())
async def logstore(request: pytest.FixtureRequest, here: Here) -> AsyncIterator[LogStore]:
    async with request.param(here) as opened:
        yield opened


@pytest.fixture
def many(request: pytest.FixtureRequest) -> int:
    """More calls than fit into one statement; fewer on S3, where a call is several requests."""
    return 150 if "s3" in request.node.name else 1500


@pytest.fixture(params=QUEUES.values(), ids=QUEUES.keys())
async def queue(request: pytest.FixtureRequest, here: Here) -> AsyncIterator[MessageQueue]:
    async with request.param(here) as opened:
        yield opened


@pytest.fixture(params=[name for name in QUEUES if name != "memory"])
async def two_nodes(
    request: pytest.FixtureRequest, here: Here
) -> AsyncIterator[tuple[MessageQueue, MessageQueue]]:
    """Two queues on one backend, as two nodes have them; one in memory is its node's alone."""
    opener = QUEUES[request.param]
    async with opener(here) as one, opener(here) as other:
        yield one, other


@pytest.fixture(params=STORES.values(), ids=STORES.keys())
async def stores(request: pytest.FixtureRequest, here: Here) -> AsyncIterator[Stores]:
    """What lies below ``data``: a test looks and interferes here."""
    async with request.param(here) as opened:
        yield opened


@pytest.fixture(params=DATA_ACCESS.values(), ids=DATA_ACCESS.keys())
async def data(request: pytest.FixtureRequest, stores: Stores, clock: Clock) -> AsyncIterator[DataAccess]:
    async with request.param(stores, clock) as opened:
        yield opened
