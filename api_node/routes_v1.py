"""``/v1/apps/{app}/routes``. Source: Fn 0.3.484, api/server/routes_*.go.

Paths of routes are below the URL with or without their leading slash, and of any depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from api_node import v1
from api_node.paging import lenient_cursor, per_page, v1_cursor
from shared_models import errors, secrets
from shared_models.config import milli_cpus
from shared_models.interfaces import Datastore, RouteFilter
from shared_models.route import Route, clean_path
from shared_models.web import json_response, tagged_response


class RoutesV1:
    """Handlers of routes. Where one is written, its app is made when there is none, even if it is refused."""

    def __init__(self, store: Datastore) -> None:
        self._store = store

    async def list(self, request: web.Request) -> web.StreamResponse:
        limit = per_page(request)
        asked = RouteFilter(
            app_id=await v1.app_id(request, self._store),
            image=request.query.get("image", ""),
            after=lenient_cursor(request),
            limit=limit,
        )
        routes = await self._all_hidden(asked.app_id, await self._store.routes(asked))
        body = {
            "message": "Successfully listed routes",
            "next_cursor": v1_cursor(routes, limit, routes[-1].path if routes else ""),
            "routes": [route.wire() for route in routes],
        }
        return json_response(body)

    async def get(self, request: web.Request) -> web.StreamResponse:
        route = await self._store.route(await v1.app_id(request, self._store), _path(request))
        return tagged_response(
            request, {"message": "Successfully loaded route", "route": (await self._hidden(route)).wire()}
        )

    async def create(self, request: web.Request) -> web.StreamResponse:
        v1.app_name(request)
        given = await _given(request)
        if not given.path:
            raise errors.RouteMissingPath
        app_id = await v1.app_id_made(request, self._store)
        await self._check_shown(app_id, given.path, given)
        route = await self._store.insert_route(msgspec.structs.replace(given, app_id=app_id))
        return json_response(
            {"message": "Route successfully created", "route": (await self._hidden(route)).wire()}
        )

    async def put(self, request: web.Request) -> web.StreamResponse:
        v1.app_name(request)
        path, given = _path(request), await _given(request)
        if given.path and given.path != path:
            raise errors.RoutePathImmutable
        app_id = await v1.app_id_made(request, self._store)
        change = msgspec.structs.replace(given, app_id=app_id, path=path)
        await self._check_shown(app_id, path, change)
        route, new = await self._store.put_route(change)
        done = "created" if new else "updated"
        return json_response(
            {"message": f"Route successfully {done}", "route": (await self._hidden(route)).wire()}
        )

    async def update(self, request: web.Request) -> web.StreamResponse:
        app_id = await v1.app_id(request, self._store)
        path, given = _path(request), await _given(request)
        await self._check_shown(app_id, path, given)
        route = await self._store.update_route(app_id, path, given)
        return json_response(
            {"message": "Route successfully updated", "route": (await self._hidden(route)).wire()}
        )

    async def remove(self, request: web.Request) -> web.StreamResponse:
        await self._store.remove_route(await v1.app_id(request, self._store), _path(request))
        return json_response({"message": "Route deleted"})

    async def _check_shown(self, app_id: str, path: str, given: Route) -> None:
        """Raises Invalid where *given* has what replies show of a value that was never given."""
        if secrets.HIDDEN not in given.config.values():
            return
        try:
            stored = (await self._store.route(app_id, path)).config
        except errors.RouteNotFound:
            stored = {}
        secrets.check_shown(given.config, stored, (await self._store.app(app_id)).annotations)

    async def _hidden(self, route: Route) -> Route:
        """*route* as clients may see it: its app may hide some of its config."""
        [hidden] = await self._all_hidden(route.app_id, [route])
        return hidden

    async def _all_hidden(self, app_id: str, routes: Sequence[Route]) -> Sequence[Route]:
        """*routes* of one app, which is read once for all of them, and only if there is config to hide."""
        if not any(route.config for route in routes):
            return routes
        of_app = (await self._store.app(app_id)).annotations
        return [secrets.hidden(route, of_app) for route in routes]


def _path(request: web.Request) -> str:
    return clean_path(request.match_info["path"])


async def _given(request: web.Request) -> Route:
    route = await v1.route_in(request)
    # Like what is no JSON, before an app is made for it.
    milli_cpus(route.cpus)
    return route
