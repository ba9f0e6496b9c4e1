"""Certificates that were revoked: whom a port refuses by lists of authorities, and what is said of these."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from shared_models import revoked, telemetry
from shared_models.certificates import BadTLSFile
from shared_models.http_settings import HTTPSettings
from shared_models.tls import Clients, _Failures, open_tls
from shared_models.tls_settings import TLSSettings
from shared_models.web import Apart, serving
from tests.servers.authority import Authority, Files, authority
from tests.servers.ports import free_port
from tests.unit.shared_models.fast_paths import LIMIT, on_both_loops
from tests.unit.shared_models.test_tls import REFUSED, ask, peer, who

DAY = timedelta(days=1)


def with_lists(files: Files, crl: Path) -> TLSSettings:
    return dataclasses.replace(files.settings(), crl=str(crl))


@asynccontextmanager
async def node(settings: TLSSettings) -> AsyncIterator[tuple[int, int]]:
    """Its port for everybody, and that for runner nodes alone."""
    runners, http = free_port(), HTTPSettings(port=0, host="127.0.0.1", drain=5.0)
    routes = [web.get("/who", who), web.get("/peer", peer)]
    async with (
        open_tls(settings, 0.05) as tls,
        serving(routes, http, node_type="test", tls=tls, certified=True, apart=Apart(routes, runners)),
        serving(routes, http, node_type="test", tls=tls, certified=True) as shared,
    ):
        yield shared, runners


async def refused(port: int, ca: Authority, files: Files) -> str:
    with pytest.raises(REFUSED) as caught:
        await ask(port, ca.client(files))
    return repr(caught.value).upper()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.02)


async def until_taken(port: int, ca: Authority, files: Files, *, taken: bool) -> None:
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                if (await ask(port, ca.client(files)))["certificate"] and taken:
                    return
            except REFUSED:
                if not taken:
                    return
            await asyncio.sleep(0.02)


@on_both_loops
async def test_who_is_on_the_list_is_refused_on_either_port_and_told_so_and_others_are_heard() -> None:
    with authority() as ca:
        good, stolen = ca.certify("good"), ca.certify("stolen")
        async with node(with_lists(ca.certify("node"), ca.revoke(stolen))) as ports:
            for port in ports:
                assert (await ask(port, ca.client(good)))["certificate"] is True
                assert "REVOKED" in await refused(port, ca, stolen)
            assert (await ask(ports[0], ca.client()))["certificate"] is False


@on_both_loops
async def test_a_new_list_holds_for_new_connections_without_a_restart() -> None:
    with authority() as ca:
        stolen = ca.certify("stolen")
        async with node(with_lists(ca.certify("node"), ca.revoke())) as (_, runners):
            connector = aiohttp.TCPConnector(ssl=ca.client(stolen), limit=1)
            async with aiohttp.ClientSession(connector=connector) as http:
                before = [await _peer(http, runners)]
                ca.revoke(stolen)
                await until_taken(runners, ca, stolen, taken=False)
                assert [await _peer(http, runners)] == before, "a connection that is there goes on"
            ca.revoke()
            await until_taken(runners, ca, stolen, taken=True)


async def _peer(http: aiohttp.ClientSession, port: int) -> int:
    async with asyncio.timeout(LIMIT), http.get(f"https://127.0.0.1:{port}/peer") as answer:
        found: int = (await answer.json())["port"]
        return found


async def test_a_list_that_is_out_of_date_refuses_everybody_until_there_is_a_new_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared_models.tls._failures", _Failures())
    caplog.set_level(logging.INFO)
    now = datetime.now(UTC)
    with authority() as ca:
        good = ca.certify("good")
        settings = with_lists(ca.certify("node"), ca.revoke(begins=now - 2 * DAY, ends=now - DAY))
        async with node(settings) as (_, runners):
            await refused(runners, ca, good)
            assert caplog.text.count("is out of date since") == 1
            assert "the client's certificate: CRL has expired" in caplog.text
            ca.revoke()
            await until_taken(runners, ca, good, taken=True)


async def test_a_list_that_runs_out_while_the_node_runs_is_told_of_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with authority() as ca:
        ends = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=0)
        async with node(with_lists(ca.certify("node"), ca.revoke(ends=ends))):
            shown = telemetry.REGISTRY.get_sample_value(
                "fn_tls_crl_ends_seconds", {"file": "FN_NODE_CERT_CRL"}
            )
            assert shown == ends.timestamp()
            assert "is out of date" not in caplog.text
            await until(lambda: "is out of date since" in caplog.text)
            assert datetime.now(UTC) >= ends


async def test_an_authority_without_a_list_is_told_of_and_its_certificates_are_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with authority() as ca, authority() as other:
        both = ca.folder / "both.crt"
        both.write_bytes(ca.file.read_bytes() + other.file.read_bytes())
        files = ca.certify("node")
        settings = with_lists(Files(files.cert, files.key, both), ca.revoke())
        async with node(settings) as (_, runners):
            assert (await ask(runners, ca.client(ca.certify("good"))))["certificate"] is True
            await refused(runners, ca, other.certify("good"))
            assert caplog.text.count("has no list of ") == 1
            lists = ca.revoke().read_bytes() + other.revoke().read_bytes()
            (ca.folder / "crl.pem").write_bytes(lists)
            await until_taken(runners, ca, other.certify("good"), taken=True)


async def test_a_new_list_that_cannot_be_used_leaves_the_old_one_in_force(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with authority() as ca:
        good, stolen = ca.certify("good"), ca.certify("stolen")
        crl = ca.revoke(stolen)
        async with node(with_lists(ca.certify("node"), crl)) as (_, runners):
            crl.write_bytes(crl.read_bytes()[:200])
            await until(lambda: "new files for TLS cannot be used, the old ones stay" in caplog.text)
            assert (await ask(runners, ca.client(good)))["certificate"] is True
            await refused(runners, ca, stolen)


async def test_what_is_wrong_with_a_file_of_lists_keeps_the_node_from_starting() -> None:
    with authority() as ca:
        files = ca.certify("node")
        whole = ca.revoke().read_bytes()
        for content, said in (
            (None, "FN_NODE_CERT_CRL=.*: No such file or directory"),
            (b"", "has no list of revoked certificates .CRL. in PEM"),
            (
                files.cert.read_bytes(),
                "has a certificate; those of authorities are in FN_NODE_CERT_AUTHORITY",
            ),
            (whole + ca.file.read_bytes(), "has a certificate; those of authorities"),
            (whole[:200], "has no list of revoked certificates"),
            (whole + whole[:200], "FN_NODE_CERT_CRL=.*: "),
            (whole[:100] + b"AAAA" + whole[104:], "FN_NODE_CERT_CRL=.*: "),
        ):
            path = ca.folder / "bad.pem"
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            async with open_tls(with_lists(files, path)) as tls:
                for make in (lambda tls=tls: tls.server(Clients.ALL), tls.client):
                    with pytest.raises(BadTLSFile, match=said):
                        make()


def test_lists_that_nobody_can_go_by_are_doubted() -> None:
    now = datetime.now(UTC)
    with authority() as ca:
        files = ca.certify("node")
        for crl, said in (
            (ca.revoke(begins=now - 2 * DAY, ends=now - DAY), "is out of date since"),
            (ca.revoke(begins=now + DAY, ends=now + 2 * DAY, name="early"), "is valid from"),
        ):
            (found,) = revoked.doubts(with_lists(files, crl))
            assert said in found
        assert list(revoked.doubts(with_lists(files, ca.revoke()))) == []
