"""What every node answers, whatever its type: who it is, whether it is well, what it counts."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from shared_models import expositions, ready_counts, telemetry
from shared_models.answering import Stage
from shared_models.answers import json_response
from shared_models.workers import Siblings

FN_VERSION = "0.3.753"
"""The version of Fn whose API this is; the ``fn`` command asks for it."""
COMMON_PATHS = ("/", "/version", "/metrics", "/healthz", "/readyz")
"""What every node answers to GET; ``/metrics`` on its admin port alone where it has one."""
_PROBES = ("/healthz", "/readyz")


class Common:
    """Handlers of those paths.

    *ready* and *alive* give the reason why the node is not ready, or had better begin anew, or "".
    """

    def __init__(
        self,
        node_type: str,
        stage: Stage,
        ready: Callable[[], str],
        alive: Callable[[], str],
        siblings: Siblings | None,
    ) -> None:
        self._node_type = node_type
        self._stage = stage
        self._ready = ready
        self._alive = alive
        self._siblings = siblings
        ready_counts.watch(self._not_ready)
        if siblings:
            siblings.answer("metrics", telemetry.exposition)

    def routes(self, *, metrics: bool) -> list[web.RouteDef]:
        """All of them, the metrics only where they are wanted.

        Probes answer HEAD as well, which many load balancers and monitors send; Fn has none of those paths.
        """
        handlers = (self._ping, self._version, self._metrics, self._live, self._readiness)
        return [
            web.get(path, handler, allow_head=path in _PROBES)
            for path, handler in zip(COMMON_PATHS, handlers, strict=True)
            if metrics or path != "/metrics"
        ]

    async def _ping(self, request: web.Request) -> web.StreamResponse:
        return json_response({"goto": "https://github.com/fnproject/fn", "hello": "world!"})

    async def _version(self, request: web.Request) -> web.StreamResponse:
        return json_response({"version": FN_VERSION})

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        siblings = self._siblings
        page = expositions.joined(await siblings.ask("metrics")) if siblings else telemetry.exposition()
        return web.Response(body=page, headers={"Content-Type": telemetry.CONTENT_TYPE})

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if reason := self._alive():
            return json_response({"message": reason}, 503)
        return json_response({"status": "ok", "node_type": self._node_type})

    async def _readiness(self, request: web.Request) -> web.StreamResponse:
        if reason := self._not_ready():
            return json_response({"message": reason}, 503)
        return json_response({"status": "ready", "node_type": self._node_type})

    def _not_ready(self) -> str:
        return "The node is stopping" if self._stage.leaving.is_set() else self._ready()
