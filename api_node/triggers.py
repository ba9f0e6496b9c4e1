"""``/v2/triggers``. Source: Fn 0.3.753, api/server/trigger_*.go."""

from __future__ import annotations

from aiohttp import web

from api_node.endpoints import Endpoints
from api_node.gate import permit_app
from api_node.paging import cursor, page, per_page
from shared_models import errors, wire
from shared_models.interfaces import Datastore, TriggerFilter
from shared_models.trigger import Trigger
from shared_models.web import json_response, read_body

_SEPARATOR = "\0"
_AFTER_ALL_IDS = "~"


class Triggers:
    """Handlers of triggers. Every reply but that to an update says where the trigger is called."""

    def __init__(self, store: Datastore, endpoints: Endpoints) -> None:
        self._store = store
        self._endpoints = endpoints

    async def create(self, request: web.Request) -> web.StreamResponse:
        given = wire.decode(await read_body(request), Trigger)
        await permit_app(self._store, given.app_id)
        trigger = await self._store.insert_trigger(given)
        return json_response(trigger.wire(endpoint=await self._endpoint(request, trigger)))

    async def list(self, request: web.Request) -> web.StreamResponse:
        app_id = request.query.get("app_id", "")
        if not app_id:
            raise errors.TriggerMissingAppID
        limit = per_page(request)
        asked = TriggerFilter(
            app_id=app_id,
            fn_id=request.query.get("fn_id", ""),
            name=request.query.get("name", ""),
            after=_after(cursor(request)),
            limit=limit,
        )
        triggers = await self._store.triggers(asked)
        if not triggers:
            return json_response(page([], limit, ""))
        app = await self._store.app(app_id)
        items = [
            trigger.wire(endpoint=self._endpoints.trigger(request, trigger, app)) for trigger in triggers
        ]
        # Names are unique per function only: the id tells apart what the name does not.
        return json_response(page(items, limit, f"{triggers[-1].name}{_SEPARATOR}{triggers[-1].id}"))

    async def get(self, request: web.Request) -> web.StreamResponse:
        trigger = await self._store.trigger(request.match_info["trigger_id"])
        return json_response(trigger.wire(endpoint=await self._endpoint(request, trigger)))

    async def update(self, request: web.Request) -> web.StreamResponse:
        trigger_id = request.match_info["trigger_id"]
        change = wire.decode(await read_body(request), Trigger)
        if change.id and change.id != trigger_id:
            raise errors.TriggerIDMismatch
        return json_response((await self._store.update_trigger(trigger_id, change)).wire())

    async def remove(self, request: web.Request) -> web.StreamResponse:
        await self._store.remove_trigger(request.match_info["trigger_id"])
        return web.Response(status=204)

    async def _endpoint(self, request: web.Request, trigger: Trigger) -> str:
        return self._endpoints.trigger(request, trigger, await self._store.app(trigger.app_id))


def _after(key: str) -> tuple[str, str] | None:
    if not key:
        return None
    name, separator, trigger_id = key.partition(_SEPARATOR)
    # A cursor of Fn's own holds the name alone, and means: after everything of that name.
    return (name, trigger_id if separator else _AFTER_ALL_IDS)
