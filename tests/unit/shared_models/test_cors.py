import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from shared_models import cors
from shared_models.web import HTTPSettings, serving
from tests.wire.replayer import send


@asynccontextmanager
async def page_asks(*origins):
    """``await ask(method, origin)``: the answer of a node that lets pages of *origins* ask."""

    async def streamed(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"streamed")
        return response

    settings = HTTPSettings(port=0, host="127.0.0.1", drain=0.1, cors_origins=origins)
    async with serving([web.get("/s", streamed)], settings, node_type="api") as port:

        async def ask(method, origin):
            url = f"http://127.0.0.1:{port}"
            headers = [("Origin", origin.replace("SELF", url))]
            return await asyncio.to_thread(send, url, method, "/s", headers)

        yield ask


async def test_streamed_answers_may_be_read_too():
    async with page_asks("http://one.example") as ask:
        answer = await ask("GET", "http://one.example")
    assert answer.all("Access-Control-Allow-Origin") == ["http://one.example"]
    assert answer.body == b"streamed"


async def test_a_star_lets_every_page_ask_and_varies_by_nothing():
    async with page_asks("*") as ask:
        for method in ("GET", "OPTIONS"):
            answer = await ask(method, "http://any.example")
            assert answer.status == 200
            assert answer.all("Access-Control-Allow-Origin") == ["*"]
            assert answer.all("Vary") == []
        assert answer.all("Access-Control-Allow-Headers") == ["Origin,Content-Length,Content-Type"]


async def test_pages_of_the_node_itself_need_no_leave():
    async with page_asks("http://one.example") as ask:
        own, foreign = await ask("GET", "SELF"), await ask("GET", "http://two.example")
    assert (own.status, own.all("Access-Control-Allow-Origin")) == (200, [])
    assert (foreign.status, foreign.body) == (403, b"")


async def test_without_the_setting_origins_mean_nothing():
    async with page_asks() as ask:
        answer = await ask("GET", "http://one.example")
    assert (answer.status, answer.all("Access-Control-Allow-Origin")) == (200, [])


def test_origins_are_addresses_without_a_path():
    assert cors.origins("http://one.example, https://two.example:8443") == (
        "http://one.example",
        "https://two.example:8443",
    )
    assert cors.origins("*") == ("*",)


@pytest.mark.parametrize(
    "text", ["one.example", "http://a/b", "http://a/", "ftp://a", "*, http://a", "http://[", "http://u@a"]
)
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        cors.origins(text)
