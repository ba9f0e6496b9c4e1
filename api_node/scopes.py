"""Whose app a request is about, by its path or its query. Not asked for those who have all apps."""

from __future__ import annotations

from aiohttp import web

from shared_models.call_interfaces import DeadLetters
from shared_models.interfaces import Datastore


class Scopes:
    """Each method is a ``gate.Scope``."""

    def __init__(self, store: Datastore, letters: DeadLetters) -> None:
        self._store = store
        self._letters = letters

    async def every(self, request: web.Request) -> str | None:
        """What all apps share."""
        return None

    async def named(self, request: web.Request) -> str | None:
        """The app whose name is in the path."""
        return request.match_info["app"]

    async def app(self, request: web.Request) -> str | None:
        """The app whose id is in the path."""
        return await self._name(request.match_info["app_id"])

    async def fn(self, request: web.Request) -> str | None:
        """The app of the function in the path."""
        return await self._of_fn(request.match_info["fn_id"])

    async def trigger(self, request: web.Request) -> str | None:
        """The app of the trigger in the path."""
        return await self._name((await self._store.trigger(request.match_info["trigger_id"])).app_id)

    async def letter(self, request: web.Request) -> str | None:
        """The app of the dead letter in the path."""
        return await self._name((await self._letters.get(request.match_info["call_id"])).call.app_id)

    async def asked_app(self, request: web.Request) -> str | None:
        """The app that the query names; all of them where it names none."""
        app_id = request.query.get("app_id", "")
        return await self._name(app_id) if app_id else None

    async def asked_fn(self, request: web.Request) -> str | None:
        """The app of the function that the query names; all apps where it names none."""
        fn_id = request.query.get("fn_id", "")
        return await self._of_fn(fn_id) if fn_id else None

    async def _of_fn(self, fn_id: str) -> str:
        return await self._name((await self._store.fn(fn_id)).app_id)

    async def _name(self, app_id: str) -> str:
        return (await self._store.app(app_id)).name
