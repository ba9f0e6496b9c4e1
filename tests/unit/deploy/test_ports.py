"""The ports of a node: what is refused before it starts, and what real nodes serve on each."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from deploy.settings import read_all
from shared_models.env import InvalidSettings
from tests.servers.ports import free_port
from tests.unit.deploy.node_processes import begin, until

RUNNER = {"FN_RUNNER_API_URL": "http://127.0.0.1:9", "FN_RUNNER_TOKEN": "t"}


@pytest.mark.parametrize(
    ("variable", "service"),
    [("FN_PORT", "fn"), ("FN_ADMIN_PORT", "fn-admin"), ("FN_RUNNER_API_PORT", "fn-runner-api")],
)
def test_a_port_that_kubernetes_has_set_is_told_from_one_that_is_wrong(variable: str, service: str) -> None:
    with pytest.raises(
        InvalidSettings, match=f"{variable} comes from a Kubernetes service called {service}:"
    ):
        read_all({variable: "tcp://10.0.0.7:80"}, "full")


def test_two_listeners_on_one_port_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="FN_ADMIN_PORT=9000: is FN_PORT, too"):
        read_all({**RUNNER, "FN_PORT": "9000", "FN_ADMIN_PORT": "9000"}, "runner")
    with pytest.raises(InvalidSettings, match="FN_RUNNER_API_PORT=9000: is FN_ADMIN_PORT, too"):
        read_all({"FN_RUNNER_API_PORT": "9000", "FN_ADMIN_PORT": "9000"}, "api")
    read_all({"FN_PORT": "0", "FN_RUNNER_API_PORT": "0", "FN_ADMIN_PORT": "0"}, "api")


@pytest.mark.parametrize(
    ("environ", "kind", "said"),
    [
        ({"FN_NODE_CERT": "c"}, "api", "FN_NODE_CERT_KEY: is not set"),
        ({**RUNNER, "FN_NODE_CERT_KEY": "k"}, "runner", "FN_NODE_CERT: is not set"),
        ({"FN_RUNNER_AUTH": "mtls"}, "api", "FN_RUNNER_AUTH=mtls: needs FN_NODE_CERT,"),
        (
            {"FN_RUNNER_AUTH": "mtls", "FN_NODE_CERT": "c", "FN_NODE_CERT_KEY": "k"},
            "full",
            "FN_RUNNER_AUTH=mtls: needs FN_NODE_CERT_AUTHORITY, which is not set",
        ),
    ],
)
def test_half_of_what_tls_needs_is_refused(environ: dict[str, str], kind: str, said: str) -> None:
    with pytest.raises(InvalidSettings, match=said):
        read_all(environ, kind)


def test_a_runner_with_a_certificate_on_a_way_that_is_not_encrypted_is_warned() -> None:
    certified = {"FN_NODE_CERT": "c", "FN_NODE_CERT_KEY": "k", "FN_HOST": "127.0.0.1"}
    _, warnings = read_all({**RUNNER, **certified}, "runner")
    assert [warning.partition(" has ")[0] for warning in warnings] == ["FN_RUNNER_API_URL"]
    secure = {"FN_RUNNER_API_URL": "https://api:8080"}
    # A certificate stands for the token.
    assert read_all({**certified, **secure}, "runner")[1] == []


def test_a_file_for_tls_that_cannot_be_used_keeps_the_node_from_starting_with_one_line(
    tmp_path: Path,
) -> None:
    environ = {
        "PATH": os.environ["PATH"], "FN_HOST": "127.0.0.1", "FN_PORT": "0", "FN_LOG_LEVEL": "error",
        "FN_NODE_CERT": "/nowhere/tls.crt", "FN_NODE_CERT_KEY": "/nowhere/tls.key",
    }  # fmt: skip
    with begin(tmp_path, ("-m", "deploy", "api"), environ) as node:
        _, text = node.communicate(timeout=60)
    assert node.returncode == 2
    assert text == "fn-node: FN_NODE_CERT=/nowhere/tls.crt: No such file or directory\n"


def _get(port: int, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def test_an_api_node_has_its_runners_and_its_metrics_on_ports_of_their_own(tmp_path: Path) -> None:
    public, runners, admin = free_port(), free_port(), free_port()
    environ = {
        "PATH": os.environ["PATH"], "FN_HOST": "127.0.0.1", "FN_PORT": str(public), "FN_RUNNER_TOKEN": "t0k",
        "FN_RUNNER_API_PORT": str(runners), "FN_ADMIN_PORT": str(admin),
    }  # fmt: skip
    with begin(tmp_path, ("-m", "deploy", "api"), environ) as node:
        until(node, f"api node listens on 127.0.0.1:{public}")
        until(node, f"runner nodes are served on 127.0.0.1:{runners}")
        assert _get(public, "/v2/apps")[0] == 200
        assert _get(public, "/v1/apps/none")[0] == 404
        assert _get(public, "/v1/runner/wanted")[0] == 421
        assert _get(runners, "/v1/runner/wanted")[0] == 401
        assert _get(runners, "/v1/apps/none")[0] == 404
        assert b"Path not found" not in _get(runners, "/v1/apps/none")[1]
        assert b"Path not found" in _get(runners, "/v2/apps")[1]
        status, body = _get(admin, "/debug/settings")
        settings = json.loads(body)["workers"][0]["settings"]
        assert (settings["FN_ADMIN_PORT"], settings["FN_RUNNER_TOKEN"]) == (str(admin), "(hidden)")
        assert b"t0k" not in body
        node.terminate()
        node.communicate(timeout=60)
    assert (status, node.returncode) == (200, 0)


def test_workers_share_the_admin_port_and_answer_there_for_all(tmp_path: Path) -> None:
    admin = free_port()
    environ = {
        "PATH": os.environ["PATH"], "FN_HOST": "127.0.0.1", "FN_PORT": "0", "FN_ADMIN_PORT": str(admin),
        "FN_NODE_ID": f"ports-{os.getpid()}", "FN_DRIVER": "process", "FN_PROCESS_IMAGES": str(tmp_path),
        "FN_WORKERS": "2", **RUNNER,
    }  # fmt: skip
    with begin(tmp_path, ("-m", "deploy", "runner"), environ) as node:
        until(node, "worker 1 serves")
        slots = json.loads(_get(admin, "/debug/slots")[1])["workers"]
        metrics = _get(admin, "/metrics")[1].decode()
        node.terminate()
        node.communicate(timeout=60)
    assert [one["worker"] for one in slots] == [0, 1]
    assert len({one["process"] for one in slots}) == 2
    assert all(one["slots"]["functions"] == [] and one["slots"]["memory_bytes"]["all"] > 0 for one in slots)
    assert 'worker="0"' in metrics
    assert 'worker="1"' in metrics
    assert node.returncode == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_admin_port_that_is_taken_is_named(tmp_path: Path, workers: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environ = {
            "PATH": os.environ["PATH"], "FN_HOST": "127.0.0.1", "FN_PORT": "0", "FN_ADMIN_PORT": port,
            "FN_NODE_ID": f"ports-{os.getpid()}", "FN_DRIVER": "process", "FN_PROCESS_IMAGES": str(tmp_path),
            "FN_WORKERS": workers, "FN_LOG_LEVEL": "error", **RUNNER,
        }  # fmt: skip
        with begin(tmp_path, ("-m", "deploy", "runner"), environ) as node:
            _, text = node.communicate(timeout=60)
    assert node.returncode == 1
    assert text.startswith(f"fn-node: port {port} is taken: stop what listens there, or set FN_ADMIN_PORT\n")
