"""Requests to an engine, byte by byte; the engine is a scripted server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from docker.errors import APIError, ImageNotFound, NotFound

from runner_node.drivers.engine import open_engine
from runner_node.drivers.engine_http import EngineHTTP
from shared_models import errors

LIMIT = 10.0


@asynccontextmanager
async def answering(*pieces: bytes, stays: bool = False) -> AsyncIterator[tuple[str, bytearray]]:
    """A server that answers each request with *pieces*; its address, and what it was asked."""
    asked = bytearray()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        serving.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            asked.extend(await reader.readuntil(b"\r\n\r\n"))
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if stays:
                await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(LIMIT):
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
        if serving:
            await asyncio.wait(serving)


def answer(status: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Heard(asyncio.Protocol):
    """What came over an attached connection."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.connected = False
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connected = True

    def data_received(self, data: bytes) -> None:
        assert self.connected
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def test_an_answer_is_json_in_any_pieces_or_nothing() -> None:
    pieces = [bytes([byte]) for byte in answer("200 OK", b'{"a": [1, 2]}')]
    async with answering(*pieces) as (host, asked):
        assert await EngineHTTP(host).ask("GET", "/x?y=1") == {"a": [1, 2]}
    assert asked.startswith(b"GET /x?y=1 HTTP/1.1\r\nHost: ")
    chunked = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n"
    async with answering(chunked) as (host, _):
        assert await EngineHTTP(host).ask("POST", "/x", {"b": 1}) == [1]
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n", stays=True) as (host, _):
        assert await EngineHTTP(host).ask("POST", "/x") is None


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        ("404 Not Found", "No such container: x", NotFound),
        ("404 Not Found", "No such image: x", ImageNotFound),
        ("409 Conflict", "cannot join network of a non running container", APIError),
        ("500 Internal Server Error", "something", APIError),
    ],
)
async def test_a_refusal_is_the_sdks_with_the_engines_words(
    status: str, words: str, kind: type[APIError]
) -> None:
    body = b'{"message": "%b"}' % words.encode()
    async with answering(answer(status, body)) as (host, _):
        for work in (EngineHTTP(host).ask("POST", "/x"), EngineHTTP(host).attach("/x", Heard())):
            with pytest.raises(APIError) as caught:
                await work
            assert type(caught.value) is kind
            assert caught.value.explanation == words
            assert caught.value.status_code == int(status[:3])


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"SSH-2.0-x\r\n\r\n"])
async def test_what_is_no_answer_is_an_engine_that_cannot_be_used(said: bytes) -> None:
    async with answering(said) as (host, _):
        with open_engine(host, timeout=5) as engine:
            for work in (engine.start("x"), engine.listen("x", Heard())):
                with pytest.raises(errors.EngineUnavailable):
                    await work


@pytest.mark.parametrize("said", ['{"error": "no"}', '["no"]', "no", ""])
async def test_an_error_in_the_words_of_a_proxy_is_told_as_it_is(said: str) -> None:
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(said)}\r\n\r\n{said}".encode()
    async with answering(head) as (host, _):
        with open_engine(host, timeout=5) as engine:
            with pytest.raises(APIError) as caught:
                await engine.start("x")
            assert caught.value.status_code == 403
            assert said in str(caught.value)
            with pytest.raises((APIError, errors.EngineUnavailable)):
                await engine.call(lambda sdk: sdk.info())


async def test_an_answer_that_is_no_json_is_an_engine_that_cannot_be_used() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>") as (host, _):
        with open_engine(host, timeout=5) as engine, pytest.raises(errors.EngineUnavailable, match="engine"):
            await engine.inspect("x")


async def test_an_engine_that_says_nothing_is_given_up() -> None:
    async with answering(stays=True) as (host, _):
        with open_engine(host, timeout=-1.9) as engine:
            for work in (engine.start("x"), engine.listen("x", Heard())):
                with pytest.raises(errors.EngineUnavailable) as caught:
                    await work
                assert "no answer within 0.1 s" in caught.value.detail


@pytest.mark.parametrize("status", ["101 UPGRADED", "200 OK"])
async def test_an_attached_stream_gets_every_byte_behind_the_head(status: str) -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/x\r\n\r".encode()
    async with answering(head, b"\nfirst", b" second") as (host, asked):
        heard = Heard()
        await EngineHTTP(host).attach("/containers/x/attach", heard)
        await heard.lost.wait()
        assert heard.data == b"first second"
    assert b"Upgrade: tcp" in asked


async def test_of_an_answer_without_end_the_first_line_is_taken() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with answering(head, b'7\r\n{"a": 1\r\n', b'9\r\n}\n{"b": 2\r\n', stays=True) as (host, asked):
        assert await EngineHTTP(host).first("/events?since=1") == {"a": 1}
    assert asked.startswith(b"GET /events?since=1 HTTP/1.1\r\n")
    async with answering(head + b"2\r\n1\n\r\n2\r\n2\n\r\n", stays=True) as (host, _):
        assert await EngineHTTP(host).first("/events") == 1
    async with answering(head, b"0\r\n\r\n") as (host, _):
        assert await EngineHTTP(host).first("/events") is None
