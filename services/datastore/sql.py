"""The datastore on a SQL database. Its contract is ``shared_models.interfaces.Datastore``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Select, Table, and_, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.database import Database
from services.datastore.seeking import long_is, seek
from services.datastore.tables import apps, fns, locks, purges, routes, runners, triggers
from shared_models import errors, times
from shared_models.app import App
from shared_models.errors import FnError
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.interfaces import AppFilter, Datastore, FnFilter, Purge, RouteFilter, TriggerFilter
from shared_models.route import Route
from shared_models.runner import HEARTBEAT, Runner, RunnerReport, RunnerState
from shared_models.trigger import Trigger

Resource = TypeVar("Resource", App, Fn, Trigger, Route)

LOST_AFTER = 3 * HEARTBEAT
FORGOTTEN_AFTER = 24 * 3600.0


class SQLDatastore(Datastore):
    """Checks and writes share one transaction; what races past a check breaks a constraint.

    Then ``Database.transact`` runs the transaction again, and the check names the winner.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def _now(self) -> str:
        return times.to_text(self._clock())

    async def _read_one(self, query: Select[Any], type_: type[Resource], missing: type[FnError]) -> Resource:
        return await self._database.read(lambda connection: _one(connection, query, type_, missing))

    async def _read_all(self, query: Callable[[str], Select[Any]], type_: type[Resource]) -> list[Resource]:
        """What *query*, made for SQLAlchemy's name of a dialect, finds."""
        rows = await self._database.read(
            lambda connection: connection.execute(query(connection.dialect.name))
        )
        return [type_(**row) for row in rows.mappings()]

    # -- apps ----------------------------------------------------------------------------------

    async def app_id(self, name: str) -> str:
        query = select(apps.c.id).where(apps.c.name == name)
        found = await self._database.read(lambda connection: connection.scalar(query))
        if found is None:
            raise errors.AppNotFound
        return str(found)

    async def app(self, app_id: str) -> App:
        return await self._read_one(select(apps).where(apps.c.id == app_id), App, errors.AppNotFound)

    async def apps(self, page: AppFilter) -> list[App]:
        query = select(apps).where(apps.c.name > page.after).limit(page.limit)
        if page.name:
            query = query.where(apps.c.name == page.name)
        return await self._read_all(
            lambda dialect: seek(query, dialect, [], apps.c.name, from_=page.after), App
        )

    async def insert_app(self, app: App) -> App:
        new = app.created(new_id(), self._now())

        async def work(connection: AsyncConnection) -> App:
            await _refuse(connection, apps, apps.c.name == new.name, errors.AppExists)
            await connection.execute(insert(apps).values(_row(new)))
            return new

        return await self._database.transact(work)

    async def update_app(self, app_id: str, change: App) -> App:
        async def work(connection: AsyncConnection) -> App:
            query = select(apps).where(apps.c.id == app_id).with_for_update()
            old = await _one(connection, query, App, errors.AppNotFound)
            new = old.merged(change, self._now())
            if new is not old:
                await connection.execute(update(apps).where(apps.c.id == app_id).values(_row(new)))
            return new

        return await self._database.transact(work)

    async def remove_app(self, app_id: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            # The app first: whoever adds to it holds it too, and waits, or is waited for.
            query = select(apps).where(apps.c.id == app_id).with_for_update()
            await _one(connection, query, App, errors.AppNotFound)
            for table in (triggers, routes, fns):
                await connection.execute(delete(table).where(table.c.app_id == app_id))
            await connection.execute(delete(apps).where(apps.c.id == app_id))
            await connection.execute(insert(purges).values(_row(self._ordered(Purge(app_id=app_id)))))

        await self._database.transact(work)

    # -- functions -----------------------------------------------------------------------------

    async def fn(self, fn_id: str) -> Fn:
        return await self._read_one(select(fns).where(fns.c.id == fn_id), Fn, errors.FnNotFound)

    async def fns(self, page: FnFilter) -> list[Fn]:
        query = select(fns).where(fns.c.name > page.after).limit(page.limit)
        if page.name:
            query = query.where(fns.c.name == page.name)
        of = [(fns.c.app_id, page.app_id)]
        return await self._read_all(
            lambda dialect: seek(query, dialect, of, fns.c.name, from_=page.after), Fn
        )

    async def insert_fn(self, fn: Fn) -> Fn:
        new = fn.created(new_id(), self._now())

        async def work(connection: AsyncConnection) -> Fn:
            app = await _held_app(connection, new.app_id)
            taken = and_(fns.c.app_id == new.app_id, fns.c.name == new.name)
            await _refuse(connection, fns, taken, errors.FnExists)
            shaped = msgspec.structs.replace(new, shape=app.shape)
            await connection.execute(insert(fns).values(_row(shaped)))
            return shaped

        return await self._database.transact(work)

    async def update_fn(self, fn_id: str, change: Fn) -> Fn:
        async def work(connection: AsyncConnection) -> Fn:
            query = select(fns).where(fns.c.id == fn_id).with_for_update()
            old = await _one(connection, query, Fn, errors.FnNotFound)
            new = old.merged(change, self._now())
            if new is not old:
                await connection.execute(update(fns).where(fns.c.id == fn_id).values(_row(new)))
            return new

        return await self._database.transact(work)

    async def remove_fn(self, fn_id: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            query = select(fns).where(fns.c.id == fn_id).with_for_update()
            await _one(connection, query, Fn, errors.FnNotFound)
            await connection.execute(delete(triggers).where(triggers.c.fn_id == fn_id))
            await connection.execute(delete(fns).where(fns.c.id == fn_id))
            await connection.execute(insert(purges).values(_row(self._ordered(Purge(fn_id=fn_id)))))

        await self._database.transact(work)

    # -- triggers ------------------------------------------------------------------------------

    async def trigger(self, trigger_id: str) -> Trigger:
        query = select(triggers).where(triggers.c.id == trigger_id)
        return await self._read_one(query, Trigger, errors.TriggerNotFound)

    async def trigger_by_source(self, app_id: str, type_: str, source: str) -> Trigger:
        query = select(triggers).where(_source_is(app_id, type_, source))
        return await self._read_one(query, Trigger, errors.TriggerNotFound)

    async def triggers(self, page: TriggerFilter) -> list[Trigger]:
        name, id_ = triggers.c.name, triggers.c.id
        query = select(triggers).where(triggers.c.app_id == page.app_id).limit(page.limit)
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
            await _held_app(connection, new.app_id)
            await _check_trigger(connection, new)
            await connection.execute(insert(triggers).values(_row(new)))
            return new

        return await self._database.transact(work)

    async def update_trigger(self, trigger_id: str, change: Trigger) -> Trigger:
        async def work(connection: AsyncConnection) -> Trigger:
            query = select(triggers).where(triggers.c.id == trigger_id).with_for_update()
            old = await _one(connection, query, Trigger, errors.TriggerNotFound)
            new = old.merged(change, self._now())
            if new is not old:
                await _check_trigger(connection, new)
                await connection.execute(
                    update(triggers).where(triggers.c.id == trigger_id).values(_row(new))
                )
            return new

        return await self._database.transact(work)

    async def remove_trigger(self, trigger_id: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            statement = delete(triggers).where(triggers.c.id == trigger_id)
            if not (await connection.execute(statement)).rowcount:
                raise errors.TriggerNotFound

        await self._database.transact(work)

    # -- routes --------------------------------------------------------------------------------

    async def route(self, app_id: str, path: str) -> Route:
        return await self._read_one(
            select(routes).where(_route_is(app_id, path)), Route, errors.RouteNotFound
        )

    async def routes(self, page: RouteFilter) -> list[Route]:
        query = select(routes).where(routes.c.path > page.after).limit(page.limit)
        if page.image:
            query = query.where(routes.c.image == page.image)
        of = [(routes.c.app_id, page.app_id)]
        return await self._read_all(
            lambda dialect: seek(query, dialect, of, routes.c.path, from_=page.after, long=True), Route
        )

    async def insert_route(self, route: Route) -> Route:
        new = route.created(self._now())

        async def work(connection: AsyncConnection) -> Route:
            await _held_app(connection, new.app_id)
            await _refuse(connection, routes, _route_is(new.app_id, new.path), errors.RouteExists)
            await connection.execute(insert(routes).values(_row(new)))
            return new

        return await self._database.transact(work)

    async def update_route(self, app_id: str, path: str, change: Route) -> Route:
        return await self._database.transact(
            lambda connection: self._merge_route(connection, app_id, path, change)
        )

    async def _merge_route(self, connection: AsyncConnection, app_id: str, path: str, change: Route) -> Route:
        this = _route_is(app_id, path)
        query = select(routes).where(this).with_for_update()
        old = await _one(connection, query, Route, errors.RouteNotFound)
        new = old.merged(change, self._now())
        if new is not old:
            await connection.execute(update(routes).where(this).values(_row(new)))
        return new

    async def put_route(self, route: Route) -> tuple[Route, bool]:
        async def work(connection: AsyncConnection) -> tuple[Route, bool]:
            await _held_app(connection, route.app_id)
            try:
                return await self._merge_route(connection, route.app_id, route.path, route), False
            except errors.RouteNotFound:
                new = route.created(self._now())
            await connection.execute(insert(routes).values(_row(new)))
            return new, True

        return await self._database.transact(work)

    async def remove_route(self, app_id: str, path: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            if not (await connection.execute(delete(routes).where(_route_is(app_id, path)))).rowcount:
                raise errors.RouteNotFound

        await self._database.transact(work)

    # -- runners -------------------------------------------------------------------------------

    async def put_runner(self, report: RunnerReport) -> RunnerState:
        now = self._clock()
        seen = {"report": report, "seen_at": times.to_text(now)}

        async def work(connection: AsyncConnection) -> RunnerState:
            state = await connection.scalar(select(runners.c.state).where(runners.c.id == report.id))
            if state is not None:
                await connection.execute(update(runners).where(runners.c.id == report.id).values(seen))
                return RunnerState(state)
            forgotten = times.to_text(now - FORGOTTEN_AFTER)
            await connection.execute(delete(runners).where(runners.c.seen_at < forgotten))
            new = {"id": report.id, "state": RunnerState.ACTIVE.value, **seen}
            await connection.execute(insert(runners).values(new))
            return RunnerState.ACTIVE

        return await self._database.transact(work)

    async def runners(self) -> list[Runner]:
        now = self._clock()
        lost, forgotten = times.to_text(now - LOST_AFTER), times.to_text(now - FORGOTTEN_AFTER)
        query = select(runners).where(runners.c.seen_at >= forgotten).order_by(runners.c.id)
        rows = await self._database.read(lambda connection: connection.execute(query))
        return [_runner(row, lost) for row in rows.mappings()]

    async def set_runner_state(self, runner_id: str, state: RunnerState) -> Runner:
        now = self._clock()
        lost, forgotten = times.to_text(now - LOST_AFTER), times.to_text(now - FORGOTTEN_AFTER)
        this = and_(runners.c.id == runner_id, runners.c.seen_at >= forgotten)

        async def work(connection: AsyncConnection) -> Runner:
            row = (await connection.execute(select(runners).where(this).with_for_update())).mappings().first()
            if row is None:
                raise errors.RunnerNotFound
            await connection.execute(update(runners).where(this).values(state=state.value))
            return _runner({**row, "state": state}, lost)

        return await self._database.transact(work)

    # -- cleaning up ---------------------------------------------------------------------------

    def _ordered(self, purge: Purge) -> Purge:
        return msgspec.structs.replace(purge, id=new_id(), created_at=self._now())

    async def insert_purge(self, purge: Purge) -> Purge:
        new = self._ordered(purge)

        async def work(connection: AsyncConnection) -> Purge:
            await connection.execute(insert(purges).values(_row(new)))
            return new

        return await self._database.transact(work)

    async def purges(self, limit: int) -> list[Purge]:
        query = select(purges).order_by(purges.c.id).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query))
        return [Purge(**row) for row in rows.mappings()]

    async def remove_purge(self, purge_id: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(purges).where(purges.c.id == purge_id))

        await self._database.transact(work)

    async def hold(self, name: str, holder: str, ttl: float) -> bool:
        now = self._clock()
        this = locks.c.name == name

        async def work(connection: AsyncConnection) -> bool:
            query = select(locks).where(this).with_for_update()
            held = (await connection.execute(query)).mappings().first()
            if held is not None and held["holder"] != holder and held["until"] > now:
                return False
            mine = {"name": name, "holder": holder, "until": now + ttl}
            change = update(locks).where(this) if held is not None else insert(locks)
            await connection.execute(change.values(mine))
            return True

        return await self._database.transact(work)


def _runner(row: Mapping[Any, Any], lost: str) -> Runner:
    """The runner as it is shown: one that was not seen since *lost* (wire text) is that."""
    state = RunnerState.LOST if row["seen_at"] < lost else RunnerState(row["state"])
    return Runner(report=row["report"], state=state, seen_at=row["seen_at"])


def _row(value: Resource | Purge) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


async def _one(
    connection: AsyncConnection, query: Select[Any], type_: type[Resource], missing: type[FnError]
) -> Resource:
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        raise missing
    return type_(**row)


async def _held_app(connection: AsyncConnection, app_id: str) -> App:
    """The app, which cannot be removed until the transaction ends; raises AppNotFound."""
    query = select(apps).where(apps.c.id == app_id).with_for_update(read=True)
    return await _one(connection, query, App, errors.AppNotFound)


async def _refuse(
    connection: AsyncConnection, table: Table, taken: ColumnElement[bool], error: type[FnError]
) -> None:
    if (await connection.execute(select(1).select_from(table).where(taken).limit(1))).first():
        raise error


def _source_is(app_id: str, type_: str, source: str) -> ColumnElement[bool]:
    return and_(triggers.c.app_id == app_id, triggers.c.type == type_, long_is(triggers.c.source, source))


def _route_is(app_id: str, path: str) -> ColumnElement[bool]:
    return and_(routes.c.app_id == app_id, long_is(routes.c.path, path))


async def _check_trigger(connection: AsyncConnection, new: Trigger) -> None:
    """Raises what keeps *new* from being stored; a taken source is named before a taken name."""
    query = select(fns).where(fns.c.id == new.fn_id).with_for_update(read=True)
    fn = await _one(connection, query, Fn, errors.FnNotFound)
    if fn.app_id != new.app_id:
        raise errors.TriggerFnNotOwned
    other = triggers.c.id != new.id
    source = _source_is(new.app_id, new.type, new.source)
    await _refuse(connection, triggers, and_(other, source), errors.TriggerSourceExists)
    name = and_(triggers.c.fn_id == new.fn_id, triggers.c.name == new.name)
    await _refuse(connection, triggers, and_(other, name), errors.TriggerExists)
