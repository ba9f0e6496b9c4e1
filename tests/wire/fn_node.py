"""Stands in for an unmodified Fn 0.3.484 API node: answers a runner from recorded exchanges.

What a runner of Fn would never ask for (leases, heartbeats) is a path that this node does not know, and
no trouble. What Fn serves must be asked for as it was recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from shared_models import times
from shared_models.ids import new_id
from shared_models.web import HTTPSettings, json_response, read_body, serving
from tests.wire.matching import TOKEN, Bindings, match_json

POLL = 10.0
"""Seconds for which a dequeue waits at most."""
DEQUEUE = ("GET", "/v1/runner/async")
SERVED = re.compile(
    r"GET /v1/apps/[^/]+|GET /v1/runner/apps/[^/]+(?:/routes/[^/]*)?"
    r"|(?:GET|PUT) /v1/runner/async|POST /v1/runner/(?:start|finish)"
)
"""What Fn's runners ask of it."""


class _Exchange:
    def __init__(self, recorded: dict[str, Any]) -> None:
        self.id: str = recorded["id"]
        self.request: dict[str, Any] = recorded["request"]
        self.response: dict[str, Any] = recorded["response"]
        self.after: str | None = recorded.get("after")
        self.fails = bool(recorded.get("fail"))
        self.used = 0
        self.left: int | None = None
        """How often an injected failure is still given; None is always."""
        self.phase: int | None = None
        """The phase for which an injected failure is meant."""

    @property
    def key(self) -> tuple[str, str]:
        return self.request["method"], self.request["path"]


class FnNode:
    """The node of one scenario. A phase of it ends with each step that says what was asked until then."""

    def __init__(self, scenario: dict[str, Any], bindings: Bindings) -> None:
        self._bindings = bindings
        self._exchanges = [_Exchange(recorded) for recorded in scenario["exchanges"]]
        self._asked: list[str] = []
        self._trouble: list[str] = []
        self._changed = asyncio.Condition()
        self._phase = 0
        phases = (step for step in scenario["steps"] if "upstream" in step)
        for phase, step in enumerate(phases):
            for exchange in self._exchanges:
                if exchange.fails and exchange.id in step["upstream"]:
                    exchange.left, exchange.phase = (step.get("counts") or {}).get(exchange.id, 1), phase

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Of any request."""
        body = await read_body(request)
        if (request.method, request.raw_path) == DEQUEUE:
            return await self._dequeue()
        exchange = self._fitting(request, body)
        if exchange:
            return await self._answered(exchange)
        await self._tell()
        return json_response({"error": {"message": f"Path not found: {request.path}"}}, 404)

    async def differences(self, step: dict[str, Any], within: float = 25.0) -> list[str]:
        """Waits for *step*'s requests: those that never came, or came otherwise. Ends the phase."""
        wanted = step["upstream"]
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._changed.wait_for(lambda: self._trouble or set(wanted) <= set(self._asked))
        problems = [f"the runner never asked for {one}" for one in wanted if one not in self._asked]
        for one, times_ in (step.get("counts") or {}).items():
            if self._asked.count(one) != times_:
                problems.append(f"{one} was asked for {self._asked.count(one)} times, expected {times_}")
        problems += self._trouble
        self._trouble = []
        self._phase += 1
        return problems

    def _fitting(self, request: web.Request, body: bytes) -> _Exchange | None:
        """The exchange for *request*; when it was asked otherwise than recorded, the one that is closest."""
        closest: tuple[list[str], _Exchange] | None = None
        for exchange in sorted(self._exchanges, key=lambda one: (one.left is None, one.used)):
            if exchange.left == 0 or exchange.phase not in (None, self._phase):
                continue
            before = dict(self._bindings.values)
            method, path = exchange.key
            problems = [] if method == request.method else ["another method"]
            problems = problems or self._bindings.match(path, request.raw_path)
            if not problems and "json" in exchange.request:
                problems = match_json(exchange.request["json"], json.loads(body), self._bindings)
                if problems and (not closest or len(problems) < len(closest[0])):
                    closest = problems, exchange
            if not problems:
                return exchange
            self._bindings.values = before
        asked = f"{request.method} {request.raw_path}"
        if closest:
            self._trouble += [f"{asked}: {problem}" for problem in closest[0]]
            return closest[1]
        if SERVED.fullmatch(asked):
            self._trouble.append(f"not recorded: {asked} {body[:300].decode('utf-8', 'replace')}")
        return None

    async def _dequeue(self) -> web.StreamResponse:
        """A call whose turn it is, or none after a while: the original holds the request as long."""

        def handed_out() -> _Exchange | None:
            ready = (
                one
                for one in self._exchanges
                if one.key == DEQUEUE and not one.used and (not one.after or one.after in self._asked)
            )
            return next(ready, None)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL), self._changed:
                await self._changed.wait_for(handed_out)
        exchange = handed_out()
        return await self._answered(exchange) if exchange else json_response({"calls": []})

    async def _answered(self, exchange: _Exchange) -> web.StreamResponse:
        exchange.used += 1
        if exchange.left:
            exchange.left -= 1
        self._asked.append(exchange.id)
        self._make_up(exchange.response["json"])
        await self._tell()
        return json_response(self._bindings.fill(exchange.response["json"]), exchange.response["status"])

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _make_up(self, template: Any) -> None:
        """What only an API node gives out: ids and times of apps and routes."""
        for token in TOKEN.finditer(json.dumps(template)):
            name = token[1]
            if not name.startswith("*") and name not in self._bindings.values:
                kind = self._bindings.kinds[name]
                self._bindings.values[name] = new_id() if kind == "id" else times.now()


@contextlib.asynccontextmanager
async def serving_exchanges(node: FnNode) -> AsyncIterator[str]:
    """The base URL of *node*."""
    http = HTTPSettings(port=0, host="127.0.0.1", drain=0.1)
    async with serving([web.route("*", "/{path:.*}", node.answer)], http, node_type="api") as port:
        yield f"http://127.0.0.1:{port}"
