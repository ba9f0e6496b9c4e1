"""All that differs between the databases below the datastore, the log store and the SQL queue.

A database is an engine that is opened its own way, how its transactions begin, what they may be run
again for, and column types whose order is code point order. One more database is one more entry here.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiomysql  # type: ignore[import-untyped]
import asyncpg
from sqlalchemy import LargeBinary, String, Text, event
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, NullPool
from sqlalchemy.types import TypeDecorator, TypeEngine

from services import sqlite_file, urls
from services.datastore.file import PRAGMAS
from services.datastore.raw import PLANS
from services.datastore.server_url import Server
from services.sqlite_file import CannotOpen
from shared_models.errors import StoreUnavailable

SCHEMES = ("sqlite", "postgres", "mysql")
BEGIN = "fn_begin"
"""Execution option: the statement that opens a transaction; without it each statement is its own."""
_BEGIN_WRITE = "BEGIN IMMEDIATE"
_IDLE = 1.0
"""Seconds after which a connection that nobody used is asked whether it is still one."""
_RETURNED = "fn_returned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """An engine, and how one works with it.

    *turns*: writers of this process take turns. *reading* and *writing*: execution options of a
    connection that only reads, each statement a transaction of its own, and of one that writes; of MySQL
    none are needed, as each statement of a transaction sees what is committed when it starts.
    *timeout*: seconds after which a statement is given up. *time*: a query of the server's own unix
    seconds; empty where the database is in this process. *connect*: opens a connection of the driver's
    own, outside the pool, on a database that can notify. *port*: of the server. *patient*: an engine for
    migrations, whose statements may take as long as they take. *file*: of SQLite; empty when in memory.
    """

    scheme: str
    engine: AsyncEngine
    file: str = ""
    turns: bool = False
    reading: dict[str, Any] = field(default_factory=dict)
    writing: dict[str, Any] = field(default_factory=dict)
    timeout: float = 30.0
    time: str = ""
    connect: Callable[[], Awaitable[Any]] | None = None
    port: int = 0
    patient: Callable[[], AsyncEngine] | None = None


# -- types ---------------------------------------------------------------------------------------


class _WithoutNul(TypeDecorator[str]):
    """Text on PostgreSQL, which can store no NUL: the symbol for it (U+2400) takes its place.

    So a record with one is kept, and a look-up with one finds nothing.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """To the database."""
        return value.replace("\0", "\u2400") if value is not None else None


class _LongWithoutNul(_WithoutNul):
    impl = Text
    cache_ok = True


def ordered(length: int) -> TypeEngine[str]:
    """Text that is compared byte by byte, so that it sorts in code point order.

    SQLite compares so by itself (BINARY, over UTF-8), and so do tables made with ``table_options``.
    """
    return String(length).with_variant(_WithoutNul(length, collation="C"), "postgresql")


def long_text() -> TypeEngine[str]:
    """Text of any length that is never compared."""
    long = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    return long.with_variant(_LongWithoutNul(), "postgresql")


def long_bytes() -> TypeEngine[bytes]:
    """Bytes of any number."""
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def table_options(dialect: Dialect) -> dict[str, Any]:
    """Options of every table: on MySQL and MariaDB text is compared byte by byte, without padding."""
    binary = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
    return {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": binary}


# -- engines -------------------------------------------------------------------------------------


async def open_backend(address: urls.Address, variable: str) -> Backend:
    """The database at *address*, not yet connected where it is a server.

    Raises ValueError that names *variable* for bad parameters, StoreUnavailable for a bad file.
    """
    match address.scheme:
        case "sqlite":
            return await _sqlite(address.path)
        case "postgres":
            return _postgres(address, variable)
        case "mysql":
            return _mysql(address, variable)
    raise AssertionError(address.scheme)


async def _sqlite(path: str) -> Backend:
    if path:
        try:
            await asyncio.to_thread(sqlite_file.prepare, path)
        except CannotOpen as exc:
            raise StoreUnavailable(f"Database: {exc}") from exc
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        poolclass=AsyncAdaptedQueuePool,
        # A database in memory lives as long as its one connection.
        pool_size=4 if path else 1,
        max_overflow=0,
        pool_timeout=30,
    )
    event.listen(engine.sync_engine, "connect", _connected)
    event.listen(engine.sync_engine, "begin", _begun)
    # SQLite takes the write lock at a transaction's begin: one that reads first and is then refused
    # the lock could only be given up.
    return Backend(scheme="sqlite", engine=engine, file=path, turns=True, writing={BEGIN: _BEGIN_WRITE})


