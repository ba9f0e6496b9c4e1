"""The engine's HTTP API on the event loop: what each start asks of it, without a thread or a library.

A request of the docker SDK takes some 2 ms of CPU time, one of these a tenth of that. What is asked
rarely is left to the SDK (``engine``).
"""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httptools
import requests
from docker.errors import APIError, create_api_error_from_http_exception

from runner_node.drivers.engine_tls import EngineTLS

PORT = 2375
TLS_PORT = 2376
"""Of an engine over TCP whose address names none, without and with TLS."""


class EngineHTTP:
    """The engine at *host*, as in ``DOCKER_HOST``: one connection for each request, no time limits."""

    def __init__(self, host: str, tls: EngineTLS | None = None) -> None:
        self._host = host
        self._tls = tls

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of the answer, None when it has none; raises the SDK's APIError, and OSError."""
        return await self._asked(_Exchange(), _request(method, path, body, "close"))

    async def first(self, path: str) -> Any:
        """The JSON in the first line of an answer that may go on for ever; None when it ends without one."""
        return await self._asked(_Exchange(one_line=True), _request("GET", path, None, "close"))

    async def _asked(self, exchange: _Exchange, request: bytes) -> Any:
        transport = await self._connected(exchange)
        try:
            transport.write(request)
            await exchange.done
        finally:
            transport.abort()
        return exchange.value()

    async def attach(self, path: str, protocol: asyncio.Protocol) -> None:
        """*protocol* gets the connection as soon as the engine has agreed; raises APIError, OSError."""
        exchange = _Exchange(protocol)
        transport = await self._connected(exchange)
        try:
            transport.write(_request("POST", path, None, "Upgrade\r\nUpgrade: tcp"))
            await exchange.done
            exchange.value()
        except BaseException:
            transport.abort()
            raise

    async def _connected(self, exchange: _Exchange) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        if self._host.startswith("unix://"):
            transport, _ = await loop.create_unix_connection(
                lambda: exchange, self._host.removeprefix("unix://")
            )
        else:
            name, port = place(self._host, tls=bool(self._tls))
            context = await self._tls.context() if self._tls else None
            transport, _ = await loop.create_connection(lambda: exchange, name, port, ssl=context)
        return transport


def place(host: str, *, tls: bool) -> tuple[str, int]:
    """Name and port of an engine over TCP."""
    address = urlsplit(host)
    return address.hostname or "localhost", address.port or (TLS_PORT if tls else PORT)


def _request(method: str, path: str, body: dict[str, Any] | None, connection: str) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: {connection}\r\n"
    if method == "POST":
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


class _Exchange(asyncio.Protocol):
    """One request's answer, or *one_line* of it.

    With *heir*, who takes the connection over when it is not refused.
    """

    def __init__(self, heir: asyncio.Protocol | None = None, *, one_line: bool = False) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heir = heir
        self._one_line = one_line
        self._parser = httptools.HttpResponseParser(self)
        self._content = bytearray()
        self._status = 0
        self._head = b""
        self._transport: asyncio.BaseTransport | None = None

    def value(self) -> Any:
        """What ``ask`` returns or raises."""
        if self._status < HTTPStatus.BAD_REQUEST:
            try:
                return json.loads(self._content) if self._content else None
            except ValueError as exc:
                raise OSError(f"the engine's answer is no JSON: {exc}") from exc
        response = requests.Response()
        response.status_code, response.raw = self._status, io.BytesIO(self._content)
        try:
            response.raise_for_status()
        except requests.HTTPError as exc:
            with suppress(LookupError, TypeError):  # the words of a proxy, where the SDK expects an engine's
                create_api_error_from_http_exception(exc)
            raise APIError(str(exc), response, self._content.decode("utf-8", "replace")) from exc
        raise AssertionError(self._status)

    # -- what asyncio and the parser call -------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._heir:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            data = self._head
            if head[9:12] in (b"101", b"200"):
                self._hand_over(self._heir, rest)
                return
            self._heir = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._end(OSError(f"the engine's answer is no HTTP: {exc}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or OSError("the engine closed the connection"))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        if self.done.done():  # the second line may be here already
            return
        self._content += data
        if self._one_line and b"\n" in self._content:
            del self._content[self._content.index(b"\n") :]
            self._end(None)

    def on_message_complete(self) -> None:
        self._end(None)

    def _hand_over(self, heir: asyncio.Protocol, rest: bytes) -> None:
        transport: Any = self._transport
        transport.set_protocol(heir)
        heir.connection_made(transport)
        self._status = HTTPStatus.SWITCHING_PROTOCOLS
        self._end(None)
        if rest:
            heir.data_received(rest)

    def _end(self, trouble: Exception | None) -> None:
        if self.done.done():
            return
        if trouble is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(trouble)
