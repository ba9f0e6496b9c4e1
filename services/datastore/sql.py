"""The datastore on a SQL database. Its contract is ``shared_models.interfaces.Datastore``."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, and_, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.nodes import Nodes
from services.datastore.parts import add, all_of, held, held_app, held_fn, put_back, refuse_if, row_of
from services.datastore.routes import Routes
from services.datastore.seeking import long_is, seek
from services.datastore.tables import apps, fns, purges, routes, triggers
from services.datastore.warm import Warm
from shared_models import errors
from shared_models.app import App
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.interfaces import AppFilter, Datastore, FnFilter, Purge, TriggerFilter
from shared_models.trigger import Trigger


class SQLDatastore(Routes, Warm, Nodes, Datastore):
    """Checks and writes share one transaction; what races past a check breaks a constraint.

    Then ``Database.transact`` runs the transaction again, and the check names the winner.
    """

    # -- apps ----------------------------------------------------------------------------------

    async def app_id(self, name: str) -> str:
        query = select(apps.c.id).where(apps.c.name == name)
        found = await self._database.read(lambda connection: connection.scalar(query))
        if found is None:
            raise errors.AppNotFound
        return str(found)

    async def app(self, app_id: str) -> App:
        return await self._by_id(App, app_id, errors.AppNotFound)

    async def apps(self, page: AppFilter) -> list[App]:
        query = all_of(App).where(apps.c.name > page.after).limit(page.limit)
        if page.name:
            query = query.where(apps.c.name == page.name)
        return await self._read_all(
            lambda dialect: seek(query, dialect, [], apps.c.name, from_=page.after), App
        )

    async def insert_app(self, app: App) -> App:
        new = app.created(new_id(), self._now())

        async def work(connection: AsyncConnection) -> App:
            await refuse_if(connection, apps, apps.c.name == new.name, errors.AppExists)
            await add(connection, new)
            return new

        return await self._database.transact(work)

    async def update_app(self, app_id: str, change: App) -> App:
        async def work(connection: AsyncConnection) -> App:
            old = await held(connection, App, app_id, errors.AppNotFound)
            new = old.merged(change, self._now())
            if new is not old:
                await put_back(connection, new)
            return new

        return await self._database.transact(work)

    async def remove_app(self, app_id: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            # The app first: whoever adds to it holds it too, and waits, or is waited for.
            await held(connection, App, app_id, errors.AppNotFound)
            for table in (triggers, routes, fns):
                await connection.execute(delete(table).where(table.c.app_id == app_id))
            await connection.execute(delete(apps).where(apps.c.id == app_id))
            await connection.execute(insert(purges).values(row_of(self._ordered(Purge(app_id=app_id)))))

        await self._database.transact(work)

    # -- functions -----------------------------------------------------------------------------

    async def fn(self, fn_id: str) -> Fn:
        return await self._by_id(Fn, fn_id, errors.FnNotFound)

    async def fns(self, page: FnFilter) -> list[Fn]:
        query = all_of(Fn).where(fns.c.name > page.after).limit(page.limit)
        if page.name:
            query = query.where(fns.c.name == page.name)
        of = [(fns.c.app_id, page.app_id)]
        return await self._read_all(
            lambda dialect: seek(query, dialect, of, fns.c.name, from_=page.after), Fn
        )

    async def insert_fn(self, fn: Fn) -> Fn:
        new = fn.created(new_id(), self._now())

        async def work(connection: AsyncConnection) -> Fn:
            app = await held_app(connection, new.app_id)
            taken = and_(fns.c.app_id == new.app_id, fns.c.name == new.name)
            await refuse_if(connection, fns, taken, errors.FnExists)
            shaped = msgspec.structs.replace(new, shape=app.shape)
            await add(connection, shaped)
            return shaped

        return await self._database.transact(work)

    async def update_fn(self, fn_id: str, change: Fn) -> Fn:
        async def work(connection: AsyncConnection) -> Fn:
            old = await held(connection, Fn, fn_id, errors.FnNotFound)
            new = old.merged(change, self._now())
            if new is not old:
                await put_back(connection, new)
            return new

        return await self._database.transact(work)

    async def remove_fn(self, fn_id: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            await held(connection, Fn, fn_id, errors.FnNotFound)
            await connection.execute(delete(triggers).where(triggers.c.fn_id == fn_id))
            await connection.execute(delete(fns).where(fns.c.id == fn_id))
            await connection.execute(insert(purges).values(row_of(self._ordered(Purge(fn_id=fn_id)))))

        await self._database.transact(work)

    # -- triggers ------------------------------------------------------------------------------

    async def trigger(self, trigger_id: str) -> Trigger:
        return await self._by_id(Trigger, trigger_id, errors.TriggerNotFound)

    async def trigger_by_source(self, app_id: str, type_: str, source: str) -> Trigger:
        query = all_of(Trigger).where(_source_is(app_id, type_, source))
        return await self._read_one(query, Trigger, errors.TriggerNotFound)

    async def triggers(self, page: TriggerFilter) -> list[Trigger]:
        name, id_ = triggers.c.name, triggers.c.id
        query = all_of(Trigger).where(triggers.c.app_id == page.app_id).limit(page.limit)
        if page.name:
            query = query.where(name == page.name)
        last_name, last_id = page.after or ("", "")
        if page.after is not None:
            query = query.where(or_(name > last_name, id_ > last_id))
        # Names are unique in a function, whose index has no id after them.
        of, rest = (
            ((triggers.c.fn_id, page.fn_id), ()) if page.fn_id else ((triggers.c.app_id, page.app_id), (id_,))
        )
        return await self._read_all(
            lambda dialect: seek(query, dialect, [of], name, *rest, from_=last_name), Trigger
        )

    async def insert_trigger(self, trigger: Trigger) -> Trigger:
        new = trigger.created(new_id(), self._now())

        async def work(connection: AsyncConnection) -> Trigger:
            await held_app(connection, new.app_id)
            await _check_trigger(connection, new)
            await add(connection, new)
            return new

        return await self._database.transact(work)

    async def update_trigger(self, trigger_id: str, change: Trigger) -> Trigger:
        async def work(connection: AsyncConnection) -> Trigger:
            old = await held(connection, Trigger, trigger_id, errors.TriggerNotFound)
            new = old.merged(change, self._now())
            if new is not old:
                await _check_trigger(connection, new)
                await put_back(connection, new)
            return new

        return await self._database.transact(work)

    async def remove_trigger(self, trigger_id: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            statement = delete(triggers).where(triggers.c.id == trigger_id)
            if not (await connection.execute(statement)).rowcount:
                raise errors.TriggerNotFound

        await self._database.transact(work)


def _source_is(app_id: str, type_: str, source: str) -> ColumnElement[bool]:
    return and_(triggers.c.app_id == app_id, triggers.c.type == type_, long_is(triggers.c.source, source))


async def _check_trigger(connection: AsyncConnection, new: Trigger) -> None:
    """Raises what keeps *new* from being stored; a taken source is named before a taken name."""
    fn = await held_fn(connection, new.fn_id)
    if fn.app_id != new.app_id:
        raise errors.TriggerFnNotOwned
    other = triggers.c.id != new.id
    source = _source_is(new.app_id, new.type, new.source)
    await refuse_if(connection, triggers, and_(other, source), errors.TriggerSourceExists)
    name = and_(triggers.c.fn_id == new.fn_id, triggers.c.name == new.name)
    await refuse_if(connection, triggers, and_(other, name), errors.TriggerExists)
