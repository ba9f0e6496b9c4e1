"""From a ContainerSpec to the body of the engine's "create container" request; pure.

Every function is locked up the same way, as Fn 0.3.753 does: an ordinary user without capabilities,
a read-only root, few processes and files, no swap, no log kept by the engine. KernelMemory and
swappiness, which Fn sets too, are left out: newer engines refuse them.
"""

from __future__ import annotations

from typing import Any

from runner_node.drivers.contract import SOCKET, ContainerSpec
from runner_node.drivers.settings import DriverSettings

IO_DIR = "/tmp/iofs"
NODE_LABEL = "fn.hybrid.node"
USER = "1000:1000"
PIDS = 50
CPU_PERIOD = 100_000
"""Microseconds; a quota of as many is one CPU."""
ULIMITS = {"nofile": 350, "memlock": 65536, "sigpending": 5000, "msgqueue": 819200}


def create_body(
    spec: ContainerSpec,
    settings: DriverSettings,
    *,
    node_id: str,
    io_dir: str,
    hostname: str = "",
    network: str = "",
    holder: str = "",
) -> dict[str, Any]:
    """The JSON object of ``POST /containers/create``.

    *io_dir* is the socket directory as the engine sees it; with ``spec.stdio`` it is not used. Those
    functions are locked up like the others, where Fn 0.3.484 ran them as the image's user. *hostname* is
    used without a *network* only: the name servers of a network know a container by its own name. With
    *holder*, a running container, it joins that one's network and has its host name.
    """
    body: dict[str, Any] = {
        "Image": spec.image,
        "User": USER,
        "Env": [f"{name}={value}" for name, value in environment(spec).items()],
        "Labels": labels(spec, settings, node_id),
        "AttachStdin": spec.stdio,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": spec.stdio,
        # The function sees the end of stdin when the node closes its connection.
        "StdinOnce": spec.stdio,
        "Tty": False,
        "HostConfig": host_config(spec, settings, io_dir, network),
    }
    if holder:
        body["HostConfig"]["NetworkMode"] = f"container:{holder}"
    elif hostname and not network:
        body["Hostname"] = hostname[:63]
    return body


def environment(spec: ContainerSpec) -> dict[str, str]:
    """What is added to, and wins over, the image's own environment."""
    return dict(spec.env) if spec.stdio else {**spec.env, "FN_LISTENER": f"unix:{IO_DIR}/{SOCKET}"}


def labels(spec: ContainerSpec, settings: DriverSettings, node_id: str) -> dict[str, str]:
    """The spec's labels, and those by which a node finds its containers again."""
    return {**spec.labels, **node_labels(settings, node_id)}


def node_labels(settings: DriverSettings, node_id: str) -> dict[str, str]:
    """The labels of all containers of a node."""
    found = {NODE_LABEL: node_id}
    if settings.label_tag:
        # The names that operators of Fn filter by.
        found |= {"fn-agent-classifier": settings.label_tag, "fn-agent-instance": node_id}
    return found


def host_config(spec: ContainerSpec, settings: DriverSettings, io_dir: str, network: str) -> dict[str, Any]:
    """Limits, mounts and privileges."""
    config: dict[str, Any] = {
        "Init": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "PidsLimit": PIDS,
        "Ulimits": [{"Name": name, "Soft": limit, "Hard": limit} for name, limit in ULIMITS.items()],
        "ReadonlyRootfs": not settings.writable_rootfs,
        "Tmpfs": {"/tmp": _tmpfs_options(spec.tmpfs_size, settings.max_tmpfs_inodes)},
        "LogConfig": {"Type": "none"},
    }
    if not spec.stdio:
        config["Binds"] = [f"{io_dir}:{IO_DIR}"]
    if spec.memory:
        # Equal values mean that there is no swap on top.
        config |= {"Memory": spec.memory, "MemorySwap": spec.memory}
    if spec.cpus:
        config |= {"CpuPeriod": CPU_PERIOD, "CpuQuota": spec.cpus * CPU_PERIOD // 1000}
    if settings.max_fs_size:
        config["StorageOpt"] = {"size": f"{settings.max_fs_size}m"}
    if network:
        config["NetworkMode"] = network
    return config


def _tmpfs_options(size: int, inodes: int) -> str:
    options = []
    if size:
        options.append(f"size={size}m")
    if inodes:
        options.append(f"nr_inodes={inodes}")
    return ",".join(options)
