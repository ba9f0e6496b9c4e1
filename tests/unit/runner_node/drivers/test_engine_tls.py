"""The files of TLS to an engine: what is wrong with them is told before the first request."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from runner_node.drivers import engine_tls
from runner_node.drivers.engine import open_engine
from runner_node.drivers.engine_tls import FILES, BadEngineFile, EngineTLS
from shared_models.errors import EngineUnavailable

HOST = "tcp://127.0.0.1:1"


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, bytes]]:
    """The files of two clients."""
    authority = trustme.CA()
    return [
        {
            "ca.pem": authority.cert_pem.bytes(),
            "cert.pem": one.cert_chain_pems[0].bytes(),
            "key.pem": one.private_key_pem.bytes(),
        }
        for one in (authority.issue_cert("a"), authority.issue_cert("b"))
    ]


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def told(folder: Path, files: dict[str, bytes]) -> str:
    put(folder, files)
    with pytest.raises(BadEngineFile) as caught, open_engine(HOST, 1.0, str(folder)):
        pass
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_no_pem_is_named(
    tmp_path: Path, pairs: list[dict[str, bytes]], name: str
) -> None:
    assert str(tmp_path / name) in told(tmp_path, {**pairs[0], name: b"no PEM"})
    (tmp_path / name).unlink()
    rest = {file: content for file, content in pairs[0].items() if file != name}
    assert told(tmp_path, rest) == f"DOCKER_CERT_PATH: {tmp_path / name}: No such file or directory"


def test_a_key_of_another_certificate_and_an_encrypted_one_are_refused(
    tmp_path: Path, pairs: list[dict[str, bytes]]
) -> None:
    said = told(tmp_path, {**pairs[0], "key.pem": pairs[1]["key.pem"]})
    assert said.endswith("key.pem is not the key of " + str(tmp_path / "cert.pem"))
    key = load_pem_private_key(pairs[0]["key.pem"], None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    assert "is encrypted; give a key without a password" in told(tmp_path, {**pairs[0], "key.pem": locked})


async def test_renewed_files_are_taken_and_bad_ones_leave_the_old_ones_in_force(
    tmp_path: Path,
    pairs: list[dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(engine_tls, "LOOK", 0.0)
    put(tmp_path, pairs[0])
    tls = EngineTLS(str(tmp_path))
    first = await tls.context()
    assert await tls.context() is first
    put(tmp_path, {"key.pem": b"no PEM"})
    assert await tls.context() is first
    assert "key.pem are no certificate and key in PEM" in caplog.text
    put(tmp_path, pairs[1])
    assert await tls.context() is not first


async def test_files_that_hang_keep_one_connection_waiting_and_not_the_event_loop(
    tmp_path: Path,
    pairs: list[dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("shared_models.aside.PATIENCE", 0.2)
    put(tmp_path, pairs[0])
    tls, there = EngineTLS(str(tmp_path)), threading.Event()
    monkeypatch.setattr(engine_tls, "version", lambda _: there.wait(30))
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        began, slow = loop.time(), asyncio.create_task(tls.context())
        await asyncio.sleep(0)
        quick = await tls.context()
        assert loop.time() - began < 0.2
        assert await slow is quick
    there.set()
    assert "DOCKER_CERT_PATH: no answer within 0.2 s; the certificates" in caplog.text


async def test_a_port_without_tls_is_told_by_both_ways_to_ask(
    tmp_path: Path, pairs: list[dict[str, bytes]]
) -> None:
    put(tmp_path, pairs[0])

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")
        await writer.drain()
        writer.close()

    async with asyncio.timeout(30), await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        host = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with open_engine(host, 10.0, str(tmp_path)) as engine:
            for work in (engine.call(lambda client: client.ping()), engine.inspect("x")):
                with pytest.raises(EngineUnavailable) as caught:
                    await work
                assert "it does not speak TLS there: is it the right port" in caught.value.detail
