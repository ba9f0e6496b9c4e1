"""Databases whose disk is full: writes are refused, reads are answered, the node goes on."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from services.datastore import open_datastore
from shared_models.app import App
from shared_models.errors import StoreUnavailable
from shared_models.interfaces import AppFilter
from tests.engine.packages import missing
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres
from tests.servers.server import Server

LIMIT = 120.0
"""Seconds until a test is given up."""


@pytest.fixture
def small_disk(own_server: Callable[..., Server]) -> Iterator[Postgres]:
    """PostgreSQL whose database ``small`` is on a disk of 16 MB."""
    server = own_server(Postgres)
    assert isinstance(server, Postgres)
    disk = server.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        missing(f"NO SMALL DISK: {mounted.stderr.decode().strip()}")
    try:
        server.own(disk)
        disk.chmod(0o700)
        server.create_on(disk, "small")
        yield server
        server.stop()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_a_full_disk_refuses_writes_and_answers_reads(small_disk: Postgres) -> None:
    await fill(small_disk.url_of("small"))


async def test_a_full_table_space_refuses_writes_and_answers_reads(
    own_server: Callable[..., Server],
) -> None:
    options = ("--innodb-file-per-table=0", "--innodb-data-file-path=ibdata1:12M:autoextend:max:24M")
    await fill(own_server(MariaDB, False, *options).url)


async def fill(url: str) -> None:
    """Writes until the server refuses: that is StoreUnavailable, and nothing else changes."""
    async with open_datastore(url) as datastore, asyncio.timeout(LIMIT):
        first = await datastore.insert_app(App(name="first"))
        written = 0

        async def write_on() -> None:
            nonlocal written
            while written < 200:
                noise = {"K": os.urandom(1 << 17).hex()}
                await datastore.insert_app(App(name=f"app-{written:03}", config=noise))
                written += 1

        with pytest.raises(StoreUnavailable):
            await write_on()
        assert written > 2
        assert await datastore.app(first.id) == first
        apps = await datastore.apps(AppFilter(limit=1000))
        assert [app.name for app in apps[:-1]] == [f"app-{number:03}" for number in range(written)]
