"""What a container has used, under Fn's names: from the engine, from control groups, from a process.

Bytes, and nanoseconds of CPU time, all since the start but ``mem_usage``: now. Source: ``cherryPick`` in
api/agent/drivers/docker/docker.go (Fn 0.3.484), which reads the same figures from the engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
SECOND = 1_000_000_000
MICRO = 1000


def from_engine(stats: Mapping[str, Any]) -> dict[str, int]:
    """The figures in one answer of the engine's ``/containers/{id}/stats``; {} when it has ended."""
    cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    memory = stats.get("memory_stats") or {}
    if not memory.get("usage"):
        return {}
    networks = (stats.get("networks") or {}).values()
    entries = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    disk = [(str(entry.get("op", "")).lower(), int(entry.get("value", 0))) for entry in entries]
    return {
        "net_rx": sum(int(each.get("rx_bytes", 0)) for each in networks),
        "net_tx": sum(int(each.get("tx_bytes", 0)) for each in networks),
        "mem_limit": int(memory.get("limit", 0)),
        "mem_usage": int(memory["usage"]),
        "disk_read": sum(size for op, size in disk if op == "read"),
        "disk_write": sum(size for op, size in disk if op == "write"),
        "cpu_user": int(cpu.get("usage_in_usermode", 0)),
        "cpu_total": int(cpu.get("total_usage", 0)),
        "cpu_kernel": int(cpu.get("usage_in_kernelmode", 0)),
    }


def from_cgroups(pid: int, proc: Path = PROC, cgroups: Path = CGROUPS) -> dict[str, int]:
    """The same, read for the container whose first process is *pid*; raises OSError or ValueError."""
    groups = {}
    for line in (proc / str(pid) / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path.lstrip("/")
    if "memory" in groups:
        found = _version_1(lambda controller, file: cgroups / controller / groups[controller] / file)
    else:
        found = _version_2(cgroups / groups[""])
    received, sent = _network((proc / str(pid) / "net" / "dev").read_text().splitlines())
    return {"net_rx": received, "net_tx": sent, **found}


def _version_1(at: Any) -> dict[str, int]:
    ticks = dict(line.split() for line in at("cpuacct", "cpuacct.stat").read_text().splitlines())
    disk = [line.split() for line in at("blkio", "blkio.throttle.io_service_bytes").read_text().splitlines()]
    return {
        "mem_limit": _limit(at("memory", "memory.limit_in_bytes").read_text()),
        "mem_usage": int(at("memory", "memory.usage_in_bytes").read_text()),
        "disk_read": sum(int(line[2]) for line in disk if line[1:2] == ["Read"]),
        "disk_write": sum(int(line[2]) for line in disk if line[1:2] == ["Write"]),
        "cpu_user": _nanoseconds(ticks["user"]),
        "cpu_total": int(at("cpuacct", "cpuacct.usage").read_text()),
        "cpu_kernel": _nanoseconds(ticks["system"]),
    }


def _version_2(group: Path) -> dict[str, int]:
    cpu = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    io = group / "io.stat"
    words = io.read_text().split() if io.exists() else []
    return {
        "mem_limit": _limit((group / "memory.max").read_text()),
        "mem_usage": int((group / "memory.current").read_text()),
        "disk_read": _sum(words, "rbytes="),
        "disk_write": _sum(words, "wbytes="),
        "cpu_user": int(cpu["user_usec"]) * MICRO,
        "cpu_total": int(cpu["usage_usec"]) * MICRO,
        "cpu_kernel": int(cpu["system_usec"]) * MICRO,
    }


def of_process(pid: int, proc: Path = PROC) -> dict[str, int]:
    """What process *pid*, and its children that have ended, used; {} when it cannot be told.

    It has neither a network nor a memory limit of its own: nothing was sent, and the limit is the machine.
    """
    try:
        # Behind the name, which may have spaces: the state, and so on (proc(5)).
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        pages = int((proc / str(pid) / "statm").read_text().split()[1])
        io = dict(line.split(": ") for line in (proc / str(pid) / "io").read_text().splitlines())
        user, kernel = (_nanoseconds(fields[at], fields[at + 2]) for at in (11, 12))
        return {
            "net_rx": 0,
            "net_tx": 0,
            "mem_limit": _machine(),
            "mem_usage": pages * os.sysconf("SC_PAGE_SIZE"),
            "disk_read": int(io["read_bytes"]),
            "disk_write": int(io["write_bytes"]),
            "cpu_user": user,
            "cpu_total": user + kernel,
            "cpu_kernel": kernel,
        }
    except (OSError, ValueError, LookupError):
        return {}


def _network(lines: list[str]) -> tuple[int, int]:
    """Bytes received and sent, from /proc/net/dev, without the loopback."""
    received = sent = 0
    for line in lines[2:]:
        name, _, figures = line.partition(":")
        if name.strip() != "lo":
            columns = figures.split()
            received += int(columns[0])
            sent += int(columns[8])
    return received, sent


def _sum(words: Iterable[str], prefix: str) -> int:
    return sum(int(word.removeprefix(prefix)) for word in words if word.startswith(prefix))


def _nanoseconds(*ticks: str) -> int:
    return sum(map(int, ticks)) * SECOND // os.sysconf("SC_CLK_TCK")


def _limit(text: str) -> int:
    """A memory limit in bytes; the machine's memory when there is none, as engines say it."""
    machine = _machine()
    return machine if text.strip() == "max" else min(int(text), machine)


def _machine() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
