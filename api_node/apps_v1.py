"""``/v1/apps``. Source: Fn 0.3.484, api/server/apps_*.go."""

from __future__ import annotations

from aiohttp import web

from api_node import v1
from api_node.apps import apps_of
from api_node.gate import asking, permit
from api_node.paging import lenient_cursor, per_page, v1_cursor
from shared_models import errors, secrets
from shared_models.interfaces import AppFilter, Datastore
from shared_models.web import json_response, tagged_response


class AppsV1:
    """Handlers of apps, which v1 knows by name."""

    def __init__(self, store: Datastore) -> None:
        self._store = store

    async def create(self, request: web.Request) -> web.StreamResponse:
        given = await v1.app_in(request)
        permit(given.name)
        app = await v1.new_app(self._store, given)
        return json_response({"message": "App successfully created", "app": secrets.hidden(app).wire()})

    async def list(self, request: web.Request) -> web.StreamResponse:
        limit = per_page(request)
        asked = AppFilter(after=lenient_cursor(request), limit=limit)
        apps = await apps_of(asking(), self._store, asked)
        body = {
            "message": "Successfully listed applications",
            "next_cursor": v1_cursor(apps, limit, apps[-1].name if apps else ""),
            # No apps are null, as no routes and no calls are not.
            "apps": [secrets.hidden(app).wire() for app in apps] or None,
        }
        return json_response(body)

    async def get(self, request: web.Request) -> web.StreamResponse:
        app = await self._store.app(await v1.app_id(request, self._store))
        return tagged_response(
            request, {"message": "Successfully loaded app", "app": secrets.hidden(app).wire()}
        )

    async def update(self, request: web.Request) -> web.StreamResponse:
        app_id = await v1.app_id(request, self._store)
        change = await v1.app_in(request)
        if change.name:
            raise errors.AppNameImmutable
        v1.check_syslog_url(change)
        app = await self._store.update_app(app_id, change)
        return json_response({"message": "AppName successfully updated", "app": secrets.hidden(app).wire()})

    async def remove(self, request: web.Request) -> web.StreamResponse:
        await self._store.remove_app(await v1.app_id(request, self._store))
        return json_response({"message": "App deleted"})
