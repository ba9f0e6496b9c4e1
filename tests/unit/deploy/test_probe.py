"""What ``fn-node probe`` makes of the answers that a port can give."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from deploy import probe
from deploy.settings import read_all
from shared_models.http_settings import HTTPSettings
from shared_models.tls import open_tls
from shared_models.tls_settings import TLSSettings
from shared_models.web import serving
from tests.servers.authority import authority
from tests.servers.ports import free_port

LIMIT = 30.0


@asynccontextmanager
async def node(reason: str = "", tls: TLSSettings | None = None) -> AsyncIterator[int]:
    """A port that lives, and is not ready for *reason*."""
    settings = HTTPSettings(port=0, host="127.0.0.1")
    async with (
        open_tls(tls or TLSSettings()) as opened,
        serving([], settings, node_type="api", ready=lambda: reason, tls=opened) as port,
    ):
        yield port


async def probed(port: int, *, ready: bool = False, timeout: float = LIMIT, **more: str) -> int:
    settings, _ = read_all({"FN_PORT": str(port), "FN_RUNNER_TOKEN": "x", **more}, "api")
    return await asyncio.to_thread(probe.run, settings, ready=ready, timeout=timeout)


async def test_a_node_that_is_not_ready_lives_and_the_reason_is_told(capsys: Any) -> None:
    async with node("the queue is away") as port:
        assert await probed(port) == 0
        assert capsys.readouterr().err == ""
        assert await probed(port, ready=True) == 1
        assert "/readyz answers 503: the queue is away" in capsys.readouterr().err
    async with node() as port:
        assert await probed(port, ready=True) == 0


async def test_a_node_is_asked_over_tls_whoever_its_certificate_is_for() -> None:
    with authority() as ca:
        files = ca.certify("node", "elsewhere.example")
        names = {"FN_NODE_CERT": str(files.cert), "FN_NODE_CERT_KEY": str(files.key)}
        async with node(tls=TLSSettings(cert=str(files.cert), key=str(files.key))) as port:
            assert await probed(port, **names) == 0


async def test_no_proxy_of_the_environment_stands_between(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with node() as port:
        assert await probed(port) == 0


async def test_a_port_that_keeps_silent_is_not_waited_for(capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with asyncio.timeout(LIMIT):
            assert await probed(silent.getsockname()[1], timeout=0.2) == 1
    assert "timed out" in capsys.readouterr().err


async def test_a_port_that_speaks_no_http_is_told_without_a_trace(capsys: Any) -> None:
    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(greets, "127.0.0.1", 0)
    async with server:
        assert await probed(server.sockets[0].getsockname()[1]) == 1
    assert "does not answer: 220 mail.example" in capsys.readouterr().err
