"""Several workers: what each gets, what is refused, and how a node of them starts and fails to."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy import shares
from deploy.settings import RunnerNode, read_all
from shared_models.env import InvalidSettings
from shared_models.finding import Level
from shared_models.workers import Place
from tests.unit.deploy.node_processes import begin, until

RUNNER = {"FN_RUNNER_API_URL": "http://127.0.0.1:9", "FN_RUNNER_TOKEN": "t"}


@pytest.mark.parametrize("number", ["0", "65", "-1", "two"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(number: str) -> None:
    with pytest.raises(InvalidSettings, match="FN_WORKERS"):
        read_all({**RUNNER, "FN_WORKERS": number}, "runner")


@pytest.mark.parametrize("url", ["memory://", "sqlite:///q.db", ""])
@pytest.mark.parametrize("kind", ["api", "full"])
def test_a_queue_of_one_process_is_refused_with_what_there_is(kind: str, url: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_all({"FN_WORKERS": "2", "FN_MQ_URL": url}, kind)
    assert len(caught.value.problems) == 1
    assert re.match("FN_WORKERS=2: .* set FN_MQ_URL to a redis://, postgres:// or", caught.value.problems[0])
    read_all({"FN_WORKERS": "1", "FN_MQ_URL": url}, kind)
    read_all({"FN_WORKERS": "2", "FN_MQ_URL": "redis://r:6379/0"}, kind)


def test_workers_on_a_sqlite_file_are_warned_of_and_others_not() -> None:
    shared = {"FN_WORKERS": "2", "FN_MQ_URL": "redis://r:6379/0", "FN_RUNNER_TOKEN": "t"}
    shared |= {"FN_HOST": "127.0.0.1", "FN_PUBLIC_LB_URL": "http://127.0.0.1:8081"}
    _, warnings = read_all(shared, "api")
    assert [warning.partition(",")[0] for warning in warnings] == ["FN_WORKERS is more than 1"]
    assert read_all({**shared, "FN_DB_URL": "postgres://p/fn"}, "api")[1] == []
    assert read_all({**RUNNER, "FN_WORKERS": "2"}, "runner")[1] == []


def test_workers_have_the_nodes_name_and_an_even_part_of_what_it_has() -> None:
    environ = {
        **RUNNER, "FN_WORKERS": "4", "FN_MAX_TOTAL_MEMORY_BYTES": "4000", "FN_MAX_WAITING_CALLS": "0",
        "FN_MAX_SPOOL_SIZE_BYTES": "800", "FN_HTTP_MAX_CONNECTIONS": "100", "FN_PREFORK_POOL_SIZE": "8",
    }  # fmt: skip
    settings, _ = read_all(environ, "runner")
    whole = shares.whole(settings, 4242)
    own = shares.of_worker(whole, Place(1, 4))
    assert isinstance(own, RunnerNode)
    assert own.node.id == f"{socket.gethostname()}-8080"
    assert own.http.port == 4242
    assert (own.agent.max_memory, own.agent.max_waiting_calls, own.agent.max_spool_size) == (1000, 0, 200)
    assert own.http.max_connections == 25
    assert own.driver.prefork_pool_size == 2
    assert isinstance(whole, RunnerNode)
    assert own.agent.max_cpus == whole.agent.max_cpus // 4 > 0


def test_the_doctor_says_what_each_worker_has_and_when_there_are_too_many() -> None:
    environ = {**RUNNER, "FN_MAX_TOTAL_MEMORY_BYTES": str(1 << 30), "FN_MAX_TOTAL_CPU_MCPUS": "2000"}
    assert list(shares.examine(read_all(environ, "runner")[0])) == []
    many = str(len(os.sched_getaffinity(0)) + 1)
    found = list(shares.examine(read_all({**environ, "FN_WORKERS": many}, "runner")[0]))
    assert [one.level for one in found] == [Level.WARNING, Level.OK]
    assert "each with" in found[1].says
    assert f"{(1 << 30) // int(many) >> 20} MB and {2000 // int(many)} mCPU" in found[1].says


# -- real processes --------------------------------------------------------------------------------


def _node(
    folder: Path, command: Sequence[str] = ("-m", "deploy", "runner"), **environ: str
) -> subprocess.Popen[str]:
    common = {
        "PATH": os.environ["PATH"], "FN_HOST": "127.0.0.1", "FN_NODE_ID": f"workers-{os.getpid()}",
        "FN_DRIVER": "process", "FN_PROCESS_IMAGES": str(folder), "FN_WORKERS": "2", **RUNNER,
    }  # fmt: skip
    return begin(folder, command, {**common, **environ})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_share_a_port_of_the_systems_choice_and_stop_in_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    with _node(tmp_path, FN_PORT="0") as node:
        said = until(node, "worker 1 serves")
        ports = set(re.findall(r"listens on 127\.0\.0\.1:(\d+)", said))
        assert len(ports) == 1
        with socket.create_connection(("127.0.0.1", int(ports.pop())), timeout=20) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert client.recv(1000).split()[1] == b"200"
        node.send_signal(number)
        _, rest = node.communicate(timeout=30)
    assert node.returncode == 0
    assert rest.count("stopped worker=") == 2
    assert "Traceback" not in rest


def test_workers_on_a_taken_port_end_with_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with _node(tmp_path, FN_PORT=port, FN_LOG_LEVEL="error") as node:
            _, text = node.communicate(timeout=30)
    assert node.returncode == 1
    assert text == f"fn-node: port {port} is taken: stop what listens there, or set FN_PORT\n"


def test_a_port_that_another_nodes_workers_share_is_taken(tmp_path: Path) -> None:
    with _node(tmp_path, FN_PORT="0") as first:
        port = re.findall(r"127\.0\.0\.1:(\d+)", until(first, "worker 1 serves"))[-1]
        with _node(tmp_path, FN_PORT=port, FN_NODE_ID="another", FN_LOG_LEVEL="error") as second:
            _, text = second.communicate(timeout=30)
        first.terminate()
        first.communicate(timeout=30)
    assert (second.returncode, first.returncode) == (1, 0)
    assert text == f"fn-node: port {port} is taken: stop what listens there, or set FN_PORT\n"


def test_what_keeps_workers_from_starting_is_said_once_with_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    where = str(tmp_path / "file" / "sockets")
    with _node(tmp_path, FN_PORT="0", FN_LOG_LEVEL="error", FN_IOFS_PATH=where) as node:
        _, text = node.communicate(timeout=30)
    assert node.returncode == 1
    assert text.count("fn-node:") == 1
    assert where in text
    long = str(tmp_path / ("x" * 120))
    with _node(tmp_path, FN_PORT="0", FN_LOG_LEVEL="error", FN_IOFS_PATH=long) as node:
        _, text = node.communicate(timeout=30)
    assert node.returncode == 2
    assert text.count("FN_IOFS_PATH is too long") == 1


def _worker(said: str, number: int) -> int:
    """The process id of a worker that has said that it serves."""
    return int(re.findall(rf"worker {number} serves \(process (\d+)\)", said)[-1])


def test_a_worker_that_cannot_start_again_is_tried_later_and_later_while_the_others_serve(
    tmp_path: Path,
) -> None:
    # The path of a unix socket must be short.
    with (
        tempfile.TemporaryDirectory(prefix="fnw-", dir="/tmp") as name,
        _node(tmp_path, FN_PORT="0", FN_IOFS_PATH=f"{name}/s") as node,
    ):
        sockets = Path(name, "s")
        said = until(node, "worker 1 serves")
        port = int(re.findall(r"127\.0\.0\.1:(\d+)", said)[-1])
        sockets.rename(Path(name, "away"))
        sockets.write_text("in the way")
        os.kill(_worker(said, 1), signal.SIGKILL)
        until(node, "worker 1 ended (SIGKILL) and is begun again in 0.25 s")
        until(node, "worker 1 ended (exit code 1) and is begun again in 0.5 s")
        until(node, "worker 1 ended (exit code 1) and is begun again in 1 s")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert client.recv(1000).split()[1] == b"200"
        sockets.unlink()
        Path(name, "away").rename(sockets)
        until(node, "worker 1 serves")
        node.terminate()
        node.communicate(timeout=30)
    assert node.returncode == 0


_IMPATIENT = """
import sys
from deploy import supervisor
from deploy.__main__ import main
supervisor.BEAT = 0.5
sys.exit(main(["runner"]))
"""


def test_a_worker_that_stands_still_is_replaced(tmp_path: Path) -> None:
    with _node(tmp_path, ("-c", _IMPATIENT), FN_PORT="0") as node:
        said = until(node, "worker 1 serves")
        os.kill(_worker(said, 1), signal.SIGSTOP)
        said = until(node, "worker 1 serves")
        assert "worker 1 has stood still for 6 s" in said
        assert "worker 1 ended (SIGKILL) and is begun again" in said
        assert "worker 0" not in said
        node.terminate()
        node.communicate(timeout=30)
    assert node.returncode == 0


def test_a_signal_ends_workers_that_wait_for_a_silent_store(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgres://u:hush@127.0.0.1:{silent.getsockname()[1]}/fn"
        command = ("-m", "deploy", "api")
        with _node(tmp_path, command, FN_PORT="0", FN_DB_URL=url, FN_MQ_URL="redis://127.0.0.1:9/0") as node:
            silent.settimeout(20)
            with silent.accept()[0]:
                node.send_signal(signal.SIGTERM)
                # The store's own time limit is longer.
                _, said = node.communicate(timeout=8)
    assert node.returncode == 0, said
    assert "Traceback" not in said
