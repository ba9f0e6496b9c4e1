"""Routes on a SQL database."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore.parts import Part, add, all_of, find_one, held_app, refuse_if, row_of
from services.datastore.seeking import long_is, seek
from services.datastore.tables import routes
from shared_models import errors
from shared_models.interfaces import RouteFilter
from shared_models.route import Route


class Routes(Part):
    """The routes of apps: those verbs of the datastore that v1 knows alone."""

    async def route(self, app_id: str, path: str) -> Route:
        return await self._read_one(all_of(Route).where(_route_is(app_id, path)), Route, errors.RouteNotFound)

    async def routes(self, page: RouteFilter) -> list[Route]:
        query = all_of(Route).where(routes.c.path > page.after).limit(page.limit)
        if page.image:
            query = query.where(routes.c.image == page.image)
        of = [(routes.c.app_id, page.app_id)]
        return await self._read_all(
            lambda dialect: seek(query, dialect, of, routes.c.path, from_=page.after, long=True), Route
        )

    async def insert_route(self, route: Route) -> Route:
        new = route.created(self._now())

        async def work(connection: AsyncConnection) -> Route:
            await held_app(connection, new.app_id)
            await refuse_if(connection, routes, _route_is(new.app_id, new.path), errors.RouteExists)
            await add(connection, new)
            return new

        return await self._database.transact(work)

    async def update_route(self, app_id: str, path: str, change: Route) -> Route:
        return await self._database.transact(
            lambda connection: self._merge_route(connection, app_id, path, change)
        )

    async def _merge_route(self, connection: AsyncConnection, app_id: str, path: str, change: Route) -> Route:
        this = _route_is(app_id, path)
        query = all_of(Route).where(this).with_for_update()
        old = await find_one(connection, query, Route, errors.RouteNotFound)
        new = old.merged(change, self._now())
        if new is not old:
            await connection.execute(update(routes).where(this).values(row_of(new)))
        return new

    async def put_route(self, route: Route) -> tuple[Route, bool]:
        async def work(connection: AsyncConnection) -> tuple[Route, bool]:
            await held_app(connection, route.app_id)
            try:
                return await self._merge_route(connection, route.app_id, route.path, route), False
            except errors.RouteNotFound:
                new = route.created(self._now())
            await add(connection, new)
            return new, True

        return await self._database.transact(work)

    async def remove_route(self, app_id: str, path: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            if not (await connection.execute(delete(routes).where(_route_is(app_id, path)))).rowcount:
                raise errors.RouteNotFound

        await self._database.transact(work)


def _route_is(app_id: str, path: str) -> ColumnElement[bool]:
    return and_(routes.c.app_id == app_id, long_is(routes.c.path, path))
