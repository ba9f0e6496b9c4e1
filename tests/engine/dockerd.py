"""A container engine for tests: the one that is given, else a private one in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
import requests

from tests.engine.packages import Missing, need

START = 240.0
STOP = 60.0
"""Seconds that the engine may take to start, and to stop before it is killed."""


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """The DOCKER_HOST of an engine that answers; raises Missing, with the reason, when there is none.

    ``FN_TEST_DOCKER_HOST`` names one that runs. Functions need no network, so that a private engine gets
    an empty network namespace: there it can take nothing from other engines (a dockerd without a bridge
    removes the machine's docker0) and touches no firewall. Its mounts are its own, too, and end with it.
    """
    if given := os.environ.get("FN_TEST_DOCKER_HOST"):
        yield given
        return
    if os.geteuid() != 0:
        raise Missing("a container engine needs root; set FN_TEST_DOCKER_HOST to one that runs")
    with private_engine() as host:
        yield host


@contextlib.contextmanager
def engine_over_tls(listener: socket.socket, options: Sequence[str]) -> Iterator[str]:
    """The same, private in any case, which serves TLS on *listener*, too; its address is without TLS.

    *options* are dockerd's, with its certificates. Raises Missing.
    """
    if os.geteuid() != 0:
        raise Missing("a container engine of one's own needs root")
    with private_engine(listener, options) as host:
        yield host


@contextlib.contextmanager
def private_engine(listener: socket.socket | None = None, options: Sequence[str] = ()) -> Iterator[str]:
    """A new one, which has nothing yet; see ``engine`` and ``engine_over_tls``."""
    program = need("dockerd", "docker.io")
    folder = Path(tempfile.mkdtemp(prefix="fn-engine-"))
    try:
        with _dockerd(program, folder, listener, options) as host:
            yield host
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _handing(listener: socket.socket) -> list[str]:
    """What runs the rest of a command with *listener* as systemd hands it over.

    So it is one of the machine's, though the engine is in a network namespace without anything.
    """
    script = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', "
        "LISTEN_PID=str(os.getpid())); os.execvp(sys.argv[2], sys.argv[2:])"
    )
    return [sys.executable, "-c", script, str(listener.fileno())]


@contextlib.contextmanager
def _dockerd(
    program: str, folder: Path, listener: socket.socket | None, options: Sequence[str]
) -> Iterator[str]:
    host = f"unix://{folder}/docker.sock"
    log = folder / "log"
    # It must not outlive a test run that is killed.
    command = _handing(listener) if listener else []
    command += [
        need("setpriv", "util-linux"),
        "--pdeathsig",
        "TERM",
        need("unshare", "util-linux"),
        "--net",
        "--mount",
    ]
    command += [program, "-H", host, *(("-H", "fd://") if listener else ()), *options]
    command += [
        f"--data-root={folder / 'data'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'pid'}",
    ]
    command += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[listener.fileno()] if listener else [],
        )
    try:
        _wait_until_ready(process, host, log)
        yield host
    finally:
        _kill_containers(host)
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _kill_containers(host: str) -> None:
    """Those that tests left: dockerd waits for their end, ten seconds or as long as each may take.

    A dockerd that is killed meanwhile leaves them running.
    """
    with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
        client = docker.DockerClient(base_url=host, version="auto", timeout=30)
        for container in client.containers.list(all=True, ignore_removed=True):
            container.remove(force=True)
        client.close()


def _wait_until_ready(process: subprocess.Popen[bytes], host: str, log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        if _listens(host):
            # It listens when it is nearly ready, and answers when it is.
            client = docker.APIClient(base_url=host, version="auto", timeout=30)
            client.close()
            return
        time.sleep(0.05)
    last = log.read_text(errors="replace").strip().splitlines()[-3:]
    raise Missing("dockerd did not start: " + " | ".join(last))


def _listens(host: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(host.removeprefix("unix://")) == 0
