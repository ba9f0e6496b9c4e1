"""Function logs on their way to syslog servers: behind the calls, bounded, and never in their way.

The lines are those of Fn 0.3.484 (RFC 5424 but for the version, which Fn writes as 2):

    <11>2 2018-06-05T10:15:00Z fn - - - - call_id=ID func_name=/path app_id=ID the line

with ``fn_id=ID`` in place of ``func_name`` for functions.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from runner_node.settings import SYSLOG_ALLOW
from runner_node.syslog_links import Address, Dialler, Link, parse

log = logging.getLogger(__name__)

MAX_MESSAGE = 8 * 1024
"""Bytes of one message at most: what common servers take in one line, and any datagram holds."""
QUEUE = 1 << 20
"""Bytes that wait for one server at most; beyond it the oldest lines are dropped."""
STALL = 30.0
"""Seconds after which a server that takes nothing is left, and dialled again."""
PAUSE = 0.25
MAX_PAUSE = 30.0
"""Seconds before a server is dialled again, doubled each time up to the second."""
STEADY = 5.0
"""Seconds that a connection must last to count as a good one."""
IDLE = 300.0
"""Seconds without a line after which a server is forgotten."""
FLUSH = 1.0
"""Seconds that queued lines get when the node stops."""

_NOT_IN_A_NAME = re.compile(r"[\x00-\x20\x7f]")


class Syslog:
    """All servers that this node sends to, one connection per URL. Made by ``open_syslog``."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._servers: dict[str, Server] = {}
        self._unusable: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0
        """Lines that no server got because its queue was full or it was gone for too long."""

    def lines(
        self, url: str, *, call_id: str, app_id: str, fn_id: str = "", path: str = "", text: bytes
    ) -> None:
        """Queues the lines of *text* for *url* (one or several, separated by commas). Never waits or raises.

        *path* is that of a route; without one *fn_id* is named. A last line without newline gets one, a line
        that is too long is cut and says so. What cannot be sent is logged once and dropped.
        """
        if not url or not text:
            return
        head = _head(call_id, app_id, fn_id, path)
        messages = [_message(head, line) for line in _lines(text)]
        for one in url.split(","):
            if server := self._server(one.strip()):
                server.add(messages)

    def following(
        self, url: str, *, call_id: str, app_id: str, fn_id: str = "", path: str = ""
    ) -> Callable[[bytes], None]:
        """Like ``lines`` for a log that comes in pieces: call it with each, and with ``b""`` at the end."""
        rest = b""

        def piece(data: bytes) -> None:
            nonlocal rest
            if data:
                whole, newline, rest = (rest + data).rpartition(b"\n")
                text = whole + newline
                if len(rest) > MAX_MESSAGE:
                    text, rest = text + rest, b""
            else:
                text, rest = rest, b""
            self.lines(url, call_id=call_id, app_id=app_id, fn_id=fn_id, path=path, text=text)

        return piece

    def _server(self, url: str) -> Server | None:
        if server := self._servers.get(url):
            return server
        if url in self._unusable:
            return None
        try:
            address = parse(url)
            if self._dialler.refuses(address):
                raise ValueError(f"{address} is not public, and FN_SYSLOG_ALLOW does not name it")
        except ValueError as exc:
            if len(self._unusable) >= 1000:
                self._unusable.clear()
            self._unusable.add(url)
            log.warning("function logs for a syslog server are not sent: %s", exc)
            return None
        server = self._servers[url] = Server(self, address, lambda: self._servers.pop(url, None))
        task = asyncio.get_running_loop().create_task(server.run(self._dialler), name=f"syslog {address}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return server

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()):
            log.error("%s broke down", task.get_name(), exc_info=bug)

    async def close(self) -> None:
        """Sends what is queued, for ``FLUSH`` seconds at most."""
        before = self.dropped
        for server in self._servers.values():
            server.end()
        if tasks := set(self._tasks):
            _, late = await asyncio.wait(tasks, timeout=FLUSH)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if lost := self.dropped - before:
            log.warning("%d lines of function logs were not sent to syslog before the end", lost)


