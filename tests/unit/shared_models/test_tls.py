"""Ports that speak TLS: whom they serve, what they tell others, and files that change."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from shared_models import telemetry
from shared_models.certificates import BadTLSFile, doubts, leaf, names
from shared_models.http_settings import HTTPSettings
from shared_models.tls import Clients, _Failures, open_tls
from shared_models.tls_settings import TLSSettings
from shared_models.web import Apart, json_response, serving
from tests.servers.authority import Authority, Files, authority
from tests.servers.ports import free_port
from tests.unit.shared_models.fast_paths import LIMIT, on_both_loops, ordinary, whole

ENDS, CHANGED = "fn_tls_certificate_ends_seconds", "fn_tls_files_changed_total"
FAILED = "fn_tls_handshakes_failed_total"
REFUSED = (aiohttp.ClientError, ssl.SSLError, ConnectionError)
"""What a client gets whose handshake fails; not TimeoutError, which is an OSError as well."""
_LONG = aiohttp.ClientTimeout(LIMIT)


async def who(request: web.Request) -> web.StreamResponse:
    return json_response({"certificate": bool(request.get_extra_info("peercert")), "scheme": request.scheme})


async def peer(request: web.Request) -> web.StreamResponse:
    return json_response({"port": request.get_extra_info("peername")[1]})


@asynccontextmanager
async def node(files: Files, *, every: float = 0.05, **more: Any) -> AsyncIterator[int]:
    changed = {name: more.pop(name) for name in ("head_timeout", "admin_port", "drain") if name in more}
    settings = HTTPSettings(port=0, host="127.0.0.1", **{"drain": 5.0, **changed})
    routes = [web.get("/who", who), web.get("/peer", peer), web.post("/x", ordinary)]
    async with (
        open_tls(files.settings(), every) as tls,
        serving(routes, settings, node_type="test", tls=tls, **more) as port,
    ):
        yield port


async def ask(port: int, context: ssl.SSLContext, path: str = "/who") -> Any:
    connector = aiohttp.TCPConnector(ssl=context)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=_LONG) as http,
        http.get(f"https://127.0.0.1:{port}{path}") as answer,
    ):
        return await answer.json()


async def shown(port: int, ca: Authority, files: Files | None = None) -> bytes:
    """The certificate that the port shows to a new connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ca.client(files))
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return found


@on_both_loops
async def test_a_node_with_a_certificate_speaks_http_1_over_tls_of_today() -> None:
    with authority() as ca:
        async with node(ca.certify("node")) as port:
            assert await ask(port, ca.client()) == {"certificate": False, "scheme": "https"}
            context = ca.client()
            context.set_alpn_protocols(["h2", "http/1.1"])
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            agreed = writer.get_extra_info("ssl_object")
            assert (agreed.selected_alpn_protocol(), agreed.version()) == ("http/1.1", "TLSv1.3")
            writer.close()


@on_both_loops
async def test_the_fast_path_takes_requests_over_tls_and_large_bodies_arrive_whole() -> None:
    def fast(exchange: Any) -> None:
        if exchange.path == "/x":
            exchange.answer(whole(b"fast:" + exchange.body))

    body = os.urandom(3 << 20)
    with authority() as ca:
        async with (
            node(ca.certify("node"), fast_path=fast) as port,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=ca.client()), timeout=_LONG) as http,
        ):
            for _ in range(3):
                async with http.post(f"https://127.0.0.1:{port}/x", data=b"small") as answer:
                    assert await answer.read() == b"fast:small"
                async with http.post(f"https://127.0.0.1:{port}/x", data=io.BytesIO(body)) as answer:
                    assert await answer.read() == b"ordinary:" + body


@on_both_loops
async def test_who_speaks_plain_http_to_a_port_with_tls_is_told_so() -> None:
    with authority() as ca:
        async with node(ca.certify("node")) as port:
            failed = telemetry.REGISTRY.get_sample_value(FAILED) or 0
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v2/apps HTTP/1.1\r\nHost: x\r\n\r\n")
            said = await asyncio.wait_for(reader.readuntil(b"}"), LIMIT)
            writer.close()
            assert said.startswith(b"HTTP/1.1 400 ")
            assert b"use https://" in said
            assert telemetry.REGISTRY.get_sample_value(FAILED) == failed + 1
            assert await ask(port, ca.client()) == {"certificate": False, "scheme": "https"}


