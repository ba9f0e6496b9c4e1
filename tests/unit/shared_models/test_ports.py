"""Several ports of one node: what is served on which, and how they stop together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from shared_models.http_settings import HTTPSettings
from shared_models.web import Apart, PortUnavailable, json_response, serving
from tests.servers.ports import free_port

LIMIT = 30.0


async def hello(request: web.Request) -> web.StreamResponse:
    return json_response({"hello": request.path})


class Ports:
    def __init__(self, public: int, runners: int, admin: int, http: aiohttp.ClientSession) -> None:
        self.public = f"http://127.0.0.1:{public}"
        self.runners = f"http://127.0.0.1:{runners}"
        self.admin = f"http://127.0.0.1:{admin}"
        self.http = http

    async def status(self, url: str) -> int:
        async with self.http.get(url) as answer:
            await answer.read()
            return answer.status


@asynccontextmanager
async def node(
    ready: Callable[[], str] = lambda: "", slow: web.RouteDef | None = None
) -> AsyncIterator[Ports]:
    runners, admin = free_port(), free_port()
    settings = HTTPSettings(port=0, host="127.0.0.1", admin_port=admin, drain=LIMIT)
    routes = [web.get("/v2/apps", hello), *([slow] if slow else [])]
    apart = Apart([web.get("/v1/runner/wanted", hello)], runners)
    pages = {"colours": lambda: ["red"]}
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(LIMIT)) as http,
        serving(routes, settings, node_type="api", ready=ready, apart=apart, pages=pages) as public,
    ):
        yield Ports(public, runners, admin, http)


async def test_metrics_and_debug_pages_are_on_the_admin_port_alone() -> None:
    async with node() as ports:
        for path in ("/metrics", "/debug", "/debug/tasks"):
            assert await ports.status(ports.admin + path) == 200
            assert await ports.status(ports.public + path) == 404
            assert await ports.status(ports.runners + path) == 404
        assert await ports.status(ports.admin + "/v2/apps") == 404
        assert await ports.status(ports.admin + "/v1/runner/wanted") == 404


async def test_without_an_admin_port_metrics_are_on_the_public_one_and_debug_pages_nowhere() -> None:
    settings = HTTPSettings(port=0, host="127.0.0.1")
    async with serving([], settings, node_type="api") as port, aiohttp.ClientSession() as http:
        for path, status in {"/metrics": 200, "/debug": 404, "/debug/tasks": 404}.items():
            async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.status == status


async def test_every_port_says_whether_the_node_is_well() -> None:
    reason = ""
    async with node(ready=lambda: reason) as ports:
        for url in (ports.public, ports.runners, ports.admin):
            assert await ports.status(f"{url}/healthz") == 200
            assert await ports.status(f"{url}/readyz") == 200
        reason = "the engine is away"
        for url in (ports.public, ports.runners, ports.admin):
            assert await ports.status(f"{url}/healthz") == 200
            assert await ports.status(f"{url}/readyz") == 503


async def test_what_runners_ask_is_on_their_port_alone_and_the_other_one_says_so() -> None:
    async with node() as ports:
        assert await ports.status(f"{ports.runners}/v1/runner/wanted") == 200
        assert await ports.status(f"{ports.runners}/v2/apps") == 404
        async with ports.http.get(f"{ports.public}/v1/runner/wanted") as answer:
            # 404 would be taken for an Fn server's, which knows no leases.
            assert answer.status == 421
            assert "FN_RUNNER_API_PORT" in (await answer.json())["error"]["message"]


async def test_the_admin_port_answers_until_the_last_request_has_been_answered() -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        begun.set()
        await goes_on.wait()
        return json_response({})

    serve = node(slow=web.get("/slow", slow))
    ports = await serve.__aenter__()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(LIMIT)) as http:
        asked = asyncio.create_task(_status(http, f"{ports.public}/slow"))
        await begun.wait()
        leaving = asyncio.create_task(serve.__aexit__(None, None, None))
        try:
            async with asyncio.timeout(LIMIT):
                while await _refuses(http, f"{ports.public}/healthz") is False:
                    await asyncio.sleep(0.01)
            assert await _status(http, f"{ports.admin}/healthz") == 200
            assert await _status(http, f"{ports.admin}/readyz") == 503
            assert await _refuses(http, f"{ports.runners}/healthz")
        finally:
            goes_on.set()
            assert await asked == 200
            await leaving
        assert await _refuses(http, f"{ports.admin}/healthz")


async def _status(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url, headers={"Connection": "close"}) as answer:
        await answer.read()
        return answer.status


async def _refuses(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        await _status(http, url)
    except aiohttp.ClientConnectionError:
        return True
    return False


@pytest.mark.parametrize("variable", ["FN_ADMIN_PORT", "FN_RUNNER_API_PORT", "FN_PORT"])
async def test_a_port_that_is_taken_is_told_by_its_variable_and_the_others_are_closed(variable: str) -> None:
    ports = {"FN_PORT": free_port(), "FN_ADMIN_PORT": free_port(), "FN_RUNNER_API_PORT": free_port()}
    settings = HTTPSettings(
        port=ports["FN_PORT"], host="127.0.0.1", admin_port=ports["FN_ADMIN_PORT"], drain=1.0
    )

    taken = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", ports[variable])
    async with taken:
        with pytest.raises(PortUnavailable) as caught:
            async with serving([], settings, node_type="api", apart=Apart([], ports["FN_RUNNER_API_PORT"])):
                pass
        assert (caught.value.variable, caught.value.port) == (variable, ports[variable])
    async with serving([], settings, node_type="api", apart=Apart([], ports["FN_RUNNER_API_PORT"])) as port:
        assert port == ports["FN_PORT"]