def _postgres(address: urls.Address, variable: str) -> Backend:
    server = Server.of(address, variable, 5432)
    arguments: dict[str, Any] = {
        "timeout": server.connect_timeout,
        "command_timeout": server.timeout,
        # None would be asyncpg's own choice.
        "ssl": "prefer" if server.prefers_tls else server.tls or "disable",
        "server_settings": {"application_name": "fn-hybrid"},
    }

    async def connect() -> Any:
        return await asyncpg.connect(
            host=address.host or "localhost",
            port=server.port,
            user=address.user or None,
            password=address.password or None,
            database=address.path,
            **arguments,
        )

    arguments["statement_cache_size"] = server.statement_cache
    url = server.url("postgresql+asyncpg")
    engine_arguments = {**arguments, "prepared_statement_cache_size": server.statement_cache}

    def patient() -> AsyncEngine:
        endless = {**engine_arguments, "command_timeout": None}
        return create_async_engine(url, connect_args=endless, poolclass=NullPool, hide_parameters=True)

    engine = create_async_engine(url, connect_args=engine_arguments, **server.pool())
    # As a statement: what is between us and the server may know no such parameter of a connection.
    idle = f"SET idle_in_transaction_session_timeout = {server.abandoned * 1000}; {PLANS}"

    def limited(connection: Any, _record: object) -> None:
        connection.run_async(lambda driver: driver.execute(idle))

    event.listen(engine.sync_engine, "connect", limited)
    _ask_idle_ones(engine)
    return Backend(
        scheme="postgres",
        engine=engine,
        reading={"isolation_level": "AUTOCOMMIT"},
        writing={"isolation_level": "READ COMMITTED"},
        timeout=server.timeout,
        time="SELECT EXTRACT(EPOCH FROM clock_timestamp())",
        connect=connect,
        port=server.port,
        patient=patient,
    )


def _mysql(address: urls.Address, variable: str) -> Backend:
    server = Server.of(address, variable, 3306)
    url = server.url("mysql+aiomysql", charset="utf8mb4")
    # A row that somebody holds is given up before the whole operation is.
    patience = max(1, int(server.timeout / 2))
    arguments = {
        "async_creator_fn": partial(_connect_mysql, server.connect_timeout),
        "ssl": server.tls,
        "init_command": "SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
        f"innodb_lock_wait_timeout={patience} "
        # MySQL has only a limit for all that is idle.
        f"/*M!100300 , idle_transaction_timeout={server.abandoned} */ /*!80000 , wait_timeout=600 */",
    }

    def made(**pool: Any) -> AsyncEngine:
        # For good: set for each transaction, and set back, it would cost as much as a statement or two.
        engine = create_async_engine(url, connect_args=arguments, isolation_level="READ COMMITTED", **pool)
        if server.tls and not server.prefers_tls:
            event.listen(engine.sync_engine, "connect", _refuse_plain)
        return engine

    def patient() -> AsyncEngine:
        return made(poolclass=NullPool, hide_parameters=True)

    engine = made(**server.pool())
    _ask_idle_ones(engine)
    return Backend(
        scheme="mysql",
        engine=engine,
        timeout=server.timeout,
        time="SELECT UNIX_TIMESTAMP(SYSDATE(6))",
        port=server.port,
        patient=patient,
    )


def _ask_idle_ones(engine: AsyncEngine) -> None:
    """Pings a connection before its use, unless it was used a moment ago: that costs as much as a query.

    One that died within the moment is noticed by its use, which ``Database`` repeats.
    """
    dialect = engine.sync_engine.dialect

    def returned(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED] = time.monotonic()

    def taken(connection: Any, record: ConnectionPoolEntry, _fairy: object) -> None:
        if time.monotonic() - record.info.get(_RETURNED, math.inf) < _IDLE:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as exc:
            raise InvalidatePoolError from exc

    event.listen(engine.sync_engine, "checkin", returned)
    event.listen(engine.sync_engine, "checkout", taken)


async def _connect_mysql(limit: float, **arguments: Any) -> Any:
    # The driver's own limit is that of the TCP connection, which a server that hangs accepts, too.
    connection = aiomysql.Connection(**arguments)
    try:
        async with asyncio.timeout(limit):
            await connection._connect()
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_plain(connection: Any, _record: object) -> None:
    # aiomysql goes on in plain text, without a word, with a server that has no TLS.
    if connection.driver_connection._writer.get_extra_info("ssl_object") is None:
        raise ssl.SSLError(0, "the server has no TLS")


def _connected(connection: Any, _record: object) -> None:
    # The driver must not begin transactions on its own: it would do so late, and not around DDL.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begun(connection: Connection) -> None:
    if statement := connection.get_execution_options().get(BEGIN):
        connection.exec_driver_sql(statement)