class Server:
    """One server: its queue, and the task that empties it. *forget* takes it off the list."""

    def __init__(self, owner: Syslog, address: Address, forget: Callable[[], object]) -> None:
        self._owner = owner
        self._address = address
        self._forget = forget
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._ending = False
        self._dropped = 0
        self._troubled = False
        self._clock = asyncio.get_running_loop().time
        self._last = self._clock()

    def add(self, messages: list[bytes]) -> None:
        """Queues *messages*; the oldest make room."""
        self._last = self._clock()
        for message in messages:
            self._queue.append(message)
            self._size += len(message)
        while self._size > QUEUE:
            self._size -= len(self._queue.popleft())
            self._drop(1)
        self._changed.set()

    def end(self) -> None:
        """The task ends when the queue is empty."""
        self._ending = True
        self._changed.set()

    async def run(self, dialler: Dialler) -> None:
        """Connects and sends, again and again; returns when nothing has come for ``IDLE`` seconds."""
        try:
            await self._run(dialler)
        finally:
            if self._ending:
                self._owner.dropped += len(self._queue)
            else:
                self._drop(len(self._queue))
            # Whatever is queued for this URL from now on gets a new server.
            self._forget()

    async def _run(self, dialler: Dialler) -> None:
        pause = PAUSE
        while True:
            began = self._clock()
            try:
                link = await dialler.dial(self._address, self._changed)
                try:
                    await self._send(link, began)
                finally:
                    await link.close()
                if not self._queue:
                    return
            except (OSError, ValueError) as exc:
                self._trouble(exc)
            if self._clock() - self._last > IDLE:
                return
            if self._clock() - began > STEADY:
                pause = PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, MAX_PAUSE)

    async def _send(self, link: Link, began: float) -> None:
        """Until nothing more is to be sent; raises OSError when the link is over."""
        while True:
            while self._queue:
                async with asyncio.timeout(STALL):
                    await link.writable()
                self._write(link)
            self._relief(began)
            if self._ending:
                return
            self._changed.clear()
            if link.lost:
                raise ConnectionResetError(link.lost)
            try:
                async with asyncio.timeout(IDLE):
                    await self._changed.wait()
            except TimeoutError:
                if not self._queue:
                    return

    def _write(self, link: Link) -> None:
        if link.lost:
            raise ConnectionResetError(link.lost)
        taken: list[bytes] = []
        size = 0
        while self._queue and (not taken or size + len(self._queue[0]) <= link.batch):
            taken.append(self._queue.popleft())
            size += len(taken[-1])
        self._size -= size
        try:
            link.write(b"".join(taken))
        except OSError as exc:
            if exc.errno == errno.EMSGSIZE:
                self._drop(len(taken))
                return
            # Not sent: it comes first on the next link.
            self._queue.extendleft(reversed(taken))
            self._size += size
            raise

    def _drop(self, lines: int) -> None:
        if lines and not self._dropped:
            log.warning("syslog server %s is too slow or away: its oldest lines are dropped", self._address)
        self._dropped += lines
        self._owner.dropped += lines

    def _trouble(self, exc: Exception) -> None:
        if not self._troubled:
            reason = str(exc) or "it does not answer in time"
            log.warning("syslog server %s cannot be reached, trying on: %s", self._address, reason)
        self._troubled = True

    def _relief(self, began: float) -> None:
        """The queue is empty. A datagram "sent" proves little, so a link must have lasted to be good news."""
        if self._clock() - began < STEADY:
            return
        if self._troubled or self._dropped:
            log.info("syslog server %s takes lines again, %d were dropped", self._address, self._dropped)
        self._troubled, self._dropped = False, 0


def _head(call_id: str, app_id: str, fn_id: str, path: str) -> bytes:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    name = f"func_name={_NOT_IN_A_NAME.sub('_', path)}" if path else f"fn_id={fn_id}"
    return f"<11>2 {now} fn - - - - call_id={call_id} {name} app_id={app_id} ".encode()


def _lines(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _message(head: bytes, line: bytes) -> bytes:
    room = MAX_MESSAGE - len(head) - 1
    if len(line) > room:
        mark = b" [cut: the line has %d bytes]" % len(line)
        line = line[: max(0, room - len(mark))] + mark
    return head + line + b"\n"


@asynccontextmanager
async def open_syslog(ca: str = "", allow: Sequence[str] = SYSLOG_ALLOW) -> AsyncIterator[Syslog]:
    """Syslog at work; *ca* is a file of certificates to trust for TLS instead of the system's (FN_SYSLOG_CA).

    *allow* names where lines may go besides public addresses (FN_SYSLOG_ALLOW).
    Connects only when there are lines. On leaving, queued lines get ``FLUSH`` seconds. Raises ValueError
    when *ca* cannot be used.
    """
    try:
        tls = ssl.create_default_context(cafile=ca or None)
    except OSError as exc:
        raise ValueError(f"FN_SYSLOG_CA={ca!r}: {exc.strerror or exc}") from exc
    syslog = Syslog(Dialler(tls, allow))
    try:
        yield syslog
    finally:
        await syslog.close()
