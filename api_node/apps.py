"""``/v2/apps``. Source: Fn 0.3.753, api/server/apps_*.go."""

from __future__ import annotations

from aiohttp import web

from api_node.gate import asking, permit
from api_node.paging import cursor, page, per_page
from shared_models import errors, secrets, wire
from shared_models.access import Principal
from shared_models.app import App, check_syslog_url
from shared_models.interfaces import AppFilter, Datastore
from shared_models.web import json_response, read_body


class Apps:
    """Handlers of apps."""

    def __init__(self, store: Datastore) -> None:
        self._store = store

    async def create(self, request: web.Request) -> web.StreamResponse:
        app = await _given(request)
        permit(app.name)
        return json_response(secrets.hidden(await self._store.insert_app(app)).wire())

    async def list(self, request: web.Request) -> web.StreamResponse:
        limit = per_page(request)
        asked = AppFilter(name=request.query.get("name", ""), after=cursor(request), limit=limit)
        apps = await apps_of(asking(), self._store, asked)
        return json_response(
            page([secrets.hidden(app).wire() for app in apps], limit, apps[-1].name if apps else "")
        )

    async def get(self, request: web.Request) -> web.StreamResponse:
        app = await self._store.app(request.match_info["app_id"])
        return json_response(secrets.hidden(app).wire())

    async def update(self, request: web.Request) -> web.StreamResponse:
        app_id = request.match_info["app_id"]
        change = await _given(request)
        if change.id and change.id != app_id:
            raise errors.AppIDMismatch
        return json_response(secrets.hidden(await self._store.update_app(app_id, change)).wire())

    async def remove(self, request: web.Request) -> web.StreamResponse:
        await self._store.remove_app(request.match_info["app_id"])
        return web.Response(status=204)


async def apps_of(principal: Principal, store: Datastore, asked: AppFilter) -> list[App]:
    """The page of those apps that *principal* has."""
    if principal.has_every_app:
        return await store.apps(asked)
    names = sorted(name for name in principal.apps or () if name > asked.after)
    if asked.name:
        names = [name for name in names if name == asked.name]
    found: list[App] = []
    # One by one: few are named, and a store need not know of principals.
    for name in names:
        if len(found) >= asked.limit:
            break
        found += await store.apps(AppFilter(name=name, limit=1))
    return found


async def _given(request: web.Request) -> App:
    app = wire.decode(await read_body(request), App)
    # Of what an app may have, v1 can set more than v2.
    if app.syslog_url:
        check_syslog_url(app.syslog_url)
    return app
