"""TLS of a node's ports and of its requests to others: from files, which may change while it runs.

Each new connection is made with the files of that moment; those that are there go on. New files that cannot
be used are told of in the log, and the old ones stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

from shared_models import revoked, tls_counts, wire
from shared_models.aside import Aside
from shared_models.background import beside
from shared_models.certificates import BadTLSFile, add_authority, add_certificate, doubts, leaf, versions
from shared_models.tls_settings import TLSSettings

log = logging.getLogger(__name__)

LOOK = 10.0
"""Seconds between two looks at the files: as long as a change of them may take to be seen."""
TELL_EVERY = 30.0
"""Seconds between two lines about handshakes that failed: anybody can make them fail."""
REMIND_EVERY = 86400.0
"""Seconds between two lines about a certificate that ends soon."""
PLAIN = "This port speaks HTTPS: use https://"
"""What is said to clients that speak plain HTTP."""


class Clients(Enum):
    """Whose certificates a port asks for."""

    NOBODY = ssl.CERT_NONE
    WHO_HAVE_ONE = ssl.CERT_OPTIONAL
    ALL = ssl.CERT_REQUIRED


class TLS:
    """Made by ``open_tls``. Its contexts stay good when the files change."""

    def __init__(self, settings: TLSSettings) -> None:
        self.settings = settings
        self._made: list[tuple[_Context, Callable[[], ssl.SSLContext]]] = []
        self._versions = versions(settings)
        self._reminded = 0.0
        self._next_end = math.inf
        """When the next one of the files ends, in unix seconds: that is told of at once."""

    def server(self, clients: Clients = Clients.NOBODY) -> ssl.SSLContext | None:
        """For a port; None when the node has no certificate, and speaks plain HTTP. Raises BadTLSFile."""
        if not self.settings.cert:
            return None
        return self._kept(ssl.PROTOCOL_TLS_SERVER, lambda: _server(self.settings, clients))

    def client(self) -> ssl.SSLContext:
        """For requests to the other tier, with the node's certificate if it has one. Raises BadTLSFile."""
        return self._kept(ssl.PROTOCOL_TLS_CLIENT, lambda: _client(self.settings))

    def _kept(self, protocol: int, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = _Context(protocol)
        context.in_force = make()
        self._made.append((context, make))
        self._remind()
        return context

    def look(self) -> None:
        """Takes the files again when they have changed: all of them, or none."""
        found = versions(self.settings)
        if found == self._versions:
            with contextlib.suppress(BadTLSFile):  # told of when it changed
                self._remind()
            return
        self._versions = found
        try:
            made = [make() for _, make in self._made]
        except BadTLSFile as exc:
            log.error("new files for TLS cannot be used, the old ones stay: %s", exc)
            tls_counts.changes.labels("refused").inc()
            return
        for (context, _), new in zip(self._made, made, strict=True):
            context.in_force = new
        log.info("new files for TLS are in use")
        tls_counts.changes.labels("taken").inc()
        self._reminded = 0.0
        self._remind()

    def _remind(self) -> None:
        now, of = time.monotonic(), self.settings
        if self._reminded and now - self._reminded < REMIND_EVERY and time.time() < self._next_end:
            return
        self._reminded, self._next_end = now, math.inf
        ends = list[float]()
        if of.cert:
            ends.append(leaf(of).not_valid_after_utc.timestamp())
            tls_counts.ends.labels("FN_NODE_CERT").set(ends[-1])
        if of.crl:
            ends.append(revoked.ends(of))
            tls_counts.crl_ends.labels("FN_NODE_CERT_CRL").set(ends[-1])
        self._next_end = min((end for end in ends if end > time.time()), default=math.inf)
        for doubt in (*(doubts(of) if of.cert else ()), *(revoked.doubts(of) if of.crl else ())):
            log.warning("%s", doubt)


@asynccontextmanager
async def open_tls(settings: TLSSettings, every: float = LOOK) -> AsyncIterator[TLS]:
    """TLS with the files of *settings*, which are looked at again *every* so many seconds."""
    tls = TLS(settings)
    if not (settings.cert or settings.authority):
        yield tls
        return
    async with beside(_look(tls, every), "files of TLS"):
        yield tls


async def _look(tls: TLS, every: float) -> None:
    aside, trouble = Aside("files of TLS"), ""
    while True:
        await asyncio.sleep(every)
        before, trouble = trouble, ""
        try:
            await aside.do(tls.look)
        except OSError as exc:
            trouble = exc.strerror or str(exc)
            if trouble != before:
                log.error("the files of TLS cannot be looked at, those that were read stay: %s", trouble)
        except Exception:
            log.exception("the files of TLS cannot be looked at")


def _server(settings: TLSSettings, clients: Clients) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _modern(context)
    context.sslobject_class = _Served
    add_certificate(context, settings)
    if clients is not Clients.NOBODY:
        add_authority(context, settings)
        revoked.add_lists(context, settings)
        context.verify_mode = clients.value
        # Who resumes a session shows no certificate again: one of an authority that is gone would do.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _client(settings: TLSSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _modern(context)
    if settings.authority:
        add_authority(context, settings)
        revoked.add_lists(context, settings)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if settings.cert:
        add_certificate(context, settings)
    return context


def _modern(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION


class _Context(ssl.SSLContext):
    """Makes each connection with the context that is in force then."""

    in_force: ssl.SSLContext

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **named: Any
    ) -> ssl.SSLObject:
        made = self.in_force.wrap_bio(incoming, outgoing, *arguments, **named)
        if isinstance(made, _Served):
            made.outgoing = outgoing
        return made


class _Served(ssl.SSLObject):
    """The server's side of a connection: tells a client why its handshake fails.

    Event loops hang up without sending the alert, and the client cannot know.
    """

    outgoing: ssl.MemoryBIO | None = None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError):
            raise
        except ssl.SSLError as exc:
            outgoing, self.outgoing = self.outgoing, None
            if outgoing is None:
                raise
            _failures.tell(exc)
            if exc.reason == "HTTP_REQUEST":
                outgoing.write(_plain_answer())
            if not outgoing.pending:
                raise
            # The loop sends what is pending and waits on, within the limit of handshakes; then the client
            # hangs up.
            raise ssl.SSLWantReadError from exc


class _Failures:
    """Handshakes that failed, told of now and then."""

    def __init__(self) -> None:
        self._count = 0
        self._told = -TELL_EVERY

    def tell(self, exc: ssl.SSLError) -> None:
        tls_counts.failed.inc()
        self._count += 1
        now = time.monotonic()
        if now - self._told < TELL_EVERY:
            return
        why = "a client speaks plain HTTP" if exc.reason == "HTTP_REQUEST" else _reason(exc)
        log.info(
            "TLS handshakes failed: %d since the last line like this, the last one: %s", self._count, why
        )
        self._told, self._count = now, 0


_failures = _Failures()


def _reason(exc: ssl.SSLError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the client's certificate: {exc.verify_message}"
    return (exc.reason or str(exc)).lower().replace("_", " ")


def _plain_answer() -> bytes:
    body = wire.encode({"message": PLAIN})
    head = (
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
