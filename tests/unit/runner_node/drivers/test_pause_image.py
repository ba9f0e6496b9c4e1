"""The program that waits: run here, where this machine can run it."""

from __future__ import annotations

import io
import os
import platform
import signal
import struct
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from runner_node.drivers.pause_image import archive, program

HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
LIMIT = 30.0


def waits(process: subprocess.Popen[bytes]) -> None:
    """Returns when the process is in the system call that waits for signals."""
    number = {"amd64": "128", "arm64": "137"}[HERE]
    deadline = time.monotonic() + LIMIT
    while Path(f"/proc/{process.pid}/syscall").read_text().split()[0] != number:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.skipif(not HERE, reason="no program for this machine's architecture")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_waits_until_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "pause"
    path.write_bytes(program(HERE))
    path.chmod(0o755)
    with subprocess.Popen([path]) as process:
        try:
            waits(process)
            os.kill(process.pid, signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            os.kill(process.pid, signal.SIGCONT)
            waits(process)
            process.send_signal(number)
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_its_file_is_loaded_whole_and_begun_behind_its_headers(architecture: str, machine: int) -> None:
    made = program(architecture)
    assert made[:4] == b"\x7fELF"
    kind, number = struct.unpack_from("<HH", made, 16)
    entry, segments = struct.unpack_from("<QQ", made, 24)
    assert (kind, number, segments) == (2, machine, 64)
    how, flags, offset, address, _, in_file, in_memory, _ = struct.unpack_from("<IIQQQQQQ", made, segments)
    assert (how, flags, offset) == (1, 5, 0)
    assert entry - address == 64 + 56
    assert in_file == in_memory == len(made)


def test_the_archive_has_the_program_alone() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive("amd64"))) as opened:
        (member,) = opened.getmembers()
        assert (member.name, member.mode) == ("pause", 0o755)
        extracted = opened.extractfile(member)
        assert extracted
        assert extracted.read() == program("amd64")


def test_an_unknown_architecture_has_none() -> None:
    with pytest.raises(LookupError):
        program("riscv64")
