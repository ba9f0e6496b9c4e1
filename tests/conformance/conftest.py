"""Every implementation of each contract, behind one fixture a contract.

A new one is one opener and one entry. Openers are given a folder of their own and the test's clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from api_node.app import APISettings, api_routes
from hybrid_client.client import ClientSettings, open_data_access
from services.data_access import DirectDataAccess
from services.datastore.database import open_database
from services.datastore.sql import SQLDatastore
from services.listening import ListeningDatastore
from services.logstore.sql import SQLLogStore
from services.queue import open_queue
from services.stores import Stores
from shared_models.interfaces import DataAccess, Datastore, LogStore, MessageQueue
from shared_models.listeners import Listener, Listeners
from shared_models.web import HTTPSettings, serving


class Clock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        """Lets *seconds* pass."""
        self.now += seconds


Opener = Callable[..., AbstractAsyncContextManager]


@asynccontextmanager
async def sqlite_datastore(folder: Path, clock: Clock) -> AsyncIterator[Datastore]:
    async with open_database(f"sqlite:///{folder}/fn.db") as database:
        yield SQLDatastore(database, clock)


@asynccontextmanager
async def memory_datastore(folder: Path, clock: Clock) -> AsyncIterator[Datastore]:
    async with open_database("sqlite://") as database:
        yield SQLDatastore(database, clock)


@asynccontextmanager
async def listening_datastore(folder: Path, clock: Clock) -> AsyncIterator[Datastore]:
    """With a listener of each kind that changes nothing."""
    listeners = Listeners()
    for kind in (listeners.apps, listeners.fns, listeners.routes, listeners.triggers):
        kind.add("test", Listener())
    async with memory_datastore(folder, clock) as inner:
        yield ListeningDatastore(inner, listeners)


@asynccontextmanager
async def sqlite_logstore(folder: Path, clock: Clock) -> AsyncIterator[LogStore]:
    async with open_database(f"sqlite:///{folder}/fn.db") as database:
        yield SQLLogStore(database, clock)


@asynccontextmanager
async def memory_queue(folder: Path, clock: Clock) -> AsyncIterator[MessageQueue]:
    async with open_queue("memory://", clock=clock) as queue:
        yield queue


@asynccontextmanager
async def sqlite_queue(folder: Path, clock: Clock) -> AsyncIterator[MessageQueue]:
    async with open_queue(f"sqlite:///{folder}/queue.db", clock=clock) as queue:
        yield queue


@asynccontextmanager
async def direct(stores: Stores, clock: Clock) -> AsyncIterator[DataAccess]:
    yield DirectDataAccess(stores, clock=clock)


@asynccontextmanager
async def over_http(stores: Stores, clock: Clock) -> AsyncIterator[DataAccess]:
    routes = api_routes(stores, DirectDataAccess(stores, clock=clock), APISettings(runner_tokens=("secret",)))
    async with (
        serving(routes, HTTPSettings(port=0, host="127.0.0.1", drain=1.0), node_type="api") as port,
        open_data_access(ClientSettings(api_urls=(f"http://127.0.0.1:{port}",), token="secret")) as client,
    ):
        yield client


DATASTORES: dict[str, Opener] = {
    "sqlite": sqlite_datastore,
    "memory": memory_datastore,
    "listening": listening_datastore,
}
LOGSTORES: dict[str, Opener] = {"sqlite": sqlite_logstore}
QUEUES: dict[str, Opener] = {"memory": memory_queue, "sqlite": sqlite_queue}
DATA_ACCESS: dict[str, Opener] = {"direct": direct, "over_http": over_http}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=DATASTORES.values(), ids=DATASTORES.keys())
async def datastore(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Datastore]:
    async with request.param(tmp_path, clock) as opened:
        yield opened


@pytest.fixture(params=LOGSTORES.values(), ids=LOGSTORES.keys())
async def logstore(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[LogStore]:
    async with request.param(tmp_path, clock) as opened:
        yield opened


@pytest.fixture(params=QUEUES.values(), ids=QUEUES.keys())
async def queue(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[MessageQueue]:
    async with request.param(tmp_path, clock) as opened:
        yield opened


@pytest.fixture
async def stores(tmp_path: Path, clock: Clock) -> AsyncIterator[Stores]:
    """What lies below ``data``: a test looks and interferes here."""
    async with (
        open_database(f"sqlite:///{tmp_path}/fn.db") as database,
        open_queue(f"sqlite:///{tmp_path}/queue.db", clock=clock) as queue,
    ):
        yield Stores(SQLDatastore(database, clock), SQLLogStore(database, clock), queue)


@pytest.fixture(params=DATA_ACCESS.values(), ids=DATA_ACCESS.keys())
async def data(request: pytest.FixtureRequest, stores: Stores, clock: Clock) -> AsyncIterator[DataAccess]:
    async with request.param(stores, clock) as opened:
        yield opened
