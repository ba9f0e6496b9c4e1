"""Figures of a container, from both versions of control groups, from the engine, and from /proc."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runner_node.drivers import stats

NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls
    lo:     999      9    0    0    0     0          0         0      999      9    0    0    0     0
  eth0:     646      7    0    0    0     0          0         0       42      1    0    0    0     0
  eth1:       4      1    0    0    0     0          0         0        8      1    0    0    0     0
"""
TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
EXPECTED = {
    "net_rx": 650,
    "net_tx": 50,
    "mem_limit": 67108864,
    "mem_usage": 2887680,
    "disk_read": 4096,
    "disk_write": 8193,
    "cpu_user": 2 * TICK,
    "cpu_total": 5 * TICK,
    "cpu_kernel": 3 * TICK,
}


def folders(root: Path, cgroup: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A /proc with process 7, and a /sys/fs/cgroup with *files*."""
    everything = {"proc/7/cgroup": cgroup, "proc/7/net/dev": NET}
    everything |= {f"cgroup/{name}": content for name, content in files.items()}
    for name, content in everything.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root / "proc", root / "cgroup"


def version_2(limit: str = "67108864\n") -> dict[str, str]:
    micro = TICK // 1000
    return {
        "docker/abc/cpu.stat": f"usage_usec {5 * micro}\nuser_usec {2 * micro}\nsystem_usec {3 * micro}\n",
        "docker/abc/memory.max": limit,
        "docker/abc/memory.current": "2887680\n",
        "docker/abc/io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2\n8:16 rbytes=0 wbytes=1\n",
    }


def test_version_1(tmp_path: Path) -> None:
    files = {
        "cpuacct/docker/abc/cpuacct.stat": "user 2\nsystem 3\n",
        "cpuacct/docker/abc/cpuacct.usage": f"{5 * TICK}\n",
        "memory/docker/abc/memory.limit_in_bytes": "67108864\n",
        "memory/docker/abc/memory.usage_in_bytes": "2887680\n",
        "blkio/docker/abc/blkio.throttle.io_service_bytes": (
            "8:0 Read 4096\n8:0 Write 8193\n8:0 Sync 1\n8:0 Total 12289\nTotal 12289\n"
        ),
    }
    cgroup = "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n1:blkio:/docker/abc\n0::/docker/abc\n"
    assert stats.from_cgroups(7, *folders(tmp_path, cgroup, files)) == EXPECTED


def test_version_2(tmp_path: Path) -> None:
    assert stats.from_cgroups(7, *folders(tmp_path, "0::/docker/abc\n", version_2())) == EXPECTED


def test_without_a_limit_it_is_the_machine(tmp_path: Path) -> None:
    used = stats.from_cgroups(7, *folders(tmp_path, "0::/docker/abc\n", version_2("max\n")))
    assert used["mem_limit"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_control_group_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        stats.from_cgroups(7, *folders(tmp_path, "0::/docker/other\n", version_2()))


def test_what_an_engine_says() -> None:
    said = {
        "networks": {
            "eth0": {"rx_bytes": 646, "tx_bytes": 42},
            "eth1": {"rx_bytes": 4, "tx_bytes": 8},
        },
        "memory_stats": {"usage": 2887680, "limit": 67108864},
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"op": "Read", "value": 4096},
                {"op": "write", "value": 8193},
                {"op": "Total", "value": 12289},
            ]
        },
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": 5 * TICK, "usage_in_usermode": 2 * TICK, "usage_in_kernelmode": 3 * TICK,
            }
        },
    }  # fmt: skip
    assert stats.from_engine(said) == EXPECTED


def test_an_engine_says_nothing_of_what_has_ended() -> None:
    ended = {"memory_stats": {}, "cpu_stats": {"cpu_usage": {"total_usage": 0}}, "blkio_stats": None}
    assert stats.from_engine(ended) == {}
    assert stats.from_engine({}) == {}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_process_that_can_be_seen() -> None:
    sum(range(2_000_000))
    used = stats.of_process(os.getpid())
    assert used["cpu_total"] == used["cpu_user"] + used["cpu_kernel"] > 0
    assert 1 << 20 < used["mem_usage"] < used["mem_limit"]


def test_a_process_that_cannot_be_seen() -> None:
    assert stats.of_process(2**22 + 1) == {}
