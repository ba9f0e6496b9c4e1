"""Servers that receive callbacks, each in its own way, and nodes that deliver to them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from services.callbacks.body import callback_of
from services.callbacks.settings import CallbackSettings
from services.stores import Stores, StoreSettings, open_stores
from shared_models.call import Call, Finished, Status
from shared_models.call_interfaces import Callback
from shared_models.ids import new_id
from shared_models.telemetry import REGISTRY
from tests.servers.certificates import Certificate

Answering = Callable[[web.Request, int], Awaitable[web.StreamResponse]]
"""Answers a request, whose number (0, 1, ...) it is told."""


@dataclass
class Arrived:
    """A request as a receiver saw it."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """*requests* as they arrived; *port* on 127.0.0.1."""

    port: int = 0
    scheme: str = "http"
    requests: list[Arrived] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def url(self, path: str = "/done", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def has(self, count: int) -> list[Arrived]:
        """Once there are *count* requests."""
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: len(self.requests) >= count)
        return self.requests


def says(*statuses: int, **headers: str) -> Answering:
    """These, one after the other, and the last one for ever."""

    async def answer(request: web.Request, number: int) -> web.StreamResponse:
        status = statuses[min(number, len(statuses) - 1)]
        return web.Response(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


@asynccontextmanager
async def receiving(
    answer: Answering | None = None, certificate: Certificate | None = None
) -> AsyncIterator[Receiver]:
    """A receiver that runs in the block, with TLS where it has a *certificate*."""
    receiver = Receiver(scheme="https" if certificate else "http")
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.cert, certificate.key)
    answer = answer or says(200)

    async def handle(request: web.Request) -> web.StreamResponse:
        arrived = Arrived(request.path_qs, dict(request.headers), await request.read())
        async with receiver.changed:
            number = len(receiver.requests)
            receiver.requests.append(arrived)
            receiver.changed.notify_all()
        return await answer(request, number)

    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        await runner.cleanup()


def quick(**given: Any) -> CallbackSettings:
    """Settings of a node that tries again at once, and may send to this machine."""
    fast = {"allow": ("127.0.0.0/8",), "first_pause": 0.01, "poll": 0.01, "timeout": 20.0, "parting": 0.1}
    return CallbackSettings(**{**fast, **given})


def leading(addresses: dict[str, Sequence[str]]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A look-up of names by *addresses* alone."""

    async def look_up(host: str, port: int) -> Sequence[str]:
        try:
            return addresses[host]
        except KeyError:
            raise OSError("no such name") from None

    return look_up


@asynccontextmanager
async def stores_in(folder: Path, url: str = "") -> AsyncIterator[Stores]:
    """The stores of one node, in *folder* or at *url*; those of a second node there are the same."""
    settings = StoreSettings(datastore_url=url or f"sqlite:///{folder}/fn.db", queue_url="memory://")
    async with open_stores(settings) as stores:
        yield stores


def a_callback(url: str, **fields: Any) -> Callback:
    """Of a call that has succeeded, whose record nobody has kept."""
    body = fields.pop("body", b"hello")
    given = {"id": new_id(), "app_id": "app", "fn_id": "fn", "status": Status.SUCCESS, "attempt": 1}
    call = Call(**{**given, "callback_url": url, **fields})
    return callback_of(Finished(call=call, body=body, content_type="text/plain"))


async def emptied(stores: Stores) -> None:
    """Once nothing is left to be delivered."""
    async with asyncio.timeout(60):
        while await stores.outbox.count():
            await asyncio.sleep(0.01)


class Counted:
    """How much each counter of callbacks has grown since."""

    def __init__(self) -> None:
        self._before = {name: self._now(name) for name in ("delivered", "failed_attempts", "given_up")}

    def grown(self) -> dict[str, int]:
        return {name: int(self._now(name) - before) for name, before in self._before.items()}

    @staticmethod
    def _now(name: str) -> float:
        return REGISTRY.get_sample_value(f"fn_callbacks_{name}_total") or 0.0
