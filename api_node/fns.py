"""``/v2/fns``. Source: Fn 0.3.753, api/server/fns_*.go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from api_node.endpoints import Endpoints
from api_node.gate import permit_app
from api_node.paging import cursor, page, per_page
from shared_models import errors, secrets, wire
from shared_models.fn import Fn
from shared_models.interfaces import Datastore, FnFilter
from shared_models.web import json_response, read_body


class Fns:
    """Handlers of functions. Every reply but that to an update says where the function is invoked."""

    def __init__(self, store: Datastore, endpoints: Endpoints) -> None:
        self._store = store
        self._endpoints = endpoints

    async def create(self, request: web.Request) -> web.StreamResponse:
        given = wire.decode(await read_body(request), Fn)
        await permit_app(self._store, given.app_id)
        if secrets.HIDDEN in given.config.values():
            secrets.check_shown(given.config, {}, (await self._store.app(given.app_id)).annotations)
        fn = await self._hidden(await self._store.insert_fn(given))
        return json_response(fn.wire(endpoint=self._endpoints.fn(request, fn), created=True))

    async def list(self, request: web.Request) -> web.StreamResponse:
        app_id = request.query.get("app_id", "")
        if not app_id:
            raise errors.FnMissingAppID
        limit = per_page(request)
        asked = FnFilter(
            app_id=app_id, name=request.query.get("name", ""), after=cursor(request), limit=limit
        )
        fns = await self._all_hidden(app_id, await self._store.fns(asked))
        return json_response(
            page([self._shown(request, fn) for fn in fns], limit, fns[-1].name if fns else "")
        )

    async def get(self, request: web.Request) -> web.StreamResponse:
        fn = await self._store.fn(request.match_info["fn_id"])
        return json_response(self._shown(request, await self._hidden(fn)))

    async def update(self, request: web.Request) -> web.StreamResponse:
        fn_id = request.match_info["fn_id"]
        change = wire.decode(await read_body(request), Fn)
        if change.id and change.id != fn_id:
            raise errors.FnIDMismatch
        if secrets.HIDDEN in change.config.values():
            fn = await self._store.fn(fn_id)
            secrets.check_shown(change.config, fn.config, (await self._store.app(fn.app_id)).annotations)
        return json_response((await self._hidden(await self._store.update_fn(fn_id, change))).wire())

    async def remove(self, request: web.Request) -> web.StreamResponse:
        await self._store.remove_fn(request.match_info["fn_id"])
        return web.Response(status=204)

    async def _hidden(self, fn: Fn) -> Fn:
        """*fn* as clients may see it: its app may hide some of its config."""
        [hidden] = await self._all_hidden(fn.app_id, [fn])
        return hidden

    async def _all_hidden(self, app_id: str, fns: Sequence[Fn]) -> Sequence[Fn]:
        """*fns* of one app, which is read once for all of them, and only if there is config to hide."""
        if not any(fn.config for fn in fns):
            return fns
        of_app = (await self._store.app(app_id)).annotations
        return [secrets.hidden(fn, of_app) for fn in fns]

    def _shown(self, request: web.Request, fn: Fn) -> dict[str, Any]:
        return fn.wire(endpoint=self._endpoints.fn(request, fn))
