"""The scheme of addresses in replies: that of the request, or what a proxy that is believed says of it."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from api_node.endpoints import Endpoints, networks
from shared_models.fn import Fn
from shared_models.http_settings import HTTPSettings
from shared_models.tls import open_tls
from shared_models.tls_settings import TLSSettings
from shared_models.web import json_response, serving
from tests.servers.authority import authority


async def said(endpoints: Endpoints, files: TLSSettings | None = None, **headers: str) -> str:
    async def where(request: web.Request) -> web.StreamResponse:
        return json_response({"fn": endpoints.fn(request, Fn(id="ID"))})

    http = HTTPSettings(port=0, host="127.0.0.1")
    scheme = "https" if files else "http"
    async with (
        open_tls(files or TLSSettings()) as tls,
        serving([web.get("/where", where)], http, node_type="api", tls=tls) as port,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls.client())) as client,
        client.get(f"{scheme}://127.0.0.1:{port}/where", headers={"Host": "fn.example", **headers}) as answer,
    ):
        return str((await answer.json())["fn"])


async def test_addresses_have_the_scheme_of_the_request() -> None:
    assert await said(Endpoints("")) == "http://fn.example/invoke/ID"
    with authority() as ca:
        assert await said(Endpoints(""), ca.certify("api").settings()) == "https://fn.example/invoke/ID"


async def test_only_a_proxy_that_is_known_is_believed() -> None:
    forwarded = {"X-Forwarded-Proto": "https"}
    for proxies, scheme in (("", "http"), ("10.0.0.0/8", "http"), ("10.0.0.0/8, 127.0.0.0/8", "https")):
        assert await said(Endpoints("", networks(proxies)), **forwarded) == f"{scheme}://fn.example/invoke/ID"
    odd = {"X-Forwarded-Proto": "javascript"}
    assert await said(Endpoints("", networks("127.0.0.1")), **odd) == "http://fn.example/invoke/ID"


async def test_a_public_address_wins_over_all_of_it() -> None:
    endpoints = Endpoints("https://run.example/", networks("127.0.0.1"))
    assert await said(endpoints, **{"X-Forwarded-Proto": "http"}) == "https://run.example/invoke/ID"


@pytest.mark.parametrize("text", ["10.0.0.0/33", "proxy", "10.0.0.1/8"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be networks like"):
        networks(text)
