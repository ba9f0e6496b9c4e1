"""Brings a database to the schema of this version. The revisions are in ``migrations/versions``.

Nodes that start at once take turns: on PostgreSQL and SQLite a migration is one transaction that holds a
lock, on MySQL and MariaDB, which commit every change of a table by itself, a connection that does; there
every step may be run again.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.dialects import Backend
from shared_models.errors import StoreUnavailable

_FOLDER = Path(__file__).parent / "migrations"
_LOCK_NUMBER = 0x666E_6879_6272
_LOCK_NAME = "CONCAT('fn-hybrid ', LEFT(MD5(DATABASE()), 32))"
_LOCK_WAIT = 3600
"""Seconds that a node waits for another one's migration."""
BASE = "base"
"""The revision of a database without our tables."""
_WORKS_FROM = re.compile(r"\d{4}_from_(\d{4})")
"""A revision that only adds is named so, such as 0007_from_0005: nodes that know 0005 work on it, and need
not know it. So a rollout can go back without its databases."""


async def prepare(backend: Backend) -> None:
    """Runs what is missing. A database that is up to date is only read, without locks or rights.

    Raises StoreUnavailable when the database has a revision on which this version does not work.
    """
    # A server may accept a connection and say nothing, which not every driver gives up.
    async with asyncio.timeout(backend.timeout), backend.engine.connect() as raw:
        connection = await raw.execution_options(**backend.reading)
        if is_up_to_date(await connection.run_sync(current)):
            return
    await migrate(backend, newest())


async def revision_of(backend: Backend) -> str:
    """The revision that the database has; raises StoreUnavailable for one on which we do not work."""
    async with backend.engine.connect() as raw:
        connection = await raw.execution_options(**backend.reading)
        return await connection.run_sync(current)


async def migrate(backend: Backend, target: str) -> tuple[str, str]:
    """Upgrades or downgrades to *target*, when no other node does; answers the revisions before and after.

    A database that is newer than this version is left as it is where *target* is the newest, else refused.
    """
    async with _locked(backend) as connection:
        return await connection.run_sync(partial(_move, target=target))


async def statements(backend: Backend, target: str) -> str:
    """The SQL that leads from the database's revision to *target*; empty when there is nothing to do."""
    async with backend.engine.connect() as raw:
        connection = await raw.execution_options(**backend.reading)
        return await connection.run_sync(partial(_script, target=target))


def newest() -> str:
    """The revision of this version."""
    return str(_scripts().get_current_head())


def revisions() -> list[str]:
    """All that we know, the oldest first, after ``BASE``."""
    return [BASE, *reversed([script.revision for script in _scripts().walk_revisions()])]


def is_up_to_date(revision: str) -> bool:
    """Whether *revision*, one on which we work, lacks nothing that this version needs."""
    return revision == newest() or revision not in revisions()


def is_ahead(revision: str, target: str) -> bool:
    """Whether *target* is before *revision*; raises StoreUnavailable where that is not for us to say."""
    known = revisions()
    if revision in known:
        return known.index(target) < known.index(revision)
    if target == known[-1]:
        return False
    raise StoreUnavailable(
        f"The database has schema {revision}, from which only a newer version of fn-hybrid knows the way to "
        f"{target}: migrate with that one"
    )


def current(connection: Connection) -> str:
    """The revision that the database has; raises StoreUnavailable for one on which we do not work."""
    found = set(MigrationContext.configure(connection).get_current_heads())
    if strange := [one for one in sorted(found) if not _works(one)]:
        raise StoreUnavailable(
            f"The database has schema {', '.join(strange)}, which this version does not know: "
            "it was written by a newer version of fn-hybrid; upgrade this node"
        )
    return found.pop() if found else BASE


def _works(revision: str) -> bool:
    since = _WORKS_FROM.fullmatch(revision)
    return revision in revisions() or (since is not None and since[1] in {one[:4] for one in revisions()})


def upgrade(connection: Connection) -> None:
    """Runs what is missing, on a connection that others wait for."""
    _move(connection, newest())


def _move(connection: Connection, target: str) -> tuple[str, str]:
    before = current(connection)
    if is_ahead(before, target):
        command.downgrade(_config(connection), target)
    elif before != target and before in revisions():
        command.upgrade(_config(connection), target)
    else:
        return before, before
    return before, target


def _script(connection: Connection, target: str) -> str:
    before = current(connection)
    config = _config(connection)
    config.attributes["output"] = output = io.StringIO()
    if is_ahead(before, target):
        command.downgrade(config, f"{before}:{target}", sql=True)
    elif before != target and before in revisions():
        command.upgrade(config, f"{before}:{target}" if before != BASE else target, sql=True)
    return output.getvalue()


@asynccontextmanager
async def _locked(backend: Backend) -> AsyncIterator[AsyncConnection]:
    engine = backend.patient() if backend.patient else backend.engine
    try:
        async with engine.connect() as raw:
            connection = await raw.execution_options(**backend.writing)
            if backend.scheme == "mysql":
                taken = await connection.scalar(text(f"SELECT GET_LOCK({_LOCK_NAME}, {_LOCK_WAIT})"))
                if not taken:
                    raise StoreUnavailable("Another node has been migrating the database for too long")
                # The lock is the connection's, and is given back with it.
                await connection.commit()
                yield connection
                await connection.commit()
                return
            async with connection.begin():
                if backend.scheme == "postgres":
                    await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})"))
                yield connection
    finally:
        if backend.patient:
            await engine.dispose()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_FOLDER))
