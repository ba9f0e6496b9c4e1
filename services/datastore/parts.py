"""What the parts of the SQL datastore have in common: reading resources, and checks in a transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database
from services.datastore.tables import apps
from shared_models import errors, times, wanted
from shared_models.app import App
from shared_models.errors import FnError
from shared_models.fn import Fn
from shared_models.interfaces import Purge
from shared_models.route import Route
from shared_models.trigger import Trigger

Resource = TypeVar("Resource", App, Fn, Trigger, Route)


class Part:
    """One part of the datastore, on *database*."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def _now(self) -> str:
        return times.to_text(self._clock())

    async def _read_one(self, query: Select[Any], type_: type[Resource], missing: type[FnError]) -> Resource:
        return await self._database.read(lambda connection: find_one(connection, query, type_, missing))

    async def _read_all(self, query: Callable[[str], Select[Any]], type_: type[Resource]) -> list[Resource]:
        """What *query*, made for SQLAlchemy's name of a dialect, finds."""
        rows = await self._database.read(
            lambda connection: connection.execute(query(connection.dialect.name))
        )
        return [resource_of(row, type_) for row in rows.mappings()]


def row_of(value: Resource | Purge) -> dict[str, Any]:
    """The row that is stored of *value*."""
    row = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, App | Fn | Route):
        row["warm"] = wanted.said(value.annotations)
    return row


def resource_of(row: Mapping[Any, Any], type_: type[Resource]) -> Resource:
    """The resource whose whole row is *row*."""
    fields = dict(row)
    fields.pop("warm", None)
    return type_(**fields)


async def find_one(
    connection: AsyncConnection, query: Select[Any], type_: type[Resource], missing: type[FnError]
) -> Resource:
    """What *query* finds first; raises *missing*."""
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        raise missing
    return resource_of(row, type_)


async def held_app(connection: AsyncConnection, app_id: str) -> App:
    """The app, which cannot be removed until the transaction ends; raises AppNotFound."""
    query = select(apps).where(apps.c.id == app_id).with_for_update(read=True)
    return await find_one(connection, query, App, errors.AppNotFound)


async def refuse_if(
    connection: AsyncConnection, table: Table, taken: ColumnElement[bool], error: type[FnError]
) -> None:
    """Raises *error* when *table* has a row that is *taken*."""
    if (await connection.execute(select(1).select_from(table).where(taken).limit(1))).first():
        raise error
