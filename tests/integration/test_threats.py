"""What an attacker tries at the ports of both tiers: requests read in two ways, and odd spellings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.integration.guarded import PRIVATE, Scene, guarded
from tests.integration.test_api_access import RUNNER
from tests.integration.test_api_access import scene as api_scene

LIMIT = 60


async def said(base: str, request: bytes) -> bytes:
    """All that a node answers to these bytes until it closes the connection."""
    address = urlsplit(base)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), LIMIT)
    finally:
        writer.close()


def post(path: str, *lines: str, body: str = "") -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: x", *lines, "", body)).encode("latin-1")


def plain(path: str, *lines: str) -> bytes:
    return post(path, "Content-Length: 0", *lines)


LAST = "Connection: close"


@pytest.mark.parametrize("pair", [("admin", "eve"), ("eve", "admin"), ("admin", "admin")])
async def test_of_two_authorization_headers_neither_counts_on_an_api_node(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    async with api_scene(tmp_path) as there:
        headers = [("Authorization", f"Bearer {one}") for one in pair]
        async with there.api.client.get("/v2/apps", headers=headers) as answer:
            assert answer.status == 401


@pytest.mark.parametrize("pair", [(RUNNER, "eve"), ("eve", RUNNER)])
async def test_of_two_authorization_headers_neither_is_a_runners(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    async with api_scene(tmp_path) as there:
        headers = [("Authorization", f"Bearer {one}") for one in pair]
        path = f"/v1/runner/apps/{there.ids['shop']['app_id']}"
        async with there.api.client.get(path, headers=headers) as answer:
            assert answer.status == 401


Body = dict[str, Any]


def moves(mine: dict[str, str], foreign: dict[str, str]) -> list[tuple[str, str, Body]]:
    """Changes of one's own things that name things of another app."""
    app, fn, trigger = (f"/v2/{kind}/{mine[key]}" for kind, key in (
        ("apps", "app_id"), ("fns", "fn_id"), ("triggers", "trigger_id"),
    ))  # fmt: skip
    routes = "/v1/apps/shop/routes"
    route = {"app_id": foreign["app_id"], "image": "evil"}
    return [
        ("PUT", app, {"name": "bank"}),
        ("PUT", app, {"id": foreign["app_id"], "config": {"A": "evil"}}),
        ("PUT", fn, {"app_id": foreign["app_id"], "image": "evil"}),
        ("PUT", fn, {"id": foreign["fn_id"], "image": "evil"}),
        ("POST", "/v2/fns", {"name": "g", "app_id": mine["app_id"], "id": foreign["fn_id"], "image": "evil"}),
        ("PUT", trigger, {"app_id": foreign["app_id"], "source": "/evil"}),
        ("PUT", trigger, {"fn_id": foreign["fn_id"], "source": "/evil"}),
        ("PATCH", "/v1/apps/shop", {"app": {"name": "bank", "config": {"A": "evil"}}}),
        ("PATCH", "/v1/apps/shop", {"app": {"id": foreign["app_id"], "config": {"A": "evil"}}}),
        ("POST", "/v1/apps", {"app": {"name": "new", "id": foreign["app_id"], "config": {"A": "evil"}}}),
        ("POST", routes, {"route": {**route, "path": "/evil"}}),
        ("PUT", f"{routes}/hello", {"route": route}),
        ("PATCH", f"{routes}/hello", {"route": route}),
        ("DELETE", f"{fn}/calls/{foreign['call_id']}", {}),
    ]


async def test_no_change_of_ones_own_app_touches_another_one_that_it_names(tmp_path: Path) -> None:
    async with api_scene(tmp_path) as there:
        mine, foreign = there.ids["shop"], there.ids["bank"]
        seen = [
            "/v1/apps/bank", "/v1/apps/bank/routes", f"/v2/apps/{foreign['app_id']}",
            f"/v2/fns?app_id={foreign['app_id']}", f"/v2/triggers?app_id={foreign['app_id']}",
            f"/v2/fns/{foreign['fn_id']}/calls",
        ]  # fmt: skip
        before = [(await there.ask("admin", "GET", path)).body for path in seen]
        for method, path, body in moves(mine, foreign):
            answer = await there.ask("developer-shop", method, path, json=body)
            assert answer.status < 500, (method, path, body)
            assert foreign["app_id"] not in str(answer.body), (method, path, body)
            assert [(await there.ask("admin", "GET", path)).body for path in seen] == before, (method, path)