@on_both_loops
async def test_a_client_that_does_not_finish_its_handshake_is_cut_off_like_one_with_a_slow_head() -> None:
    with authority() as ca:
        async with node(ca.certify("node"), head_timeout=0.3) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\x16\x03\x01")
            assert await asyncio.wait_for(reader.read(), LIMIT) == b""
            writer.close()


@on_both_loops
async def test_on_the_shared_port_certificates_are_taken_and_not_needed() -> None:
    with authority() as ca, authority() as other:
        mine, strange = ca.certify("runner"), other.certify("runner")
        async with node(ca.certify("node"), certified=True) as port:
            assert (await ask(port, ca.client()))["certificate"] is False
            assert (await ask(port, ca.client(mine)))["certificate"] is True
            with pytest.raises(REFUSED):
                await ask(port, ca.client(strange))


@on_both_loops
async def test_on_a_port_of_their_own_runners_are_heard_with_a_certificate_only() -> None:
    with authority() as ca, authority() as other:
        runners = free_port()
        apart = Apart([web.get("/who", who)], runners)
        async with node(ca.certify("node"), certified=True, apart=apart) as port:
            assert (await ask(runners, ca.client(ca.certify("runner"))))["certificate"] is True
            assert (await ask(port, ca.client(ca.certify("runner"))))["certificate"] is False
            for context in (ca.client(), ca.client(other.certify("runner"))):
                with pytest.raises(REFUSED) as caught:
                    await ask(runners, context)
                # It is told why, not just hung up on.
                assert "ALERT" in repr(caught.value) or "alert" in repr(caught.value)


@on_both_loops
async def test_new_files_are_for_new_connections_and_the_others_go_on() -> None:
    with authority() as ca:
        # As Kubernetes mounts a secret: links through one link, which is replaced.
        (ca.folder / "1").mkdir()
        (ca.folder / "2").mkdir()
        ca.certify("1/tls")
        ca.certify("2/tls")
        current = ca.folder / "current"
        current.symlink_to("1")
        files = Files(current / "tls.crt", current / "tls.key", ca.file)
        async with node(files) as port:
            old = await shown(port, ca)
            connector = aiohttp.TCPConnector(ssl=ca.client(), limit=1)
            async with aiohttp.ClientSession(connector=connector, timeout=_LONG) as http:
                async with http.get(f"https://127.0.0.1:{port}/peer") as answer:
                    before = await answer.json()
                (ca.folder / "next").symlink_to("2")
                os.replace(ca.folder / "next", current)
                async with asyncio.timeout(LIMIT):
                    while await shown(port, ca) == old:
                        await asyncio.sleep(0.02)
                async with http.get(f"https://127.0.0.1:{port}/peer") as answer:
                    assert await answer.json() == before


async def test_new_files_that_cannot_be_used_leave_the_old_ones_and_are_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with authority() as ca:
        files = ca.certify("node")
        async with node(files) as port:
            old = await shown(port, ca)
            files.key.write_text("no key")
            await _until(lambda: "has no private key in PEM" in caplog.text)
            assert await shown(port, ca) == old
            await asyncio.sleep(0.3)
            assert caplog.text.count("cannot be used, the old ones stay") == 1
            ended = telemetry.REGISTRY.get_sample_value(ENDS, {"file": "FN_NODE_CERT"})
            refused = telemetry.REGISTRY.get_sample_value(CHANGED, {"outcome": "refused"})
            ca.certify("node", ends=datetime(2091, 1, 1, tzinfo=UTC))
            await _until(lambda: "new files for TLS are in use" in caplog.text)
            assert await shown(port, ca) != old
            assert refused
            assert ended != telemetry.REGISTRY.get_sample_value(ENDS, {"file": "FN_NODE_CERT"})
            now = telemetry.REGISTRY.get_sample_value(ENDS, {"file": "FN_NODE_CERT"})
            assert now == datetime(2091, 1, 1, tzinfo=UTC).timestamp()


