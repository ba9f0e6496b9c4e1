"""What the machine, or the container that this node runs in, has: memory and CPU."""

from __future__ import annotations

import os
from pathlib import Path

_MIB = 1 << 20
_UNLIMITED = 1 << 60
_ROOT = Path("/")
_CGROUP_MEMORY = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory(root: Path = _ROOT) -> int:
    """Bytes for function containers: what is available less a tenth (256 MiB to 5 GiB) for the rest."""
    free = _meminfo(root)
    limit = _cgroup_memory(root)
    if limit is not None:
        free = min(free, limit)
    keep = min(max(free // 10, 256 * _MIB), 5 << 30)
    return max(free - keep, 128 * _MIB)


def memory_limit(root: Path = _ROOT) -> int:
    """Bytes that this process and its children can have at all: the cgroup's limit, or the machine's."""
    limits = [_meminfo(root, "MemTotal"), *(_number(root / limit) for limit, _ in _CGROUP_MEMORY)]
    return min(value for value in limits if value is not None)


def available_cpus(root: Path = _ROOT) -> int:
    """Milli-CPUs: the cgroup's quota when there is one, else the CPUs that this process may use."""
    cpus = len(os.sched_getaffinity(0)) * 1000
    quota = _cgroup_cpus(root)
    return min(cpus, quota) if quota else cpus


def _meminfo(root: Path, what: str = "MemAvailable") -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    return 1 << 30


def _cgroup_memory(root: Path) -> int | None:
    """Version 2 first: where both are mounted, 2 is the one that counts."""
    for limit, used in _CGROUP_MEMORY:
        value = _number(root / limit)
        if value is not None and value < _UNLIMITED:
            return max(value - (_number(root / used) or 0), 0)
    return None


def _cgroup_cpus(root: Path) -> int | None:
    try:
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        pass
    else:
        return None if quota == "max" else int(quota) * 1000 // int(period)
    quota_v1 = _number(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period_v1 = _number(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if quota_v1 and period_v1 and quota_v1 > 0:
        return quota_v1 * 1000 // period_v1
    return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
