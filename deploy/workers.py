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

from deploy import shares
from deploy.settings import Settings
from deploy.supervisor import WAITED_FOR, Supervisor, Work
from shared_models.http_settings import HTTPSettings

_API = ("api_node.app", "services.call_control", "services.callbacks.delivery", "services.janitor")
_RUNNER = ("runner_node.agent", "runner_node.drivers.opener", "runner_node.invoke")
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
        with held_port(settings.http) as port:
            settings = shares.whole(settings, port)
            for room in ("deploy.nodes", *_ROOMS[settings.node.type]):
                importlib.import_module(room)
            # What is there already is not looked at again: that would copy the pages that workers share.
            gc.collect()
            gc.freeze()
            return Supervisor(settings, work).run()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def held_port(http: HTTPSettings) -> Iterator[int]:
    """The port that the workers will listen on, kept while the block runs; nothing listens on it by that.

    Raises OSError when it is taken, also by another node whose workers would let others share it.
    """
    port = http.port
    with ExitStack() as stack:
        found = socket.getaddrinfo(http.host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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
        yield port
