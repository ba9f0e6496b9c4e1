"""Fixtures that tests of several kinds share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine.dockerd import engine as open_engine
from tests.engine.images import Images
from tests.engine.packages import Missing, missing
from tests.servers.given import Given
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.servers.s3 import S3
from tests.servers.server import Server, running

_TESTS = Path(__file__).parent
_LONG_FIRST = ("system", "images", "kubernetes", "docs", "engine", "conformance", "integration")
"""Folders whose files take long, begun early: else one worker is still at them when all others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which files are handed out to workers; within a file it stays."""

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(_TESTS).parts[0]
        return _LONG_FIRST.index(folder) if folder in _LONG_FIRST else len(_LONG_FIRST)

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder for what is made under the system's temporary folder: the killed leave nothing behind."""
    tmp_path_factory.getbasetemp()  # this one stays where it is, for a look at what failed
    folder = tempfile.mkdtemp(prefix="fnt-")  # short: sockets are in it
    os.chmod(folder, 0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def engine(temporary_folder: None) -> Iterator[str]:
    """The DOCKER_HOST of a container engine; without one, tests skip on a laptop and fail in CI."""
    try:
        with open_engine() as host:
            yield host
    except Missing as exc:
        missing(f"NO CONTAINER ENGINE: {exc}")


@pytest.fixture(scope="session")
def engine_images(engine: str) -> Images:
    """``need(name)`` makes a function image available in ``engine``."""
    return Images(engine)


def _server(kind: type[Server], variable: str) -> Iterator[Server | Given]:
    """One for all tests, which never stop it: that at the address in *variable*, or one of our own."""
    if url := os.environ.get(variable):
        yield Given(url)
        return
    try:
        with running(kind) as server:
            yield server
    except Missing as exc:
        missing(f"NO {kind.__name__.upper()}: {exc}")


@pytest.fixture(scope="session")
def postgres(temporary_folder: None) -> Iterator[Server | Given]:
    """A PostgreSQL server: ours, or the database of FN_TEST_POSTGRES_URL, which is emptied."""
    yield from _server(Postgres, "FN_TEST_POSTGRES_URL")


@pytest.fixture(scope="session")
def mariadb(temporary_folder: None) -> Iterator[Server | Given]:
    """A MariaDB server: ours, or the database of FN_TEST_MARIADB_URL, which is emptied."""
    yield from _server(MariaDB, "FN_TEST_MARIADB_URL")


@pytest.fixture(scope="session")
def redis_server(temporary_folder: None) -> Iterator[Server | Given]:
    """A Redis server: ours, or that of FN_TEST_REDIS_URL, where keys under prefixes of our own are left."""
    yield from _server(Redis, "FN_TEST_REDIS_URL")


@pytest.fixture(scope="session")
def s3(temporary_folder: None) -> Iterator[Server | Given]:
    """An S3 server: ours, or that of FN_TEST_S3_URL, where objects under prefixes of our own are left."""
    yield from _server(S3, "FN_TEST_S3_URL")


@pytest.fixture
def own_server(temporary_folder: None) -> Iterator[Callable[..., Server]]:
    """Starts servers of the test's own, which it may kill: ``own_server(Postgres, True)``."""
    with ExitStack() as stack:

        def start(kind: type[Server], *arguments: object) -> Server:
            try:
                return stack.enter_context(running(kind, *arguments))
            except Missing as exc:
                missing(f"NO {kind.__name__.upper()}: {exc}")

        yield start
