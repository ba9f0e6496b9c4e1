"""What the parts of the SQL datastore have in common: reading resources, and checks in a transaction."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, Select, Table, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database
from services.datastore.tables import apps, fns, routes, triggers
from shared_models import errors, times, wanted
from shared_models.app import App
from shared_models.errors import FnError
from shared_models.fn import Fn
from shared_models.interfaces import Purge
from shared_models.route import Route
from shared_models.trigger import Trigger

Resource = TypeVar("Resource", App, Fn, Trigger, Route)
_TABLES: dict[Any, Table] = {App: apps, Fn: fns, Trigger: triggers, Route: routes}
# Made once: to make a statement, and to tell that it was compiled before, costs more than to run it.
_OF: dict[Any, Select[Any]] = {
    type_: select(*[table.c[name] for name in type_.__struct_fields__]) for type_, table in _TABLES.items()
}
_BY_ID: dict[Any, Select[Any]] = {
    type_: _OF[type_].where(table.c.id == bindparam("key"))
    for type_, table in _TABLES.items()
    if type_ is not Route
}
_HELD = {type_: query.with_for_update() for type_, query in _BY_ID.items()}
_KEPT = {type_: query.with_for_update(read=True) for type_, query in _BY_ID.items()}
_INSERTS = {table: insert(table) for table in _TABLES.values()}
_UPDATES = {table: update(table).where(table.c.id == bindparam("key")) for table in (apps, fns, triggers)}


class Part:
    """One part of the datastore, on *database*."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def _now(self) -> str:
        return times.to_text(self._clock())

    async def _by_id(self, type_: type[Resource], key: str, missing: type[FnError]) -> Resource:
        return await self._database.read(
            lambda connection: find_one(connection, _BY_ID[type_], type_, missing, key=key)
        )

    async def _read_one(self, query: Select[Any], type_: type[Resource], missing: type[FnError]) -> Resource:
        return await self._database.read(lambda connection: find_one(connection, query, type_, missing))

    async def _read_all(self, query: Callable[[str], Select[Any]], type_: type[Resource]) -> list[Resource]:
        """What *query*, made for SQLAlchemy's name of a dialect, finds."""

        async def work(connection: AsyncConnection) -> list[Resource]:
            rows = (await connection.execute(query(connection.dialect.name))).all()
            return [resource_of(row, type_) for row in rows]

        return await self._database.read(work)


def all_of(type_: type[Resource]) -> Select[Any]:
    """A query of whole resources, whose rows ``resource_of`` takes."""
    return _OF[type_]


def row_of(value: App | Fn | Trigger | Route | Purge) -> dict[str, Any]:
    """The row that is stored of *value*."""
    row = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, App | Fn | Route):
        row["warm"] = wanted.said(value.annotations)
    return row


def resource_of(row: Row[Any], type_: type[Resource]) -> Resource:
    """The resource whose *row* a query ``all_of`` its type found."""
    return type_(**dict(zip(type_.__struct_fields__, row, strict=True)))


async def find_one(
    connection: AsyncConnection,
    query: Select[Any],
    type_: type[Resource],
    missing: type[FnError],
    **values: str,
) -> Resource:
    """What *query* finds first, with *values* for its parameters; raises *missing*."""
    row = (await connection.execute(query, values)).first()
    if row is None:
        raise missing
    return resource_of(row, type_)


async def held(
    connection: AsyncConnection, type_: type[Resource], key: str, missing: type[FnError]
) -> Resource:
    """The resource, which nobody else can change until the transaction ends; raises *missing*."""
    return await find_one(connection, _HELD[type_], type_, missing, key=key)


async def held_app(connection: AsyncConnection, app_id: str) -> App:
    """The app, which cannot be removed until the transaction ends; raises AppNotFound."""
    return await find_one(connection, _KEPT[App], App, errors.AppNotFound, key=app_id)


async def held_fn(connection: AsyncConnection, fn_id: str) -> Fn:
    """The function, which cannot be removed until the transaction ends; raises FnNotFound."""
    return await find_one(connection, _KEPT[Fn], Fn, errors.FnNotFound, key=fn_id)


async def add(connection: AsyncConnection, new: Resource) -> None:
    """Inserts *new*."""
    await connection.execute(_INSERTS[_TABLES[type(new)]], row_of(new))


async def put_back(connection: AsyncConnection, new: App | Fn | Trigger) -> None:
    """*new* takes the place of the one that has its id."""
    await connection.execute(_UPDATES[_TABLES[type(new)]], {**row_of(new), "key": new.id})


async def refuse_if(
    connection: AsyncConnection, table: Table, taken: ColumnElement[bool], error: type[FnError]
) -> None:
    """Raises *error* when *table* has a row that is *taken*."""
    if (await connection.execute(select(1).select_from(table).where(taken).limit(1))).first():
        raise error
