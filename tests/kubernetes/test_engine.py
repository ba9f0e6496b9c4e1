"""The engine beside a runner: what functions reach in its pod's network, with a real dockerd and firewall."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import docker
import pytest

from runner_node.drivers.contract import ContainerSpec
from runner_node.drivers.settings import DriverSettings
from runner_node.drivers.spec import create_body
from tests.engine.images import QUICK, Images
from tests.engine.packages import Missing, missing
from tests.kubernetes.engine_pod import CLUSTER, MTU, OWN, SCRIPT, EnginePod, engine_pod

pytestmark = pytest.mark.engine

ALLOWED = {"name server", "registry of the cluster", "internet"}


@pytest.fixture(scope="module")
def pod(temporary_folder: None) -> Iterator[EnginePod]:
    try:
        with engine_pod() as made:
            Images(made.host).need(QUICK)
            yield made
    except Missing as exc:
        missing(f"NO ENGINE IN A POD: {exc}")


_REACHED = """
import socket, sys, time
for name, host, port in {targets!r}:
    began = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=5) as there:
            there.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            said = "reached" if b"reached" in b"".join(iter(lambda: there.recv(999), b"")) else "cut"
    except ConnectionRefusedError:
        said = "refused"
    except TimeoutError:
        said = "silent"
    print(name, said, time.monotonic() - began, sep="|")
