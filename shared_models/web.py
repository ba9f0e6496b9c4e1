"""Serving over HTTP: one server for every type of node, and errors as Fn words them.

Handlers are plain coroutines ``async def handler(request) -> web.StreamResponse`` that raise an
``FnError`` for what a client did wrong; routes are lists of ``web.RouteDef`` (``allow_head=False``:
Fn answers HEAD with 405 where only GET is known). Bodies reach handlers as they were sent: nothing
is decompressed, and escapes in paths are decoded once.

A handler goes on to its end when its client hangs up; who would work for nobody asks ``client_gone``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Middleware

from shared_models import cors
from shared_models.answering import Stage, application, client_gone, stopping
from shared_models.answers import JSON, error_response, is_v1, json_response, tagged_response
from shared_models.bodies import Bodies, body_limit, body_pieces, read_body
from shared_models.common import COMMON_PATHS, FN_VERSION, Common
from shared_models.debug import Debug, Page
from shared_models.drain import CUT
from shared_models.fast_path import FastPath
from shared_models.http_settings import HTTPSettings
from shared_models.ports import Port, PortUnavailable, Where, open_port
from shared_models.tls import TLS, Clients
from shared_models.unrouted import api_refusals, misdirected, runner_refusals
from shared_models.workers import Siblings

__all__ = [
    "COMMON_PATHS",
    "FN_VERSION",
    "JSON",
    "Apart",
    "HTTPSettings",
    "PortUnavailable",
    "api_refusals",
    "body_limit",
    "body_pieces",
    "client_gone",
    "error_response",
    "is_v1",
    "json_response",
    "read_body",
    "runner_refusals",
    "serving",
    "stopping",
    "tagged_response",
]

log = logging.getLogger(__name__)

ADMIN_CONNECTIONS = 256
"""Connections at most on the admin port: probes, Prometheus, and people."""


@dataclass(frozen=True, slots=True)
class Apart:
    """What runner nodes ask, on a *port* of its own."""

    routes: Sequence[web.RouteDef]
    port: int


@asynccontextmanager
async def serving(
    routes: Iterable[web.RouteDef],
    settings: HTTPSettings,
    *,
    node_type: str,
    ready: Callable[[], str] = lambda: "",
    alive: Callable[[], str] = lambda: "",
    middlewares: Sequence[Middleware] = (),
    siblings: Siblings | None = None,
    fast_path: FastPath | None = None,
    apart: Apart | None = None,
    pages: Mapping[str, Page] | None = None,
    tls: TLS | None = None,
    certified: bool = False,
) -> AsyncIterator[int]:
    """A server for *routes* and for those that every node has; yields the port that it listens on.

    *ready* gives the reason why the node is not ready, or "", *alive* why it had better begin anew.
    *middlewares* (of extensions) are around all of
    it, the first one outermost: they see every answer, errors included. With *siblings* they listen on the
    same port, and ``/metrics`` has those of all. *apart* is served on its own port. With
    ``settings.admin_port`` metrics are there alone, and so are the debug pages, to which *pages* are added.

    With the certificate of *tls* the ports speak TLS. *certified*: runner nodes are asked for certificates of
    theirs; on a port of their own nobody is heard without one.

    *fast_path* may take requests before all of that, while the node does not stop and neither middlewares nor
    pages of other origins want to see them.

    When the block ends the node is no longer ready; after ``settings.not_ready``
    seconds, in which it serves on, it takes no new connections, gives requests in flight ``settings.drain``
    seconds, and closes, the admin port last. Raises PortUnavailable when an address cannot be bound.
    """
    stage = Stage()
    common = Common(node_type, stage, ready, alive, siblings)
    node = _Node(settings, node_type, stage, middlewares, common, siblings, tls, certified)
    async with AsyncExitStack() as stack:
        admin = await node.open_admin(stack, pages or {})
        serving = [await node.open_public(stack, routes, fast_path, apart)]
        if apart:
            serving.append(await node.open_apart(stack, apart))
        try:
            yield serving[0].number
            serving[0].leave_the_fast_path()  # it knows nothing of answers that close their connection
            stage.leaving.set()
            await asyncio.sleep(settings.not_ready)
        finally:
            serving[0].leave_the_fast_path()
            stage.leaving.set()
            await asyncio.gather(*(port.stop_listening() for port in serving))
            stage.stopping.set()
            await asyncio.gather(*(port.finish(settings.drain) for port in serving))
            if admin:
                await admin.stop_listening()
                await admin.finish(CUT)


class _Node:
    """The ports of one node."""

    def __init__(
        self,
        settings: HTTPSettings,
        node_type: str,
        stage: Stage,
        middlewares: Sequence[Middleware],
        common: Common,
        siblings: Siblings | None,
        tls: TLS | None,
        certified: bool,
    ) -> None:
        self._settings = settings
        self._node_type = node_type
        self._stage = stage
        self._middlewares = middlewares
        self._common = common
        self._siblings = siblings
        self._tls = tls
        self._certified = certified
        self._bodies = Bodies(
            largest=settings.max_request_size,
            most=settings.max_bodies,
            silence=settings.read_timeout,
            rate=settings.min_rate,
        )

    async def open_public(
        self,
        stack: AsyncExitStack,
        routes: Iterable[web.RouteDef],
        fast_path: FastPath | None,
        apart: Apart | None,
    ) -> Port:
        settings = self._settings
        shown = [*self._common.routes(metrics=settings.admin_port is None), *routes]
        shown += misdirected() if apart else []
        app = application(shown, self._stage, self._bodies, self._middlewares)
        if settings.cors_origins:
            app.middlewares.insert(0, cors.cors(app, settings.cors_origins, settings.cors_headers))
        fast_path = None if self._middlewares or settings.cors_origins else fast_path
        clients = Clients.WHO_HAVE_ONE if self._certified and not apart else Clients.NOBODY
        where = self._where(settings.host, settings.port, "FN_PORT", clients)
        port = await stack.enter_async_context(
            open_port(app, settings, where, most=settings.max_connections, fast_path=fast_path)
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        log.info("%s node listens on %s:%d", self._node_type, host, port.number)
        return port

    async def open_apart(self, stack: AsyncExitStack, apart: Apart) -> Port:
        settings = self._settings
        shown = [*self._common.routes(metrics=False), *apart.routes]
        app = application(shown, self._stage, self._bodies, self._middlewares)
        clients = Clients.ALL if self._certified else Clients.NOBODY
        where = self._where(settings.host, apart.port, "FN_RUNNER_API_PORT", clients)
        port = await stack.enter_async_context(open_port(app, settings, where, most=settings.max_connections))
        log.info("runner nodes are served on %s:%d", settings.host, port.number)
        return port

    async def open_admin(self, stack: AsyncExitStack, pages: Mapping[str, Page]) -> Port | None:
        settings = self._settings
        if settings.admin_port is None:
            return None
        shown = [*self._common.routes(metrics=True), *Debug(self._siblings, pages).routes()]
        app = application(shown, self._stage, self._bodies)
        host = settings.admin_host or settings.host
        plain = not (self._tls and self._tls.settings.admin)
        where = self._where(host, settings.admin_port, "FN_ADMIN_PORT", None if plain else Clients.NOBODY)
        port = await stack.enter_async_context(open_port(app, settings, where, most=ADMIN_CONNECTIONS))
        log.info("metrics and debug pages are on %s:%d", host, port.number)
        return port

    def _where(self, host: str, port: int, variable: str, clients: Clients | None) -> Where:
        tls = self._tls.server(clients) if self._tls and clients else None
        return Where(host=host, port=port, variable=variable, shared=self._siblings is not None, tls=tls)
