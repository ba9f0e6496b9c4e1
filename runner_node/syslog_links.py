"""Ways to a syslog server: streams (TCP, TLS, unix) and datagrams (UDP, unixgram), dialled from a URL."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit

from runner_node.drivers.threads import Threads
from shared_models.destinations import EVERYWHERE, permitted

PORT = 514
TLS_PORT = 6514
"""The ports where a URL names none (RFC 5425 for TLS)."""
BATCH = 32 * 1024
"""Bytes that are written to a stream at once, and that may wait in it before it counts as full."""
DIAL = 10.0
"""Seconds that connecting may take."""
LOOKUPS = 4
"""Names that are looked up at a time."""
CLOSING = 1.0
"""Seconds that a stream gets to send what it holds when it is closed."""


class Address(NamedTuple):
    """Where a syslog URL leads: *host* and *port*, or the *path* of a unix socket."""

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        # As the log may show it: user and password of a URL are not in it.
        return f"{self.scheme}://{self.path or f'{self.host}:{self.port}'}"


def parse(url: str) -> Address:
    """The address in one *url*; raises ValueError with the rule that it breaks."""
    parts = urlsplit(url.strip())
    match parts.scheme:
        case "tcp" | "udp" | "tls" | "tcp+tls":
            if not parts.hostname:
                raise ValueError("a syslog URL needs a host")
            port = parts.port or (TLS_PORT if "tls" in parts.scheme else PORT)
            return Address(parts.scheme, parts.hostname, port, "")
        case "unix" | "unixgram":
            if parts.netloc or not parts.path.startswith("/"):
                raise ValueError("a syslog URL of a unix socket needs an absolute path (unix:///dev/log)")
            return Address(parts.scheme, "", 0, unquote(parts.path))
    raise ValueError("a syslog URL needs one of the schemes tcp, udp, tls, tcp+tls, unix, unixgram")


class Link(ABC):
    """One open connection; ``batch`` is the most bytes for one ``write`` (0: one message at a time)."""

    batch: int
    lost: str = ""
    """Why the connection is over, or empty; ``changed`` is set when it is."""

    @abstractmethod
    async def writable(self) -> None:
        """Returns when ``write`` has room, or when the connection is lost."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Never waits; raises BlockingIOError without room, OSError when the server refuses."""

    @abstractmethod
    async def close(self) -> None:
        """Sends what is held, for at most ``CLOSING`` seconds."""


class StreamLink(asyncio.Protocol, Link):
    """Messages one after the other; *changed* is set when the server closes: an idle sender sees it too."""

    batch = BATCH

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed
        self._room = asyncio.Event()
        self._gone = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # not by class: uvloop has its own
        self._transport.set_write_buffer_limits(high=BATCH)
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = str(exc or "the server closed the connection")
        for event in (self._gone, self._room, self._changed):
            event.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    async def writable(self) -> None:
        await self._room.wait()

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    async def close(self) -> None:
        assert self._transport is not None
        self._transport.close()
        try:
            async with asyncio.timeout(CLOSING):
                await self._gone.wait()
        except TimeoutError:
            self._transport.abort()


class DatagramLink(Link):
    """A message per datagram, on a connected socket of its own: the kernel then tells of a dead server."""

    batch = 0

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def writable(self) -> None:
        loop = asyncio.get_running_loop()
        room = loop.create_future()
        loop.add_writer(self._sock, _resolve, room)
        try:
            await room
        finally:
            loop.remove_writer(self._sock)

    def write(self, data: bytes) -> None:
        self._sock.send(data)

    async def close(self) -> None:
        self._sock.close()


def _resolve(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)


class Dialler:
    """Makes links; *tls* says whom to trust, *allow* where they may lead besides public addresses.

    Names are looked up in few threads of its own, not in those of the event loop: whoever waits for a name
    server that is away would wait there with all else that the node looks up, and with its end.
    """

    def __init__(self, tls: ssl.SSLContext, allow: Sequence[str]) -> None:
        self._tls = tls
        self._allow = allow
        self._threads = Threads(LOOKUPS, "syslog names")

    def refuses(self, address: Address) -> bool:
        """Whether *address* is never dialled; of a name, that depends on what it leads to by then."""
        if address.path:
            return not {EVERYWHERE, address.path} & {*self._allow}
        try:
            return not self._permitted(address, _resolved(address, socket.SOCK_STREAM, socket.AI_NUMERICHOST))
        except (OSError, ValueError):
            return False

    async def dial(self, address: Address, changed: asyncio.Event) -> Link:
        """A link to *address*; raises OSError (within ``DIAL`` seconds), or ValueError for an odd name."""
        async with asyncio.timeout(DIAL):
            match address.scheme:
                case "udp":
                    family, where = (await self._look_up(address, socket.SOCK_DGRAM))[0]
                    return _connected(family, where)
                case "unixgram":
                    return _connected(socket.AF_UNIX, address.path)
                case "unix":
                    return await self._unix(address, changed)
            return await self._tcp(address, changed)

    async def _unix(self, address: Address, changed: asyncio.Event) -> Link:
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_unix_connection(lambda: StreamLink(changed), address.path)
        except OSError as exc:
            if exc.errno != errno.EPROTOTYPE:
                raise
            # Most systems' /dev/log takes datagrams only.
            return _connected(socket.AF_UNIX, address.path)
        return link

    async def _tcp(self, address: Address, changed: asyncio.Event) -> Link:
        loop = asyncio.get_running_loop()
        secure: dict[str, Any] = {}
        if address.scheme != "tcp":
            secure = {"ssl": self._tls, "server_hostname": address.host}
        failure: OSError | None = None
        for _, where in await self._look_up(address, socket.SOCK_STREAM):
            try:
                _, link = await loop.create_connection(lambda: StreamLink(changed), *where[:2], **secure)
            except OSError as exc:
                failure = exc
            else:
                return link
        raise failure or OSError(f"{address.host} has no address")

    async def _look_up(self, address: Address, kind: socket.SocketKind) -> list[tuple[int, Any]]:
        """Family and socket address of each address of the host that may be dialled, at least one."""
        try:
            found = _resolved(address, kind, socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await self._threads.run(lambda: _resolved(address, kind), DIAL)
        # Those that were judged are dialled: a name that leads elsewhere by then gains nothing.
        if let_through := self._permitted(address, found):
            return let_through
        raise PermissionError("its addresses are not public, and FN_SYSLOG_ALLOW does not name them")

    def _permitted(self, address: Address, found: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
        return [one for one in found if permitted(address.host, one[1][0], self._allow)]


def _resolved(address: Address, kind: socket.SocketKind, flags: int = 0) -> list[tuple[int, Any]]:
    found = socket.getaddrinfo(address.host, address.port, type=kind, flags=flags)
    return [(family, where) for family, _, _, _, where in found]


def _connected(family: int, where: Any) -> DatagramLink:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return DatagramLink(sock)