"""
"""Asks each of *targets* over HTTP, and prints how that ended, and after how many seconds."""


def function(pod: EnginePod, code: str, network: str = "") -> str:
    """What Python *code* prints in a container that is made as the driver makes those of functions."""
    spec = ContainerSpec(id=f"t-{uuid.uuid4().hex}", image=QUICK, env={}, memory=64 << 20, stdio=True)
    body = create_body(spec, DriverSettings(), node_id="fn", io_dir="", network=network)
    body["Entrypoint"] = ["/usr/bin/python3", "-I", "-c", code]
    body["HostConfig"]["LogConfig"] = {"Type": "json-file"}  # else nothing of it could be read afterwards
    client = docker.APIClient(base_url=pod.host, version="auto", timeout=60)
    try:
        made = client.create_container_from_config(body, name=spec.id)["Id"]
        client.start(made)
        client.wait(made)
        return str(client.logs(made).decode())
    finally:
        client.remove_container(spec.id, force=True)
        client.close()


def asked(pod: EnginePod, places: Mapping[str, tuple[str, int]], network: str = "") -> dict[str, str]:
    """How each of *places* answers a function. Who refuses must do so within two seconds."""
    targets = [(name, *place) for name, place in places.items()]
    said = function(pod, _REACHED.format(targets=targets), network)
    rows = [line.split("|") for line in said.splitlines()]
    assert {row[0] for row in rows} == places.keys(), said
    assert max(float(seconds) for _, _, seconds in rows) < 2 or "silent" in said
    return {name: how for name, how, _ in rows}


def reached(pod: EnginePod, network: str = "") -> set[str]:
    """Who of all that listen answers a function; the others refuse it, none keeps it waiting."""
    answers = asked(pod, CLUSTER | OWN, network)
    assert set(answers.values()) <= {"reached", "refused"}, answers
    return {name for name, how in answers.items() if how == "reached"}


def test_a_function_reaches_the_internet_and_what_is_allowed_and_nothing_else(pod: EnginePod) -> None:
    assert reached(pod) == ALLOWED


def test_without_the_firewall_it_would_reach_all_of_them(pod: EnginePod) -> None:
    pod.run("iptables", "-I", "DOCKER-USER", "-j", "RETURN")
    pod.run("iptables", "-I", "INPUT", "-j", "ACCEPT")
    try:
        assert reached(pod) == (CLUSTER | OWN).keys()
    finally:
        pod.run("iptables", "-D", "DOCKER-USER", "-j", "RETURN")
        pod.run("iptables", "-D", "INPUT", "-j", "ACCEPT")


def test_the_runner_itself_is_under_no_firewall(pod: EnginePod) -> None:
    host, port = CLUSTER["api pod"]
    ask = f"import urllib.request as r; print(r.urlopen('http://{host}:{port}/', timeout=30).read().decode())"
    assert pod.run(sys.executable, "-c", ask).stdout.strip() == "reached"


def test_a_function_on_a_network_of_its_own_reaches_no_more(pod: EnginePod) -> None:
    client = docker.APIClient(base_url=pod.host, version="auto")
    client.create_network("functions", driver="bridge")
    try:
        assert reached(pod, network="functions") == ALLOWED
    finally:
        client.remove_network("functions")
        client.close()


def test_functions_do_not_reach_each_other(pod: EnginePod) -> None:
    client = docker.APIClient(base_url=pod.host, version="auto", timeout=60)
    spec = ContainerSpec(id="neighbour", image=QUICK, memory=64 << 20, stdio=True, env={})
    body = create_body(spec, DriverSettings(), node_id="fn", io_dir="")
    body["Entrypoint"] = ["/usr/bin/python3", "-I", "-m", "http.server", "8000", "--directory", "/etc/apt"]
    try:
        client.create_container_from_config(body, name=spec.id)
        client.start(spec.id)
        address = client.inspect_container(spec.id)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        listens = ["/usr/bin/python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8000))"]
        deadline = time.monotonic() + 60
        while True:
            tried = client.exec_create(spec.id, listens)
            client.exec_start(tried)
            if client.exec_inspect(tried)["ExitCode"] == 0:
                break
            assert time.monotonic() < deadline, client.logs(spec.id)
        assert asked(pod, {"neighbour": (address, 8000)})["neighbour"] in ("refused", "silent")
    finally:
        client.remove_container(spec.id, force=True)
        client.close()


def test_packets_of_functions_are_no_larger_than_the_pods_network_carries(pod: EnginePod) -> None:
    assert function(pod, "print(open('/sys/class/net/eth0/mtu').read())").strip() == str(MTU)


def test_the_socket_is_the_nodes_and_the_data_is_not(pod: EnginePod) -> None:
    socket = os.stat(pod.host.removeprefix("unix://"))
    assert (socket.st_gid, stat.S_IMODE(socket.st_mode)) == (65532, 0o660)
    data = (pod.folder / "volume" / "docker").stat()
    assert data.st_gid == 0
    assert not data.st_mode & stat.S_ISGID


def test_the_engine_is_not_well_when_its_firewall_is_gone(pod: EnginePod) -> None:
    rule = ("FORWARD", "-j", "DOCKER-USER")
    assert pod.ready()
    pod.run("iptables", "-D", *rule)
    assert not pod.ready()
    pod.run("iptables", "-I", *rule)
    assert pod.ready()


def test_an_engine_that_starts_again_has_its_firewall_once(pod: EnginePod) -> None:
    before = sorted(pod.run("iptables", "-S").stdout.splitlines())
    pod.stop()
    pod.start()
    assert sorted(pod.run("iptables", "-S").stdout.splitlines()) == before
    assert reached(pod) == ALLOWED


def stubs(folder: Path, **programs: str) -> dict[str, str]:
    """An environment in which *programs* are these lines of shell; none of them touches this machine."""
    for name, text in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin", "ENGINE_DATA": str(folder / "data")}


def test_there_is_no_engine_without_its_firewall(tmp_path: Path) -> None:
    started = tmp_path / "started"
    environ = stubs(tmp_path, iptables="exit 3", ip6tables="exit 3", docker_init=f"touch {started}")
    done = subprocess.run(["sh", str(SCRIPT)], env=environ, capture_output=True, check=False, timeout=60)
    assert done.returncode != 0
    assert not started.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="cgroups are made by root")
def test_functions_are_below_the_cgroup_of_the_engines_container(tmp_path: Path) -> None:
    """With cgroups of version 2 as a privileged container sees them: those of the whole machine."""
    scope = f"fn-test-{os.getpid()}.scope"
    rules = 'case "$*" in *" -D "*) exit 1;; esac'
    said = 'echo "$@"; cat /proc/self/cgroup'
    environ = stubs(tmp_path, iptables=rules, ip6tables=rules, docker_init=said)
    within = "; ".join(
        [
            "set -e",
            "mount -t cgroup2 none /sys/fs/cgroup",
            "mount -t tmpfs tmpfs /run",
            f"mkdir /sys/fs/cgroup/{scope}",
            f"(echo 0 > /sys/fs/cgroup/{scope}/cgroup.procs; exec sh {SCRIPT})",
            f"rmdir /sys/fs/cgroup/{scope}/* /sys/fs/cgroup/{scope} 2>/dev/null || true",
        ]
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", within],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert f"--cgroup-parent=/{scope}/functions" in done.stdout, done.stderr
    assert f"0::/{scope}/engine\n" in done.stdout, "processes are in leaves only"
