"""Runner nodes and API nodes over TLS: certificates of both, and what is said when they do not fit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from api_node.auth import RunnerAuth
from hybrid_client.checkup import examine_api_nodes
from hybrid_client.client import open_data_access
from hybrid_client.settings import ClientSettings
from shared_models import errors
from shared_models.finding import Level
from shared_models.http_settings import HTTPSettings
from shared_models.interfaces import DataAccess
from shared_models.tls import open_tls
from shared_models.tls_settings import TLSSettings
from shared_models.web import Apart, json_response, serving
from tests.servers.authority import Files, authority
from tests.servers.ports import free_port
from tests.unit.shared_models.fast_paths import on_both_loops

PLAIN = TLSSettings()
ID = "01AAAAAAAAAAAAAAAAAAAAAAAA"


async def fn(request: web.Request) -> web.StreamResponse:
    return json_response({"id": ID, "app_id": ID, "name": "f", "image": "i"})


class Node:
    """An API node on one port, and on a port for runner nodes alone."""

    def __init__(self, shared: int, own: int, scheme: str) -> None:
        self.shared = f"{scheme}://127.0.0.1:{shared}"
        self.own = f"{scheme}://127.0.0.1:{own}"


@asynccontextmanager
async def api(
    files: TLSSettings, *, certified: bool = True, tokens: tuple[str, ...] = ()
) -> AsyncIterator[Node]:
    http = HTTPSettings(port=0, host="127.0.0.1", drain=5.0)
    guard = RunnerAuth(tokens, everybody=not (certified or tokens), certified=certified)
    routes, own = [web.get("/v1/runner/fns/{fn_id}", guard(fn))], free_port()
    scheme = "https" if files.cert else "http"
    async with (
        open_tls(files) as tls,
        serving(routes, http, node_type="api", tls=tls, certified=certified) as shared,
        serving([], http, node_type="api", tls=tls, certified=certified, apart=Apart(routes, own)),
    ):
        yield Node(shared, own, scheme)


@asynccontextmanager
async def client(files: TLSSettings, *urls: str, **more: Any) -> AsyncIterator[DataAccess]:
    settings = ClientSettings(api_urls=urls, max_attempts=3, first_pause=0.001, max_pause=0.001, **more)
    async with open_tls(files) as tls, open_data_access(settings, tls.client()) as data:
        yield data


async def refusal(files: TLSSettings, url: str, **more: Any) -> str:
    async with client(files, url, **more) as data:
        with pytest.raises(errors.FnError) as caught:
            await data.fn(ID)
    return caught.value.explained


@on_both_loops
async def test_a_runner_with_a_certificate_is_taken_for_one_on_either_port() -> None:
    with authority() as ca:
        async with api(ca.certify("api").settings()) as node:
            for url in (node.shared, node.own):
                async with client(ca.certify("runner").settings(), url) as data:
                    assert (await data.fn(ID)).name == "f"


@on_both_loops
async def test_a_runner_without_a_certificate_learns_that_it_needs_one() -> None:
    with authority() as ca:
        bare = TLSSettings(authority=str(ca.file))
        async with api(ca.certify("api").settings()) as node:
            assert "shows it no certificate" in await refusal(bare, node.shared)
            assert "it wants a certificate of this node: set FN_NODE_CERT" in await refusal(bare, node.own)


@on_both_loops
async def test_a_token_is_asked_for_beside_the_certificate_where_there_is_one() -> None:
    with authority() as ca:
        files = ca.certify("runner").settings()
        async with api(ca.certify("api").settings(), tokens=("secret",)) as node:
            assert "FN_RUNNER_TOKEN" in await refusal(files, node.own)
            assert "FN_RUNNER_TOKEN" in await refusal(files, node.shared, token="wrong")
            async with client(files, node.own, token="secret") as data:
                assert (await data.fn(ID)).name == "f"
            bare = TLSSettings(authority=str(ca.file))
            assert "shows it no certificate" in await refusal(bare, node.shared, token="secret")


@on_both_loops
async def test_a_certificate_that_an_api_node_refuses_is_named_with_the_next_step() -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    with authority() as ca, authority() as other:
        strange = other.certify("runner")
        strange = Files(strange.cert, strange.key, ca.file)
        old = ca.certify("old", begins=past - timedelta(days=1), ends=past)
        async with api(ca.certify("api").settings()) as node:
            assert "does not know the authority of FN_NODE_CERT" in await refusal(
                strange.settings(), node.own
            )
            assert "FN_NODE_CERT has expired: renew it" in await refusal(old.settings(), node.own)


@on_both_loops
async def test_an_api_node_that_cannot_be_trusted_is_named_with_the_next_step() -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    with authority() as ca, authority() as other:
        mine = ca.certify("runner").settings()
        for files, said in (
            (ca.certify("named", "api-node.fn", "10.0.0.9"), "its certificate is not for 127.0.0.1"),
            (ca.certify("old", begins=past - timedelta(days=1), ends=past), "its certificate has expired"),
            (ca.certify("early", begins=datetime.now(UTC) + timedelta(days=1)), "is not valid yet"),
            (other.certify("api"), "that is unknown here: set FN_NODE_CERT_AUTHORITY"),
        ):
            async with api(files.settings(), certified=False) as node:
                said_so = await refusal(mine, node.shared)
                assert said_so.startswith(
                    "The API node and this runner node do not trust each other: 127.0.0.1:"
                )
                assert said in said_so


@on_both_loops
async def test_a_certificate_that_was_revoked_is_refused_by_either_side_with_the_next_step() -> None:
    with authority() as runners, authority() as apis:
        stolen, good = runners.certify("stolen"), runners.certify("good")
        ours, gone = apis.certify("ours"), apis.certify("gone")
        by_api = replace(ours.settings(), authority=str(runners.file), crl=str(runners.revoke(stolen)))
        by_runner = {"authority": str(apis.file), "crl": str(apis.revoke(gone))}
        async with api(by_api) as node:
            async with client(replace(good.settings(), **by_runner), node.own) as data:
                assert (await data.fn(ID)).name == "f"
            for url in (node.own, node.shared):
                said = await refusal(replace(stolen.settings(), **by_runner), url)
                assert "FN_NODE_CERT is revoked by the API node's FN_NODE_CERT_CRL" in said
        async with api(replace(by_api, cert=str(gone.cert), key=str(gone.key))) as node:
            said = await refusal(replace(good.settings(), **by_runner), node.own)
            assert "its certificate cannot be verified: certificate revoked" in said


@on_both_loops
async def test_a_runner_that_is_refused_for_an_old_list_learns_that_it_may_be_the_list() -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    with authority() as ca:
        old = ca.revoke(begins=past - timedelta(days=1), ends=past)
        async with api(replace(ca.certify("api").settings(), crl=str(old))) as node:
            said = await refusal(ca.certify("runner").settings(), node.own)
            assert "where it has not, the API node's FN_NODE_CERT_CRL is out of date" in said


@on_both_loops
async def test_a_scheme_that_is_not_the_api_nodes_is_named() -> None:
    with authority() as ca:
        files = ca.certify("api").settings()
        async with api(files, certified=False) as node:
            plain = node.shared.replace("https", "http")
            assert "it speaks TLS there: set FN_RUNNER_API_URL to https://" in await refusal(files, plain)
        async with api(PLAIN, certified=False) as node:
            secure = node.shared.replace("http", "https")
            assert "it does not speak TLS there: set FN_RUNNER_API_URL" in await refusal(files, secure)


@on_both_loops
async def test_the_next_api_node_is_asked_when_one_cannot_be_trusted() -> None:
    with authority() as ca, authority() as other:
        async with (
            api(other.certify("api").settings(), certified=False) as strange,
            api(ca.certify("api").settings(), certified=False) as node,
            client(ca.certify("runner").settings(), strange.shared, node.shared) as data,
        ):
            assert (await data.fn(ID)).name == "f"


async def test_the_cause_is_in_the_log_once_and_no_request_is_repeated_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    with authority() as ca, authority() as other:
        files = ca.certify("runner").settings()
        async with (
            api(other.certify("api").settings(), certified=False) as node,
            client(
                files,
                node.shared,
            ) as data,
        ):
            for _ in range(3):
                with pytest.raises(errors.APINodeUntrusted):
                    await data.fn(ID)
    assert caplog.text.count("no request goes to the API node at 127.0.0.1:") == 1


async def advice(files: TLSSettings, url: str) -> str:
    async with open_tls(files) as tls:
        found = [one async for one in examine_api_nodes(ClientSettings(api_urls=(url,)), tls.client())]
    assert [one.level for one in found] == [Level.ERROR]
    return found[0].advice


async def test_the_doctor_gives_the_same_advice() -> None:
    with authority() as ca, authority() as other:
        bare = TLSSettings(authority=str(ca.file))
        async with api(ca.certify("api").settings()) as node:
            assert await advice(bare, node.shared) == "set FN_NODE_CERT and FN_NODE_CERT_KEY"
            assert "set FN_NODE_CERT and FN_NODE_CERT_KEY" in await advice(bare, node.own)
            unknown = await advice(other.certify("runner").settings(), node.shared)
            assert "set FN_NODE_CERT_AUTHORITY" in unknown
        async with api(ca.certify("api").settings(), certified=False, tokens=("secret",)) as node:
            assert await advice(bare, node.shared) == "set FN_RUNNER_TOKEN to the API node's"


@on_both_loops
async def test_a_new_certificate_of_the_runner_is_shown_on_its_next_connection() -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    with authority() as ca:
        old = ca.certify("runner", begins=past - timedelta(days=1), ends=past)
        async with api(ca.certify("api").settings()) as node, open_tls(old.settings(), 0.05) as tls:
            settings = ClientSettings(api_urls=(node.own,), max_attempts=1)
            async with open_data_access(settings, tls.client()) as data:
                with pytest.raises(errors.APINodeUntrusted):
                    await data.fn(ID)
                ca.certify("runner")
                assert await _served(data)


async def _served(data: DataAccess) -> bool:
    async with asyncio.timeout(60):
        while True:
            try:
                return (await data.fn(ID)).name == "f"
            except errors.APINodeUntrusted:
                await asyncio.sleep(0.02)
