from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.__main__ import main
from deploy.causes import explain
from deploy.settings import read_all
from shared_models.errors import Unavailable
from shared_models.ports import PortUnavailable
from tests.unit.deploy.node_processes import begin, until


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FN_")]:
        monkeypatch.delenv(name)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for word in ("api", "runner", "full", "config", "version", "FN_RUNNER_API_URL"):
        assert word in text


@pytest.mark.parametrize("asked", ["version", "--version"])
def test_version_is_one_line(capsys: pytest.CaptureFixture[str], asked: str) -> None:
    assert main([asked]) == 0
    assert capsys.readouterr().out.startswith("fn-hybrid 0.")


def test_config_prints_the_table_of_the_asked_node_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "api"]) == 0
    text = capsys.readouterr().out
    assert "FN_DB_URL" in text
    assert "FN_FREEZE_IDLE_MSECS" not in text


def test_bad_settings_are_one_line_each_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FN_PORT", "x")
    monkeypatch.setenv("FN_LOG_FORMAT", "xml")
    assert main(["api"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("fn-node: FN_") for line in lines)


def test_a_taken_port_is_one_line_that_names_the_variable() -> None:
    settings, _ = read_all({"FN_PORT": "8088"})
    text = explain(OSError(errno.EADDRINUSE, "Address already in use"), settings)
    assert text == "port 8088 is taken: stop what listens there, or set FN_PORT"


@pytest.mark.parametrize(
    ("cause", "why"),
    [
        (OSError(errno.EADDRNOTAVAIL, "error while attempting to bind"), "Cannot assign requested address"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
    ],
)
def test_an_address_that_is_none_of_this_machine_is_named_with_its_variable(cause: OSError, why: str) -> None:
    settings, _ = read_all({"FN_HOST": "elsewhere", "FN_ADMIN_HOST": "there", "FN_ADMIN_PORT": "9000"})
    for variable, host in (("FN_PORT", "FN_HOST=elsewhere"), ("FN_ADMIN_PORT", "FN_ADMIN_HOST=there")):
        text = explain(PortUnavailable(cause, 9000, variable), settings)
        assert (
            text == f"{host}: {why}; it must be an address of this machine, such as 0.0.0.0 for all of them"
        )


def test_a_folder_that_cannot_be_written_is_named() -> None:
    settings, _ = read_all({})
    assert explain(PermissionError(errno.EACCES, "Permission denied", "/srv/fn"), settings) == (
        "/srv/fn: Permission denied"
    )


def test_a_store_that_does_not_answer_says_why() -> None:
    settings, _ = read_all({})
    assert explain(Unavailable("No datastore", detail="disk full"), settings) == "No datastore: disk full"


# -- a real process --------------------------------------------------------------------------------


def test_a_reader_that_has_enough_gets_no_stack_trace(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "deploy", "config", "api"], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


def _node(folder: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    common = {"PATH": os.environ["PATH"], "FN_HOST": "127.0.0.1", "FN_RUNNER_TOKEN": "sesame"}
    return begin(folder, ["-m", "deploy", *arguments], {**common, **environ})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_node_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with _node(tmp_path, "api", FN_PORT="0") as node:
        until(node, "api node listens on")
        node.send_signal(number)
        _, rest = node.communicate(timeout=60)
    assert node.returncode == 0
    assert "stopped" in rest
    assert "Traceback" not in rest
    assert "sesame" not in rest


@pytest.mark.parametrize(
    "url", ["postgres://u:hush@{}/fn?connect_timeout=600", "mysql://u:hush@{}/fn?connect_timeout=600"]
)
def test_a_signal_ends_a_node_that_waits_for_a_silent_store(tmp_path: Path, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        with _node(tmp_path, "api", FN_PORT="0", FN_DB_URL=url.format(place)) as node:
            silent.settimeout(60)
            with silent.accept()[0]:
                node.send_signal(signal.SIGTERM)
                _, said = node.communicate(timeout=60)
    assert node.returncode == 0, said
    assert "stopped" in said
    assert "Traceback" not in said
    assert "hush" not in said


def test_a_second_signal_ends_a_node_at_once(tmp_path: Path) -> None:
    with _node(tmp_path, "api", FN_PORT="0") as node:
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", until(node, "api node listens on"))[0])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            # The handler now waits for a body that never comes, and the node waits for the handler.
            client.sendall(
                b"POST /v2/apps HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
            )
            assert client.recv(100).startswith(b"HTTP/1.1 100")
            node.send_signal(signal.SIGTERM)
            until(node, "stopping")
            node.send_signal(signal.SIGTERM)
            node.communicate(timeout=60)
    assert node.returncode == -signal.SIGTERM


def test_a_node_that_stops_serves_on_until_it_is_known_and_ends_in_time(tmp_path: Path) -> None:
    with _node(tmp_path, "api", FN_PORT="0", FN_HTTP_NOT_READY_SECS="4", FN_HTTP_DRAIN="300") as node:
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", until(node, "api node listens on"))[0])
        with socket.create_connection(("127.0.0.1", port), timeout=60):  # idle, and no reason to wait
            node.send_signal(signal.SIGTERM)
            until(node, "stopping")
            began = time.monotonic()
            for path, status in (("readyz", b"503"), ("healthz", b"200"), ("v2/apps", b"200")):
                with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                    client.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    with client.makefile("rb") as answer:
                        text = answer.read()  # to its end: the connection is closed
                assert text.split()[1] == status
                assert b"Connection: close" in text
            node.communicate(timeout=60)
            assert 2.0 < time.monotonic() - began < 60
    assert node.returncode == 0


def test_a_node_on_a_taken_port_ends_with_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with _node(tmp_path, "api", FN_PORT=port, FN_LOG_LEVEL="error") as node:
            _, text = node.communicate(timeout=60)
    assert node.returncode == 1
    assert text == f"fn-node: port {port} is taken: stop what listens there, or set FN_PORT\n"


def test_a_node_without_its_data_folder_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with _node(tmp_path, "api", FN_PORT="0", FN_LOG_LEVEL="error") as node:
        _, text = node.communicate(timeout=60)
    assert node.returncode == 1
    assert len(text.splitlines()) == 1
    assert "data" in text


def test_a_queue_that_is_not_there_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with _node(tmp_path, "api", FN_PORT="0", FN_MQ_URL="bolt:///queue.db", FN_LOG_LEVEL="error") as node:
        _, text = node.communicate(timeout=60)
    assert node.returncode == 2
    assert len(text.splitlines()) == 1
    assert "sqlite://" in text


def test_a_bad_parameter_of_a_store_is_a_bad_setting(tmp_path: Path) -> None:
    url = "postgres://fn:hunter2@127.0.0.1:1/fn?pool_size=many"
    with _node(tmp_path, "api", FN_PORT="0", FN_DB_URL=url, FN_LOG_LEVEL="error") as node:
        _, text = node.communicate(timeout=60)
    assert node.returncode == 2
    assert text.startswith("fn-node: FN_DB_URL: the URL's parameter pool_size must be a whole number")
    assert len(text.splitlines()) == 1
    assert "hunter2" not in text
