"""Ports for servers that are told their port before they start, and keep it over restarts."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 10_000
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on now, and that this process has given to nobody else.

    It is none that the system chooses by itself: a port that a server has left, or does not have yet,
    would be taken by any connection that is made in the meantime.
    """
    choice = random.SystemRandom()
    while True:
        port = choice.randrange(_FIRST, _beyond())
        with socket.socket() as probe:
            # As servers do: what is left of closed connections is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


def _beyond() -> int:
    """The first port that the system chooses by itself."""
    try:
        first = int(_RANGE.read_text().split()[0])
    except OSError:
        first = 32_768
    return first if first > _FIRST + 1000 else 32_768