async def test_a_file_that_hangs_is_told_of_and_neither_clients_nor_the_stop_wait_for_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_models.aside.PATIENCE", 0.2)
    with authority() as ca:
        files = ca.certify("node")
        async with asyncio.timeout(LIMIT), node(files) as port:
            old = await shown(port, ca)
            os.mkfifo(ca.folder / "hangs")  # who opens it waits for somebody who writes
            os.replace(ca.folder / "hangs", files.key)
            await _until(lambda: "cannot be looked at, those that were read stay: no answer" in caplog.text)
            assert await shown(port, ca) == old
        os.close(os.open(files.key, os.O_RDWR))
    assert caplog.text.count("no answer within 0.2 s") == 1


async def test_an_authority_that_is_taken_away_certifies_nobody_any_more() -> None:
    with authority() as old, authority() as new:
        runners, known = free_port(), old.certify("runner")
        (old.folder / "both.crt").write_bytes(old.file.read_bytes() + new.file.read_bytes())
        files = old.certify("node")
        files = Files(files.cert, files.key, old.folder / "both.crt")
        async with node(files, certified=True, apart=Apart([web.get("/who", who)], runners)):
            trusting = old.client(known)
            assert (await ask(runners, trusting))["certificate"] is True
            files.authority.write_bytes(new.file.read_bytes())
            with pytest.raises(REFUSED):
                # The same client, which could resume what it had agreed on.
                await _ask_on(runners, trusting)
            by_new = old.client(new.certify("runner"))
            assert (await ask(runners, by_new))["certificate"] is True


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_whoever_has_shown_a_certificate_shows_it_again_with_each_connection(
    version: ssl.TLSVersion,
) -> None:
    """Who resumes a session shows none: one that has expired meanwhile would do."""
    with authority() as ca:
        runners, context = free_port(), ca.client(ca.certify("runner"))
        context.maximum_version = version
        async with node(ca.certify("node"), certified=True, apart=Apart([web.get("/who", who)], runners)):
            session = None
            for _ in range(2):
                resumed, session = await asyncio.to_thread(_visit, runners, context, session)
                assert not resumed


