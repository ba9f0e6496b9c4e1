"""What is made of an engine that tells late, or not at all, that memory ran out; it is a scripted server."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from runner_node.drivers import out_of_memory
from runner_node.drivers.engine import open_engine
from tests.unit.runner_node.drivers.test_engine_http import answer, answering

FOUND = {"Id": "abc", "Name": "/x", "State": {"StartedAt": "2026-01-02T03:04:05.999999999Z"}}
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'10\r\n{"status":"oom"}\r\n1\r\n\n\r\n'
LONG = 30.0


async def test_an_event_that_comes_while_it_is_waited_for_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_memory, "LATE", LONG)
    async with answering(HEAD, EVENT, stays=True) as (host, asked):
        with open_engine(host, timeout=5) as engine:
            assert await out_of_memory.event_of(engine, FOUND)
    query = parse_qs(urlsplit(asked.split()[1].decode()).query)
    assert query["since"] == ["1767323045"]
    assert json.loads(query["filters"][0]) == {"container": ["abc"], "event": ["oom"]}


async def test_an_event_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_memory, "LATE", 0.05)
    for pieces in ((HEAD,), ()):
        async with answering(*pieces, stays=True) as (host, _):
            with open_engine(host, timeout=LONG) as engine:
                assert not await asyncio.wait_for(out_of_memory.event_of(engine, FOUND), LONG)


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-x\r\n\r\n", HEAD + b"0\r\n\r\n", answer("404 Not Found", b'{"message": "x"}')]
)
async def test_an_engine_without_events_says_nothing_of_memory(said: bytes) -> None:
    async with answering(said) as (host, _):
        with open_engine(host, timeout=LONG) as engine:
            assert not await out_of_memory.event_of(engine, FOUND)


@pytest.mark.parametrize("state", [{}, {"StartedAt": ""}])
async def test_a_container_without_a_start_is_not_looked_for(state: dict[str, str]) -> None:
    with open_engine("tcp://127.0.0.1:1", timeout=LONG) as engine:
        assert not await out_of_memory.event_of(engine, {**FOUND, "State": state})
