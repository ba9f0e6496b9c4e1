"""``/v2/dead-letters``: queued calls that were given up, and what people may do about them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from api_node.paging import cursor, page, per_page
from shared_models import errors, secrets
from shared_models.call import bytes_on_wire
from shared_models.call_interfaces import CallControl, DeadLetter, DeadLetterFilter, DeadLetters
from shared_models.ids import is_id
from shared_models.web import json_response

AT_ONCE = 1000
"""Dead letters that one request redrives or purges at most."""
SHOWN = 64 * 1024
"""Bytes of a payload that are shown."""


class DeadLetterAPI:
    """Handlers of calls that were given up."""

    def __init__(self, letters: DeadLetters, control: CallControl) -> None:
        self._letters = letters
        self._control = control

    async def list(self, request: web.Request) -> web.StreamResponse:
        limit, before = per_page(request), cursor(request)
        if before and not is_id(before):
            raise errors.BadCursor
        asked = DeadLetterFilter(fn_id=request.query.get("fn_id", ""), before=before, limit=limit)
        found = await self._letters.page(asked)
        last = found[-1].call.id if found else ""
        return json_response(page([_summary(one) for one in found], limit, last))

    async def get(self, request: web.Request) -> web.StreamResponse:
        letter = await self._letters.get(request.match_info["call_id"])
        call, body = letter.call, _summary(letter)
        body["headers"] = secrets.shown(call.headers)
        body["payload_size"] = len(call.payload)
        body.update(bytes_on_wire("payload", call.payload[:SHOWN]))
        return json_response(body)

    async def redrive(self, request: web.Request) -> web.StreamResponse:
        call_id = await self._control.redrive(request.match_info["call_id"])
        return json_response({"call_id": call_id}, 202, {"Fn-Call-Id": call_id})

    async def redrive_all(self, request: web.Request) -> web.StreamResponse:
        fn_id = _of_a_function(request)
        redriven = await self._control.redrive_all(fn_id, AT_ONCE)
        return json_response({"redriven": redriven, "left": await self._letters.count(fn_id)})

    async def remove(self, request: web.Request) -> web.StreamResponse:
        if not await self._letters.remove([request.match_info["call_id"]]):
            raise errors.DeadLetterNotFound
        return web.Response(status=204)

    async def purge(self, request: web.Request) -> web.StreamResponse:
        fn_id = _of_a_function(request)
        purged = await self._letters.purge(fn_id=fn_id, limit=AT_ONCE)
        return json_response({"purged": purged, "left": await self._letters.count(fn_id)})


def _of_a_function(request: web.Request) -> str:
    if fn_id := request.query.get("fn_id", ""):
        return fn_id
    raise errors.Invalid("fn_id: must be given: whose dead letters are meant")


def _summary(letter: DeadLetter) -> dict[str, Any]:
    body = letter.call.record()
    body["died_at"] = letter.died_at
    if letter.redriven_as:
        body["redriven_as"] = letter.redriven_as
    return body
