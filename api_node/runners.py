"""``/v2/runners``: the runner nodes that have reported within a day."""

from __future__ import annotations

from aiohttp import web

from shared_models.interfaces import Datastore
from shared_models.web import json_response


class Runners:
    """Handlers of the registry of runner nodes."""

    def __init__(self, store: Datastore) -> None:
        self._store = store

    async def list(self, request: web.Request) -> web.StreamResponse:
        return json_response({"items": [runner.wire() for runner in await self._store.runners()]})
