"""fn-node copy and servers that mean ill, or break off: where its token goes, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from deploy.copy import Order, run
from deploy.copying import Away, Refused, Server, differences
from shared_models.http_settings import HTTPSettings
from shared_models.secrets import HIDDEN
from shared_models.web import serving
from tests.servers.ports import free_port

LIMIT = 30.0


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    bound = HTTPSettings(port=0, host="127.0.0.1", drain=1.0)
    async with serving([web.route("*", "/{path:.*}", handler)], bound, node_type="api") as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_token_goes_to_its_server_and_not_where_that_one_points_to() -> None:
    seen: list[str] = []

    async def thief(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization", "none"))
        return web.json_response({"items": []})

    async with answering(thief) as elsewhere:

        async def points(request: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": elsewhere + "/v2/apps"})

        async with answering(points) as url:
            with pytest.raises(Refused, match="302"):
                await asyncio.to_thread(Server(url, "mine").ask, "GET", "/v2/apps")
    assert seen == []


async def test_a_token_goes_through_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def there(request: web.Request) -> web.Response:
        return web.json_response({"items": [request.headers["Authorization"]]})

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with answering(there) as url:
        found = await asyncio.to_thread(Server(url, "mine").ask, "GET", "/v2/apps")
    assert found == {"items": ["Bearer mine"]}


async def test_a_listing_whose_cursors_go_round_ends() -> None:
    async def round_and_round(request: web.Request) -> web.Response:
        following = {"": "a", "a": "b", "b": "a"}[request.query.get("cursor", "")]
        return web.json_response({"items": [{"name": following}], "next_cursor": following})

    async with answering(round_and_round) as url, asyncio.timeout(LIMIT):
        found = await asyncio.to_thread(lambda: list(Server(url).listed("/v2/apps", "items")))
    assert [one["name"] for one in found] == ["a", "b", "a"]


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_a_server_that_refuses_is_not_taken_for_one_without_this_api(status: int) -> None:
    async def refuses(request: web.Request) -> web.Response:
        return web.json_response({"message": "no"}, status=status)

    async with answering(refuses) as url:
        with pytest.raises(Refused, match=f"{status} no"):
            await asyncio.to_thread(Server(url).listed_if_there, "/v2/apps", "items")


async def test_a_refusal_that_breaks_off_is_told_without_a_trace() -> None:
    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\nhalf")
        writer.close()

    server = await asyncio.start_server(breaks_off, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(Away, match="does not answer"):
            await asyncio.to_thread(Server(url).ask, "GET", "/v2/apps")


@pytest.mark.parametrize("strange", [{"config": "x"}, {"config": ["x"]}, {"annotations": "x"}])
async def test_a_source_with_strange_resources_is_told_without_a_trace(strange: dict[str, object]) -> None:
    async def lists(request: web.Request) -> web.Response:
        items = [{"id": "i", "name": "shop", **strange}] if request.path == "/v2/apps" else []
        return web.json_response({"items": items, "apps": []})

    async def empty(request: web.Request) -> web.Response:
        return web.json_response({"items": [], "apps": []})

    async with answering(lists) as source, answering(empty) as target:
        lines: list[str] = []
        code = await asyncio.to_thread(run, Order(source=source, target=target), lines.append)
    assert code == 1
    assert "that is no object: is it of a server of Fn?" in lines[0], lines


def test_a_value_that_the_new_server_hides_is_no_difference_and_that_of_a_header_is() -> None:
    assert differences({"config": {"A": "1"}}, {"config": {"A": HIDDEN}}) == []
    assert differences({"headers": {"A": "1"}}, {"headers": {"A": HIDDEN}}) == ["headers A"]