def _visit(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[bool | None, ssl.SSLSession | None]:
    """One request; whether it resumed *session*, and the session to resume next."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connected,
        context.wrap_socket(connected, server_hostname="127.0.0.1", session=session) as client,
    ):
        client.sendall(b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        return client.session_reused, client.session


async def test_authorities_of_the_system_certify_neither_runners_nor_api_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anybody can have a certificate of those; where FN_NODE_CERT_AUTHORITY is set, it alone counts."""
    with authority() as ca, authority() as system:
        monkeypatch.setenv("SSL_CERT_FILE", str(system.file))
        runners = free_port()
        apart = Apart([web.get("/who", who)], runners)
        strange = system.certify("node")
        assert ssl.create_default_context().get_ca_certs(), "the system has one"
        for at, more in ((0, {}), (runners, {"apart": apart})):
            async with node(ca.certify("node"), certified=True, **more) as port:
                with pytest.raises(REFUSED):
                    await ask(at or port, ca.client(strange))
        async with open_tls(ca.certify("runner").settings()) as tls, node(strange) as port:
            with pytest.raises(REFUSED):
                await ask(port, tls.client())


async def test_handshakes_that_fail_are_told_of_now_and_then_however_many_they_are(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_models.tls._failures", _Failures())
    caplog.set_level(logging.INFO)
    with authority() as ca, authority() as other:
        async with node(ca.certify("node"), certified=True) as port:
            for _ in range(5):
                with pytest.raises(REFUSED):
                    await ask(port, ca.client(other.certify("runner")))
    assert caplog.text.count("TLS handshakes failed") == 1


@on_both_loops
async def test_the_admin_port_may_stay_plain() -> None:
    with authority() as ca:
        made = ca.certify("node")
        for plain in (False, True):
            admin = free_port()
            settings = TLSSettings(cert=str(made.cert), key=str(made.key), admin=not plain)
            http = HTTPSettings(port=0, host="127.0.0.1", admin_port=admin)
            connector = aiohttp.TCPConnector(ssl=ca.client())
            async with (
                open_tls(settings) as tls,
                serving([], http, node_type="test", tls=tls) as port,
                aiohttp.ClientSession(connector=connector, timeout=_LONG) as client,
            ):
                for url in (f"http{'' if plain else 's'}://127.0.0.1:{admin}", f"https://127.0.0.1:{port}"):
                    async with client.get(f"{url}/healthz") as answer:
                        assert answer.status == 200


@on_both_loops
async def test_who_has_connected_before_the_node_stops_is_served_over_tls_as_well() -> None:
    with authority() as ca:
        files = ca.certify("node")
        serve = node(files, drain=LIMIT)
        port = await serve.__aenter__()
        # Nobody accepts it before the node stops: the event loop has no turn until then.
        waiting = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        leaving = asyncio.create_task(serve.__aexit__(None, None, None))
        answer = await asyncio.to_thread(_say_hello, waiting, ca.client())
        await leaving
        assert answer.startswith(b"HTTP/1.1 200 ")


def _say_hello(connected: socket.socket, context: ssl.SSLContext) -> bytes:
    with context.wrap_socket(connected, server_hostname="127.0.0.1") as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client.recv(1000)


async def _ask_on(port: int, context: ssl.SSLContext) -> None:
    async with asyncio.timeout(LIMIT):
        while await ask(port, context):
            await asyncio.sleep(0.02)


async def _until(condition: Any) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.02)


# -- files -----------------------------------------------------------------------------------------


async def _opened(settings: TLSSettings, clients: Clients = Clients.NOBODY) -> None:
    async with open_tls(settings) as tls:
        tls.server(clients)
        tls.client()


async def test_what_is_wrong_with_a_file_is_told_with_its_variable() -> None:
    with authority() as ca, authority() as other:
        good, strange = ca.certify("good"), other.certify("strange")
        empty, locked, missing = ca.folder / "empty", ca.folder / "locked", Path("/nowhere/tls.crt")
        empty.write_text("")
        locked.write_bytes(_encrypted(good.key))
        for cert, key, ca_file, said in (
            (missing, good.key, good.authority, "FN_NODE_CERT=/nowhere/tls.crt: No such file"),
            (good.cert, missing, good.authority, "FN_NODE_CERT_KEY=/nowhere/tls.crt: No such file"),
            (good.cert, good.key, missing, "FN_NODE_CERT_AUTHORITY=/nowhere/tls.crt: No such file"),
            (ca.folder, good.key, good.authority, "FN_NODE_CERT=.*: Is a directory"),
            (empty, good.key, good.authority, "FN_NODE_CERT=.*: has no certificate in PEM"),
            (good.cert, empty, good.authority, "FN_NODE_CERT_KEY=.*: has no private key in PEM"),
            (good.cert, good.key, empty, "FN_NODE_CERT_AUTHORITY=.*: has no certificate in PEM"),
            (
                good.cert,
                strange.key,
                good.authority,
                "FN_NODE_CERT_KEY=.*: is not the key of the certificate",
            ),
            (good.cert, locked, good.authority, "FN_NODE_CERT_KEY=.*: is encrypted"),
        ):
            with pytest.raises(BadTLSFile, match=said):
                await _opened(TLSSettings(cert=str(cert), key=str(key), authority=str(ca_file)), Clients.ALL)
        await _opened(good.settings(), Clients.ALL)


def _encrypted(key: Path) -> bytes:
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hush"),
    )


async def test_a_certificate_that_clients_refuse_now_or_soon_is_warned_of_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    with authority() as ca:
        for begins, ends, said in (
            (now - 2 * day, now - day, "expired on"),
            (now + day, now + 60 * day, "is valid from"),
            (now - day, now + 3 * day, "expires on"),
        ):
            caplog.clear()
            await _opened(ca.certify("node", begins=begins, ends=ends).settings())
            assert said in caplog.text
            assert caplog.text.count("FN_NODE_CERT=") == 1
        assert list(doubts(ca.certify("node", ends=now + 60 * day).settings())) == []


async def test_of_a_file_with_a_chain_the_first_certificate_is_the_nodes_own() -> None:
    with authority() as ca:
        files = ca.certify("node", "api.fn", ends=datetime(2090, 1, 1, tzinfo=UTC))
        files.cert.write_bytes(files.cert.read_bytes() + ca.file.read_bytes())
        own = leaf(files.settings())
        assert names(own) == ["api.fn"]
        assert own.not_valid_after_utc == datetime(2090, 1, 1, tzinfo=UTC)


async def test_a_certificate_that_names_no_host_is_warned_of() -> None:
    with authority() as ca:
        files = ca.certify("node")
        # That of the authority names none, as those that were made by hand often do.
        files.cert.write_bytes(ca.file.read_bytes())
        assert any("names no host (subjectAltName)" in one for one in doubts(files.settings()))
