"""``fn-node probe``, as a health check runs it, at a real node."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
import trustme

from deploy.probe import address
from deploy.settings import read_all
from tests.servers.ports import free_port
from tests.system.nodes import ROOT, Cluster

pytestmark = pytest.mark.system


async def probe(port: int, *arguments: str) -> tuple[int, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FN_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy", "probe", *arguments, cwd=ROOT, stderr=asyncio.subprocess.PIPE,
        env={**environ, "FN_NODE_TYPE": "api", "FN_PORT": str(port), "FN_RUNNER_TOKEN": "x"},
    )  # fmt: skip
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_node_that_serves_is_well_and_ready_and_one_that_is_gone_is_neither(tmp_path: Path) -> None:
    node = Cluster(tmp_path, {}).api
    await node.start()
    try:
        assert await probe(node.port) == (0, "")
        assert await probe(node.port, "--ready") == (0, "")
    finally:
        assert await node.stop() == 0
    code, said = await probe(free_port())
    assert code == 1
    assert "/healthz does not answer" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"FN_HOST": "::", "FN_PORT": "81"}, "http://[::1]:81"),
        ({"FN_HOST": "10.0.0.1", "FN_ADMIN_PORT": "82"}, "http://10.0.0.1:82"),
        ({"FN_ADMIN_PORT": "82", "FN_ADMIN_HOST": "127.0.0.2"}, "http://127.0.0.2:82"),
        ({"tls": "1"}, "https://127.0.0.1:8080"),
        ({"tls": "1", "FN_ADMIN_PORT": "82"}, "https://127.0.0.1:82"),
        ({"tls": "1", "FN_ADMIN_PORT": "82", "FN_ADMIN_TLS": "false"}, "http://127.0.0.1:82"),
    ],
)
def test_the_port_that_operators_ask_is_asked(environ: dict[str, str], url: str, tmp_path: Path) -> None:
    if environ.pop("tls", ""):
        authority = trustme.CA()
        pair = authority.issue_cert("node")
        pair.cert_chain_pems[0].write_to_path(tmp_path / "cert")
        pair.private_key_pem.write_to_path(tmp_path / "key")
        environ |= {"FN_NODE_CERT": str(tmp_path / "cert"), "FN_NODE_CERT_KEY": str(tmp_path / "key")}
    settings, _ = read_all(environ, "api")
    assert address(settings) == url
