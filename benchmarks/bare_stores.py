"""The drivers below the stores, alone: one small insert and its commit. What our figures are multiples of."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiomysql
import asyncpg
import redis.asyncio
from aiobotocore.session import get_session

from services import urls
from shared_models.ids import new_id

Insert = Callable[[], Awaitable[object]]
_BODY = "x" * 400


def bare(name: str, url: str) -> AbstractAsyncContextManager[Insert]:
    """An insert of a few hundred bytes into the backend *name*; *url* as its setting, of SQLite the file."""
    if name == "sqlite":
        return _sqlite(url)
    address = urls.parse(url, "url", ("postgres", "mysql", "redis", "s3"))
    return {"postgres": _postgres, "mysql": _mysql, "redis": _redis, "s3": _s3}[address.scheme](address)


@asynccontextmanager
async def _sqlite(path: str) -> AsyncIterator[Insert]:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE bare (id TEXT PRIMARY KEY, body TEXT)")

    async def insert() -> None:
        await asyncio.to_thread(db.execute, "INSERT INTO bare VALUES (?, ?)", (new_id(), _BODY))

    try:
        yield insert
    finally:
        db.close()


@asynccontextmanager
async def _postgres(address: urls.Address) -> AsyncIterator[Insert]:
    connection = await asyncpg.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        database=address.path,
    )
    await connection.execute("CREATE TABLE bare (id text PRIMARY KEY, body text)")

    async def insert() -> None:
        await connection.execute("INSERT INTO bare VALUES ($1, $2)", new_id(), _BODY)

    try:
        yield insert
    finally:
        await connection.close()


@asynccontextmanager
async def _mysql(address: urls.Address) -> AsyncIterator[Insert]:
    connection = await aiomysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        db=address.path,
        autocommit=True,
    )
    cursor = await connection.cursor()
    await cursor.execute("CREATE TABLE bare (id varchar(26) PRIMARY KEY, body text)")

    async def insert() -> None:
        await cursor.execute("INSERT INTO bare VALUES (%s, %s)", (new_id(), _BODY))

    try:
        yield insert
    finally:
        await cursor.close()
        await connection.ensure_closed()


@asynccontextmanager
async def _redis(address: urls.Address) -> AsyncIterator[Insert]:
    client = redis.asyncio.Redis(host=address.host, port=address.port)

    async def insert() -> None:
        await client.set(f"bare:{new_id()}", _BODY)

    try:
        yield insert
    finally:
        await client.aclose()


@asynccontextmanager
async def _s3(address: urls.Address) -> AsyncIterator[Insert]:
    region, _, bucket = address.path.partition("/")
    opened = get_session().create_client(
        "s3",
        region_name=region,
        endpoint_url=f"http://{address.host}:{address.port}",
        aws_access_key_id=address.user,
        aws_secret_access_key=address.password,
    )
    async with opened as client:
        await client.create_bucket(Bucket=bucket)

        async def insert() -> None:
            await client.put_object(Bucket=bucket, Key=f"bare/{new_id()}", Body=_BODY.encode())

        yield insert
