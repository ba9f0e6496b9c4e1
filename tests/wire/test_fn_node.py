"""The stand-in of an API node finds what a runner does otherwise than recorded."""

import asyncio
import json

import pytest

from tests.wire.fn_node import FnNode, serving_exchanges
from tests.wire.matching import Bindings
from tests.wire.replayer import send

APP = {
    "request": {"method": "GET", "path": "/v1/apps/a"},
    "response": {"status": 200, "json": {"id": "{{id}}"}},
}
AWAY = {"fail": True, "request": APP["request"], "response": {"status": 503, "json": {}}}
PUT = {
    "request": {"method": "PUT", "path": "/v1/runner/async", "json": {"id": "{{call}}"}},
    "response": {"status": 200, "json": {"msg": "enqueued call"}},
}
GET = {
    "request": {"method": "GET", "path": "/v1/runner/async"},
    "response": {"status": 200, "json": {"calls": [{"id": "{{call}}"}]}},
}


@pytest.fixture
async def played():
    """``await played(exchanges, *steps)``: the node, and what sends it a request."""
    stack = []

    async def play(exchanges, *steps):
        bindings = Bindings({"id": "id", "call": "id"})
        node = FnNode({"exchanges": exchanges, "steps": steps}, bindings)
        opened = serving_exchanges(node)
        base_url = await opened.__aenter__()
        stack.append(opened)

        async def ask(method, path, body=None):
            data = json.dumps(body).encode() if body is not None else None
            answer = await asyncio.to_thread(send, base_url, method, path, [], data)
            return answer.status, json.loads(answer.body)

        return node, ask

    yield play
    for opened in stack:
        await opened.__aexit__(None, None, None)


async def test_what_was_recorded_is_no_difference(played):
    step = {"upstream": ["x1"]}
    node, ask = await played([{**APP, "id": "x1"}], step)
    first, second = await ask("GET", "/v1/apps/a"), await ask("GET", "/v1/apps/a")
    assert first == second
    assert len(first[1]["id"]) == 26
    assert await node.differences(step) == []


async def test_what_was_never_asked_for_is_missed(played):
    step = {"upstream": ["x1"]}
    node, _ = await played([{**APP, "id": "x1"}], step)
    assert await node.differences(step, within=0.01) == ["the runner never asked for x1"]


async def test_paths_that_fn_does_not_serve_are_no_trouble(played):
    step = {"upstream": []}
    node, ask = await played([], step)
    assert (await ask("POST", "/v1/runner/heartbeat", {}))[0] == 404
    assert await node.differences(step) == []
    await ask("GET", "/v1/apps/other")
    assert await node.differences(step) == ["not recorded: GET /v1/apps/other "]


async def test_another_body_than_recorded_is_trouble(played):
    step = {"upstream": ["x1"]}
    node, ask = await played([{**PUT, "id": "x1"}], step)
    assert (await ask("PUT", "/v1/runner/async", {"id": "0" * 26, "more": 1}))[0] == 200
    assert await node.differences(step) == ["PUT /v1/runner/async: .more: not expected, got 1"]


async def test_failures_come_first_and_are_counted(played):
    step = {"upstream": ["x1", "x2"], "counts": {"x1": 2}}
    exchanges = [{**APP, "id": "x2"}, {**AWAY, "id": "x1"}]
    node, ask = await played(exchanges, step)
    assert [(await ask("GET", "/v1/apps/a"))[0] for _ in range(3)] == [503, 503, 200]
    assert await node.differences(step) == []
    node, ask = await played(exchanges, step)
    await ask("GET", "/v1/apps/a")
    assert "x1 was asked for 1 times, expected 2" in await node.differences(step, within=0.01)


async def test_a_call_is_handed_out_once_it_was_queued(played):
    node, ask = await played([{**PUT, "id": "x1"}, {**GET, "id": "x2", "after": "x1"}])
    polling = asyncio.create_task(ask("GET", "/v1/runner/async"))
    await ask("PUT", "/v1/runner/async", {"id": "0" * 26})
    assert await polling == (200, {"calls": [{"id": "0" * 26}]})
    assert await node.differences({"upstream": ["x1", "x2"]}) == []
