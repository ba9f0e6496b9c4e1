"""The three nodes, each on one screen: read down, it is the order of the start; up, of the stop.

A node yields the port that it serves on. What a node does not use is not even imported, so that
an image of one node type needs no library of another.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import NamedTuple, TypedDict

from aiohttp import web

from deploy.config import debug_pages
from deploy.extensions import Extensions, open_extensions
from deploy.identity import with_authorization
from deploy.reporting import reporting
from deploy.settings import APINode, FullNode, RunnerNode, Settings, address, node_id
from shared_models.access import Authenticator
from shared_models.extensions import Node
from shared_models.interfaces import DataAccess
from shared_models.listeners import Listeners
from shared_models.loop_lag import watching_loop
from shared_models.pulse import Pulse
from shared_models.tls import TLS, open_tls
from shared_models.tls_settings import TLSSettings
from shared_models.web import HTTPSettings, api_refusals, runner_refusals, serving
from shared_models.workers import ALONE, Place, Siblings, open_siblings


class _Management(NamedTuple):
    """What API nodes and full nodes have in common, at work; *away* says which stores do not answer."""

    listeners: Listeners
    tls: TLS
    identity: Authenticator | None
    extensions: Extensions
    pulse: Pulse
    away: Callable[[], str]
    data: DataAccess
    routes: list[web.RouteDef]


@asynccontextmanager
async def _managing(settings: APINode | FullNode, node_type: str) -> AsyncIterator[_Management]:
    """The stores, and what clients and runner nodes ask of them."""
    from api_node.app import api_routes
    from services.call_control import StoresCallControl
    from services.callbacks.delivery import running_callbacks
    from services.data_access import DirectDataAccess
    from services.identity.opening import open_identity
    from services.janitor import running_janitor
    from services.listening import listening
    from services.readiness import watching
    from services.stores import open_stores
    from services.timing import timed

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        listeners = Listeners()
        tls = await enter(open_tls(settings.tls))
        identity = await enter(open_identity(settings.identity))
        stores = listening(timed(await enter(open_stores(settings.stores))), listeners)
        here = Node(type=node_type, datastore=stores.datastore)
        extensions = await enter(open_extensions(settings.node.extensions, here, listeners))
        pulse = Pulse()
        readiness = await enter(watching(stores))
        await enter(
            running_janitor(stores, settings.retention, pulse=pulse, async_settings=settings.async_calls)
        )
        await enter(running_callbacks(stores, settings.callbacks))
        data = DirectDataAccess(stores, settings.async_calls, settings.callbacks)
        control = StoresCallControl(stores, data, settings.async_calls)
        routes = api_routes(stores, data, control, settings.api, identity)
        yield _Management(listeners, tls, identity, extensions, pulse, readiness.reason, data, routes)


@asynccontextmanager
async def api(settings: APINode, place: Place = ALONE) -> AsyncIterator[int]:
    """An API node: the stores, and what clients and runner nodes ask of them. Runs no functions."""
    from api_node.app import by_port

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        managing = await enter(_managing(settings, "api"))
        routes = [*managing.routes, *api_refusals()]
        routes, apart = by_port(routes + managing.extensions.endpoints(routes), settings.api)
        yield await enter(
            serving(
                routes,
                with_authorization(settings.http, managing.identity),
                node_type="api",
                ready=_ready(settings.api.needs_stores, managing.away),
                alive=managing.pulse.reason,
                middlewares=managing.extensions.middlewares(),
                siblings=await _siblings(stack, place),
                apart=apart,
                pages=debug_pages(settings),
                tls=managing.tls,
                certified=settings.api.runner_auth == "mtls",
            )
        )


@asynccontextmanager
async def runner(settings: RunnerNode, place: Place = ALONE) -> AsyncIterator[int]:
    """A runner node: an agent that knows the world only through an API node. Has no stores."""
    from hybrid_client.client import open_data_access
    from runner_node.agent import running_agent
    from runner_node.drivers.opener import open_driver
    from runner_node.guard import Guard
    from runner_node.invoke import invoke_routes
    from runner_node.quick import quick_path
    from services.identity.opening import open_identity

    name = node_id(settings.node, settings.http.port, os.getpid())
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        listeners = Listeners()
        tls = await enter(open_tls(settings.tls))
        identity = await enter(open_identity(settings.identity))
        extensions = await enter(open_extensions(settings.node.extensions, Node(type="runner"), listeners))
        data = await enter(open_data_access(settings.client, tls.client()))
        siblings = await _siblings(stack, place)
        driver = await enter(open_driver(settings.driver, name, place))
        described = _described(settings.http, settings.tls)
        agent = await enter(
            running_agent(
                data, driver, settings.agent, name, **described, listeners=listeners.calls, siblings=siblings
            )
        )
        guard = Guard(identity, settings.guard, place)
        routes = [*invoke_routes(agent, guard), *runner_refusals()]
        routes += extensions.endpoints(routes)
        port = await enter(
            serving(
                routes,
                with_authorization(settings.http, identity),
                node_type="runner",
                ready=agent.ready,
                alive=agent.pulse.reason,
                middlewares=extensions.middlewares(),
                siblings=siblings,
                fast_path=quick_path(agent, guard),
                pages={**debug_pages(settings), "slots": agent.slots},
                tls=tls,
            )
        )
        stack.callback(agent.stopping)  # before the server waits for its clients
        yield port


@asynccontextmanager
async def full(settings: FullNode, place: Place = ALONE) -> AsyncIterator[int]:
    """Both in one process: the same agent, on direct data access."""
    from api_node.app import by_port
    from runner_node.agent import running_agent
    from runner_node.drivers.opener import open_driver
    from runner_node.guard import Guard
    from runner_node.invoke import invoke_routes
    from runner_node.quick import quick_path

    name = node_id(settings.node, settings.http.port, os.getpid())
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        managing = await enter(_managing(settings, "full"))
        siblings = await _siblings(stack, place)
        driver = await enter(open_driver(settings.driver, name, place))
        # What was made a moment ago is found at once, as on Fn's full nodes: a look-up costs little here.
        described = _described(settings.http, settings.tls)
        agent = await enter(
            running_agent(
                managing.data,
                driver,
                settings.agent,
                name,
                **described,
                missing=0.0,
                listeners=managing.listeners.calls,
                siblings=siblings,
            )
        )
        guard = Guard(managing.identity, settings.guard, place)
        routes = [*managing.routes, *invoke_routes(agent, guard)]
        routes, apart = by_port(routes + managing.extensions.endpoints(routes), settings.api)
        port = await enter(
            serving(
                routes,
                with_authorization(settings.http, managing.identity),
                node_type="full",
                ready=_ready(settings.api.needs_stores, managing.away, agent.ready),
                alive=lambda: managing.pulse.reason() or agent.pulse.reason(),
                middlewares=managing.extensions.middlewares(),
                siblings=siblings,
                fast_path=quick_path(agent, guard),
                apart=apart,
                pages={**debug_pages(settings), "slots": agent.slots},
                tls=managing.tls,
                certified=settings.api.runner_auth == "mtls",
            )
        )
        stack.callback(agent.stopping)  # before the server waits for its clients
        yield port


class _Described(TypedDict):
    address: str
    version: str


def _described(http: HTTPSettings, tls: TLSSettings) -> _Described:
    """What a runner says of itself in its heartbeats."""
    where = address(http.host, http.port, "https" if tls.cert else "http")
    return {"address": where, "version": importlib.metadata.version("fn-hybrid")}


def _ready(needs_stores: bool, stores: Callable[[], str], *others: Callable[[], str]) -> Callable[[], str]:
    """Why a node is not ready: what *others* say, and what *stores* says if it needs them."""
    asked = [*others, *([stores] if needs_stores else [])]
    return lambda: next((reason for reason in (one() for one in asked) if reason), "")


async def _siblings(stack: AsyncExitStack, place: Place) -> Siblings | None:
    return None if place.alone else await stack.enter_async_context(open_siblings(place))


@asynccontextmanager
async def node(settings: Settings, place: Place = ALONE) -> AsyncIterator[int]:
    """The node that *settings* describe, or its worker at *place*, which reports to whoever wants to know."""
    async with reporting(settings, place), watching_loop(), _node(settings, place) as port:
        yield port


def _node(settings: Settings, place: Place) -> AbstractAsyncContextManager[int]:
    match settings:
        case APINode():
            return api(settings, place)
        case RunnerNode():
            return runner(settings, place)
        case FullNode():
            return full(settings, place)
