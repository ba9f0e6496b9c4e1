"""Several worker processes on one port: it is held for them, what they have in common is loaded, they begin.

Each is forked from the supervisor (``supervisor``), and a whole node of its own but for its name and share.
"""

from __future__ import annotations

import gc
import importlib
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from deploy import shares
from deploy.settings import APINode, FullNode, Settings
from deploy.supervisor import WAITED_FOR, Supervisor, Work
from shared_models.ports import PortUnavailable, Where

_API = (
    "api_node.app",
    "services.call_control",
    "services.callbacks.delivery",
    "services.identity.opening",
    "services.janitor",
)
_RUNNER = (
    "runner_node.agent",
    "runner_node.drivers.opener",
    "runner_node.invoke",
    "services.identity.opening",
)
_ROOMS = {
    "api": _API,
    "runner": ("hybrid_client.client", *_RUNNER),
    "full": (*_API, *_RUNNER),
}
"""What the nodes import: once for all workers, which share that memory, and start sooner."""


def supervise(settings: Settings, work: Work) -> int:
    """Runs ``settings.node.workers`` workers until a signal stops them; answers the exit code.

    That is what the first worker's was when it could not start. Raises OSError when the port cannot be had.
    """
    # Threads that others begin meanwhile must not get them either.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    try:
        with held_ports(settings) as held:
            for room in ("deploy.nodes", *_ROOMS[settings.node.type]):
                importlib.import_module(room)
            # What is there already is not looked at again: that would copy the pages that workers share.
            gc.collect()
            gc.freeze()
            return Supervisor(held, work).run()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def held_ports(settings: Settings) -> Iterator[Settings]:
    """*settings* of the node as a whole, with the ports that the workers will listen on.

    They are kept while the block runs; nothing listens on them by that. Raises PortUnavailable.
    """
    http = settings.http
    with ExitStack() as stack:
        enter = stack.enter_context
        port = enter(held_port(Where(host=http.host, port=http.port, variable="FN_PORT")))
        settings = shares.whole(settings, port)
        if http.admin_port is not None:
            host = http.admin_host or http.host
            port = enter(held_port(Where(host=host, port=http.admin_port, variable="FN_ADMIN_PORT")))
            settings = replace(settings, http=replace(settings.http, admin_port=port))
        if isinstance(settings, APINode | FullNode) and settings.api.runner_api_port is not None:
            inner = Where(host=http.host, port=settings.api.runner_api_port, variable="FN_RUNNER_API_PORT")
            settings = replace(settings, api=replace(settings.api, runner_api_port=enter(held_port(inner))))
        yield settings


@contextmanager
def held_port(where: Where) -> Iterator[int]:
    """The port that workers will listen on, kept while the block runs.

    Raises PortUnavailable when it is taken, also by another node whose workers would let others share it.
    """
    with ExitStack() as stack:
        try:
            port = _hold(stack, where.host, where.port)
        except OSError as exc:
            raise PortUnavailable(exc, where.port, where.variable) from exc
        yield port


def _hold(stack: ExitStack, host: str, port: int) -> int:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in dict.fromkeys(found):
        for shared in (False, True):
            held = socket.socket(family, kind, protocol)
            with ExitStack() as unless_bound:
                unless_bound.callback(held.close)
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if shared:
                    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    stack.enter_context(unless_bound.pop_all())
                held.bind((address[0], port, *address[2:]))
                port = held.getsockname()[1]
    return port
