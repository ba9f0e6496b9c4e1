"""What ``make run`` starts, as a newcomer sees it: the printed commands work, and Ctrl-C ends everything."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.engine.packages import Missing, missing, need
from tests.servers.ports import free_port

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for left processes in /proc"),
]

ROOT = Path(__file__).parents[2]
START = 240.0
"""Seconds until everything must be ready; the function's own virtual environment takes most of it."""
STOP = 60.0
_SUBREAPER = 36


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Orphans of what a test starts become our children for its time, so that none can hide."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_SUBREAPER, 1)
    before = _children()
    yield
    left = _children() - before
    described = {pid: _command(pid) for pid in left}
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    prctl(_SUBREAPER, 0)
    # A process that has ended and that nobody has waited for yet is not at work.
    assert not {pid: command for pid, command in described.items() if command}


def _children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def _free_ports() -> tuple[int, int]:
    return free_port(), free_port()


class Run:
    """A running ``deploy.run`` with all that it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process, ports: tuple[int, int]) -> None:
        self.process = process
        self.ports = ports
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def until(self, pattern: str, seconds: float) -> None:
        """Reads on until a line has *pattern*; fails with all lines when that does not happen."""
        assert self.process.stdout
        try:
            async with asyncio.timeout(seconds):
                while line := (await self.process.stdout.readline()).decode():
                    self.lines.append(line.rstrip("\n"))
                    if re.search(pattern, line):
                        return
        except TimeoutError:
            pytest.fail(f"no {pattern!r} within {seconds} s in:\n{self.text}")
        pytest.fail(f"ended without {pattern!r}:\n{self.text}")

    async def ended(self, seconds: float = STOP) -> int:
        """The exit code, with the rest of the output read."""
        assert self.process.stdout
        async with asyncio.timeout(seconds):
            rest = await self.process.stdout.read()
            self.lines += rest.decode().splitlines()
            return await self.process.wait()

    def commands(self) -> list[str]:
        return [line.strip() for line in self.lines if line.startswith("  ") and "curl" in line]


@pytest.fixture(scope="module", autouse=True)
def shared_venvs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The example's own virtual environment is made once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FN_PROCESS_VENVS", str(tmp_path_factory.mktemp("venvs")))
        yield


@asynccontextmanager
async def running(data: Path, ports: tuple[int, int] | None = None) -> AsyncIterator[Run]:
    ports = ports or _free_ports()
    arguments = ["--data", str(data), "--port", str(ports[0]), "--runner-port", str(ports[1])]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.run", *arguments,
        cwd=ROOT, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    run = Run(process, ports)
    try:
        yield run
    finally:
        if process.returncode is None:
            process.kill()
        await run.ended()


async def shell(command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return output.decode()


async def test_the_three_printed_commands_work_and_ctrl_c_ends_everything(tmp_path: Path) -> None:
    try:
        need("curl", "curl")
    except Missing as exc:
        missing(str(exc))
    async with running(tmp_path / "data") as run:
        await run.until("Ctrl-C", START)
        assert [
            line for line in run.lines if re.search(" (warn|error) ", line) and "NOT isolated" not in line
        ] == []
        invoke, trigger, detached = run.commands()
        assert json.loads(await shell(invoke)) == {"message": "Hello Ada"}
        assert json.loads(await shell(trigger)) == {"message": "Hello World"}
        record, _, log = (await shell(detached)).partition("\n")
        assert json.loads(record)["status"] == "success", record
        assert json.loads(record)["id"] in log
        run.process.send_signal(signal.SIGINT)
        assert await run.ended() == 0, run.text
    assert "Traceback" not in run.text
    assert "is killed" not in run.text


async def test_running_again_keeps_the_data(tmp_path: Path) -> None:
    commands = []
    for number in (signal.SIGTERM, signal.SIGINT):
        async with running(tmp_path / "data") as run:
            await run.until("Ctrl-C", START)
            commands.append(re.findall(r"/invoke/(\w+)", run.text))
            run.process.send_signal(number)
            assert await run.ended() == 0, run.text
    assert commands[0] == commands[1]


async def test_a_second_signal_ends_everything_at_once_and_is_told_as_the_reason(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as run:
        await run.until("Ctrl-C", START)
        run.process.send_signal(signal.SIGINT)
        run.process.send_signal(signal.SIGTERM)
        assert await run.ended() == 0, run.text
    assert "the runner node is killed: asked for with a second signal" in run.text
    assert "did not end in" not in run.text


@pytest.mark.parametrize("victim", ["api", "runner"])
async def test_when_one_node_ends_the_other_is_stopped_and_the_reason_is_told(
    tmp_path: Path, victim: str
) -> None:
    async with running(tmp_path / "data") as run:
        await run.until("Ctrl-C", START)
        (pid,) = [pid for pid in _children_of(run.process.pid) if _command(pid).endswith(f"deploy {victim}")]
        os.kill(pid, signal.SIGKILL)
        assert await run.ended() == 1
    assert f"the {victim} node ended by itself (signal SIGKILL)" in run.text


async def test_a_killed_run_leaves_no_node_behind(tmp_path: Path) -> None:
    known = _children()
    async with running(tmp_path / "data") as run:
        await run.until("Ctrl-C", START)
        run.process.kill()
        await run.ended()
        # First the nodes, then whatever they in turn leave to us.
        while orphans := _children() - known:
            await asyncio.wait_for(asyncio.gather(*map(_gone, orphans)), STOP)


async def _gone(pid: int) -> None:
    """Returns when our child *pid* has ended, and forgets it."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended, there is nothing to wait for
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with running(tmp_path / "data", (port, _free_ports()[0])) as run:
            assert await run.ended() == 1
    assert len(run.lines) == 1
    assert f"port {port} is taken" in run.text


def _children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
