"""What a node takes of an issuer that has been taken over, or of somebody on the way to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from services.identity.fetching import LARGEST, Fetcher, open_fetcher
from services.identity.settings import IdentitySettings
from shared_models.errors import IssuerUnavailable
from tests.servers.authority import Authority, authority

LIMIT = 30.0


@asynccontextmanager
async def answering(tls: ssl.SSLContext | None = None, **handlers: Handler) -> AsyncIterator[str]:
    """A server whose paths are those names; its URL."""
    app = web.Application()
    for name, handler in handlers.items():
        app.router.add_get(f"/{name}", handler)
        app.router.add_get(f"/{name}/.well-known/openid-configuration", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def trouble(url: str, patience: float = LIMIT) -> str:
    """Why the keys at *url* are not taken."""
    settings = IdentitySettings(issuer="http://issuer.example", jwks_url=url, patience=patience)
    async with asyncio.timeout(LIMIT), open_fetcher(settings) as fetcher:
        with pytest.raises(IssuerUnavailable) as caught:
            await fetcher.keys()
    return caught.value.detail


async def test_an_issuer_cannot_send_a_node_elsewhere() -> None:
    asked = 0

    async def keys(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"keys": []})

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound("/keys")

    async with answering(keys=keys, away=away) as url:
        assert "status 302" in await trouble(f"{url}/away")
        assert asked == 0


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"[" * 65536)

    async with answering(endless=endless) as url:
        assert f"more than {LARGEST} bytes" in await trouble(f"{url}/endless")


async def test_an_issuer_that_keeps_silent_is_not_waited_for() -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(LIMIT * 2)
        return web.Response()

    async with answering(silent=silent) as url:
        assert "no answer within 0.2 s" in await trouble(f"{url}/silent", patience=0.2)


async def test_keys_that_are_no_objects_are_left_out() -> None:
    async def keys(request: web.Request) -> web.Response:
        return web.json_response({"keys": [None, 1, "x", [], {"kid": "a"}]})

    async with (
        answering(keys=keys) as url,
        open_fetcher(IdentitySettings(issuer="http://x", jwks_url=f"{url}/keys")) as fetcher,
    ):
        assert await fetcher.keys() == [{"kid": "a"}]


def _speaking(ca: Authority) -> ssl.SSLContext:
    files = ca.certify("issuer")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)
    return context


async def test_an_issuer_behind_https_cannot_have_its_keys_behind_http() -> None:
    async def realm(request: web.Request) -> web.Response:
        issuer = str(request.url.origin()) + "/realm"
        return web.json_response({"issuer": issuer, "jwks_uri": "http://127.0.0.1:1/keys"})

    with authority() as ca:
        async with (
            answering(_speaking(ca), realm=realm) as url,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=ca.client())) as session,
        ):
            fetcher = Fetcher(session, IdentitySettings(issuer=f"{url}/realm"))
            with pytest.raises(IssuerUnavailable) as caught:
                await fetcher.keys()
    assert "its jwks_uri is not https" in caught.value.detail