def hidden_requests(path: str) -> dict[str, bytes]:
    """Requests with a second one in their body, whose length two servers may read in two ways."""
    inner = plain(path, "X: inner", LAST).decode()
    chunked = f"0\r\n\r\n{inner}"
    length = f"Content-Length: {len(chunked)}"
    return {
        "length and chunks": post(path, length, "Transfer-Encoding: chunked", body=chunked),
        "chunks and length": post(path, "Transfer-Encoding: chunked", length, body=chunked),
        "two lengths": post(path, "Content-Length: 0", f"Content-Length: {len(inner)}", body=inner),
        "unknown coding": post(path, length, "Transfer-Encoding: xchunked", body=chunked),
        "chunked is not last": post(path, length, "Transfer-Encoding: chunked, identity", body=chunked),
        "space before colon": post(path, "Transfer-Encoding : chunked", length, body=chunked),
        "folded": post(path, length, "Transfer-Encoding:\r\n chunked", body=chunked),
        "signed length": post(path, f"Content-Length: +{len(inner)}", body=inner),
        "hexadecimal length": post(path, f"Content-Length: 0x{len(inner):x}", body=inner),
    }


@pytest.mark.parametrize("kind", sorted(hidden_requests("/")))
async def test_a_request_whose_length_can_be_read_in_two_ways_is_refused(tmp_path: Path, kind: str) -> None:
    async with guarded(tmp_path) as there:
        await there.known()
        there.seen.clear()
        for base in (there.fast, there.ordinary):
            answer = await said(base, hidden_requests(f"/invoke/{there.fn.id}")[kind])
            assert answer.split()[1] == b"400", answer
            assert answer.count(b"HTTP/1.") == 1, "what is behind it is no request"
        assert there.seen == []


async def test_a_token_is_good_for_its_own_request_and_not_for_those_behind_it(tmp_path: Path) -> None:
    async with guarded(tmp_path, of_fn=PRIVATE) as there:
        await there.known()
        there.seen.clear()
        path = f"/invoke/{there.fn.id}"
        both = plain(path, "Authorization: Bearer caller") + plain(path, LAST)
        for number, base in enumerate((there.fast, there.ordinary), 1):
            answer = await said(base, both)
            assert [one[:3] for one in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"401"]
            assert len(there.seen) == number


def spellings(there: Scene) -> list[bytes]:
    """Ways to write the address of a function, for those who have no token."""
    fn_id = there.fn.id
    escaped = "".join(f"%{ord(char):02x}" for char in fn_id)
    paths = [
        f"/invoke/{fn_id}/", f"//invoke/{fn_id}", f"/invoke//{fn_id}", f"/./invoke/{fn_id}",
        f"/INVOKE/{fn_id}", f"/x/../invoke/{fn_id}", f"/invoke/{escaped}", f"/invoke%2f{fn_id}",
        f"/invoke/{fn_id}?a=b", f"/invoke/{fn_id};a", f"/invoke/{fn_id.lower()}", f"/invoke/{fn_id}%00", f"http://x/invoke/{fn_id}",
        "/t/shop/t", "/t/shop//t", "/t/shop/t/", "/t/shop/%74", "/t/%73hop/t", "/t/shop/./t", "/t/SHOP/t",
        "/r/shop/sync", "/r/shop//sync", "/r/shop/sync/", "/r/%73hop/sync", "/r/shop/x/../sync",
        "/r/shop/async",
    ]  # fmt: skip
    called = [f"/invoke/{fn_id}", "/t/shop/t", "/r/shop/sync"]
    methods = ["GET", "HEAD", "OPTIONS", "PUT", "invoke"]
    lines = ["Fn-Invoke-Type: detached", "X-HTTP-Method-Override: GET", "X-Original-URL: /healthz"]
    return [
        *(plain(path, LAST) for path in paths),
        *(plain(path, LAST).replace(b"POST", one.encode(), 1) for one in methods for path in called),
        *(plain(called[0], line, LAST) for line in lines),
    ]


async def test_no_spelling_of_a_private_function_leads_past_its_check(tmp_path: Path) -> None:
    async with guarded(tmp_path, of_app=PRIVATE) as there:
        await there.known()
        there.seen.clear()
        there.queued.clear()
        for request in spellings(there):
            for base in (there.fast, there.ordinary):
                answer = await said(base, request)
                first = request.partition(b"\r\n")[0]
                assert answer[9:10] in (b"3", b"4"), (first, answer)
        assert there.seen == []
        assert there.queued == []
