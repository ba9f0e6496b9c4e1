"""What the engine is asked for, without an engine."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest

from runner_node.drivers.contract import ContainerSpec
from runner_node.drivers.settings import DriverSettings
from runner_node.drivers.spec import create_body
from shared_models.env import read

SPEC = ContainerSpec(
    id="C1", image="me/fn:1", env={"A": "b", "FN_LISTENER": "mine"}, memory=64 << 20, labels={"x": "y"}
)


def body(spec: ContainerSpec = SPEC, network: str = "", **settings: Any) -> dict[str, Any]:
    return create_body(
        spec, DriverSettings(**settings), node_id="n1", io_dir="/io/C1", hostname="h" * 70, network=network
    )


def host(spec: ContainerSpec = SPEC, network: str = "", **settings: Any) -> dict[str, Any]:
    config: dict[str, Any] = body(spec, network, **settings)["HostConfig"]
    return config


def test_a_function_is_locked_up() -> None:
    made = body()
    assert made["User"] == "1000:1000"
    assert not made["OpenStdin"]
    assert not made["Tty"]
    config = made["HostConfig"]
    assert config["CapDrop"] == ["ALL"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert config["Init"] is True
    assert config["PidsLimit"] == 50
    assert config["ReadonlyRootfs"] is True
    assert config["LogConfig"] == {"Type": "none"}
    limits = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in config["Ulimits"]}
    assert limits == {
        "nofile": (350, 350),
        "memlock": (65536, 65536),
        "sigpending": (5000, 5000),
        "msgqueue": (819200, 819200),
    }


def test_a_function_with_stdio_is_locked_up_alike_and_has_no_socket() -> None:
    made, plain = body(dataclasses.replace(SPEC, stdio=True)), body()
    assert [made[name] for name in ("AttachStdin", "OpenStdin", "StdinOnce", "Tty")] == [
        True,
        True,
        True,
        False,
    ]
    assert sorted(made["Env"]) == ["A=b", "FN_LISTENER=mine"]  # its own, as configured
    assert "Binds" not in made["HostConfig"]
    assert made["HostConfig"] == {
        name: value for name, value in plain["HostConfig"].items() if name != "Binds"
    }
    assert made["User"] == plain["User"]


def test_nothing_is_asked_for_that_newer_engines_refuse() -> None:
    assert not {"KernelMemory", "MemorySwappiness", "Privileged"} & host().keys()


def test_the_listener_is_the_drivers_and_env_is_the_specs() -> None:
    assert sorted(body()["Env"]) == ["A=b", "FN_LISTENER=unix:/tmp/iofs/lsnr.sock"]
    assert host()["Binds"] == ["/io/C1:/tmp/iofs"]


def test_memory_has_no_swap_on_top() -> None:
    assert (host()["Memory"], host()["MemorySwap"]) == (64 << 20, 64 << 20)


def test_cpus_are_a_quota_and_none_means_no_limit() -> None:
    assert "CpuQuota" not in host()
    config = host(dataclasses.replace(SPEC, cpus=1500))
    assert (config["CpuQuota"], config["CpuPeriod"]) == (150_000, 100_000)


@pytest.mark.parametrize(
    ("size", "inodes", "options"),
    [(0, 0, ""), (5, 0, "size=5m"), (0, 9, "nr_inodes=9"), (5, 9, "size=5m,nr_inodes=9")],
)
def test_tmp_is_in_memory_and_bounded(size: int, inodes: int, options: str) -> None:
    config = host(dataclasses.replace(SPEC, tmpfs_size=size), max_tmpfs_inodes=inodes)
    assert config["Tmpfs"] == {"/tmp": options}


def test_the_host_name_is_this_hosts_unless_a_network_is_set() -> None:
    assert body()["Hostname"] == "h" * 63
    assert "Hostname" not in body(network="fns")
    assert host(network="fns")["NetworkMode"] == "fns"
    assert "NetworkMode" not in host()


def test_labels_find_the_containers_of_a_node_again() -> None:
    assert body()["Labels"] == {"x": "y", "fn.hybrid.node": "n1"}
    tagged = body(label_tag="blue")["Labels"]
    assert (tagged["fn-agent-classifier"], tagged["fn-agent-instance"]) == ("blue", "n1")


def test_the_root_may_be_made_writable_and_bounded() -> None:
    config = host(writable_rootfs=True, max_fs_size=200)
    assert config["ReadonlyRootfs"] is False
    assert config["StorageOpt"] == {"size": "200m"}


def test_settings_name_what_is_wrong_with_them() -> None:
    problems: list[str] = []
    read(
        DriverSettings,
        {"FN_DRIVER": "podman", "DOCKER_HOST": "ssh://x", "FN_ENGINE_TIMEOUT": "soon"},
        problems,
    )
    assert [problem.split("=")[0] for problem in problems] == [
        "FN_DRIVER",
        "DOCKER_HOST",
        "FN_ENGINE_TIMEOUT",
    ]


@pytest.mark.parametrize(
    ("environ", "certs"),
    [
        ({"DOCKER_HOST": "tcp://engine:2376", "DOCKER_TLS_VERIFY": "0", "DOCKER_CERT_PATH": "/c"}, "/c"),
        ({"DOCKER_HOST": "tcp://engine:2376", "DOCKER_CERT_PATH": "/c"}, "/c"),
        ({"DOCKER_HOST": "tcp://engine", "DOCKER_TLS_VERIFY": "1"}, os.path.expanduser("~/.docker")),
        ({"DOCKER_HOST": "https://engine"}, os.path.expanduser("~/.docker")),
        ({"DOCKER_HOST": "tcp://engine:2375"}, ""),
        ({"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c"}, ""),
    ],
)
def test_tls_to_an_engine_is_asked_for_as_by_dockers_clients(environ: dict[str, str], certs: str) -> None:
    problems: list[str] = []
    assert read(DriverSettings, environ, problems).engine_certs() == certs
    read(DriverSettings, {"DOCKER_HOST": "tcp://engine:port"}, problems)
    assert problems == [
        "DOCKER_HOST='tcp://engine:port': must have a port between 1 and 65535, as in tcp://HOST:2376"
    ]


def test_an_engine_over_ssh_is_refused_with_the_way_out() -> None:
    problems: list[str] = []
    read(DriverSettings, {"DOCKER_HOST": "ssh://root@engine"}, problems)
    [problem] = problems
    assert "ssh -N -L /run/engine.sock:/var/run/docker.sock HOST" in problem
