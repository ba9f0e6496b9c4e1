"""``/v2/runners``: the runner nodes that have reported within a day, and what they are to do."""

from __future__ import annotations

import msgspec
from aiohttp import web

from shared_models import errors, wire
from shared_models.interfaces import Datastore
from shared_models.runner import RunnerState
from shared_models.web import json_response, read_body

_ASKED = (RunnerState.ACTIVE, RunnerState.DRAINING)


class _Change(msgspec.Struct, frozen=True):
    state: str = ""


class Runners:
    """Handlers of the registry of runner nodes."""

    def __init__(self, store: Datastore) -> None:
        self._store = store

    async def list(self, request: web.Request) -> web.StreamResponse:
        return json_response({"items": [runner.wire() for runner in await self._store.runners()]})

    async def get(self, request: web.Request) -> web.StreamResponse:
        wanted = request.match_info["runner_id"]
        for runner in await self._store.runners():
            if runner.report.id == wanted:
                return json_response(runner.wire())
        raise errors.RunnerNotFound

    async def update(self, request: web.Request) -> web.StreamResponse:
        """Drains a runner, or takes it back into service; it is told with its next heartbeat."""
        state = wire.decode(await read_body(request), _Change).state
        if state not in _ASKED:
            raise errors.Invalid(f"state: must be {' or '.join(_ASKED)}")
        runner = await self._store.set_runner_state(request.match_info["runner_id"], RunnerState(state))
        return json_response(runner.wire())
