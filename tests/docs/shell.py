"""One shell per page, in a copy of the checkout: variables and files stay from one block to the next."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.docs.pages import ROOT, Block
from tests.servers.ports import free_port

LIMIT = 240.0
"""Seconds for one block; the first call of a function makes its virtual environment."""
PORTS = ("8080", "8081", "9000")
"""Those of the pages: here they are others."""
_LEFT_OUT = shutil.ignore_patterns(
    ".git",
    ".venv",
    ".venvs",
    "data",
    "build",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".test-cache",
    ".hypothesis",
)


class Shell:
    """Ports of the pages are others here, so that several pages may be tried at once."""

    def __init__(self, folder: Path, bash: asyncio.subprocess.Process, ports: dict[str, str]) -> None:
        self._folder = folder
        self._bash = bash
        self._ports = ports
        self._behind: list[asyncio.subprocess.Process] = []
        self._number = 0

    async def run(self, block: Block) -> str:
        """What *block* printed; fails unless it ends with 0 and prints what the page says."""
        self._number += 1
        script = self._folder / f".block-{self._number}.sh"
        script.write_text(self._with_ports(block.text))
        done = f"-- block {self._number} is done --"
        assert self._bash.stdin
        self._bash.stdin.write(f'. ./{script.name}; echo; echo "{done}"\n'.encode())
        output = await self._read_until(self._bash, re.escape(done), block)
        output = output.removesuffix(done + "\n").rstrip("\n")
        assert _matches(self._with_ports(block.prints), output), f"line {block.line} printed:\n{output}"
        return output

    async def start(self, block: Block) -> None:
        """Returns when *block*, which goes on, has printed what the page says."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-euc", self._with_ports(block.text), cwd=self._folder, env=environ(self._ports),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._behind.append(process)
        await self._read_until(process, _pattern(self._with_ports(block.prints)), block)

    async def interrupt(self) -> None:
        """Ends what goes on, as Ctrl-C would."""
        while self._behind:
            process = self._behind.pop()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            with suppress(TimeoutError):
                async with asyncio.timeout(60):
                    # Not wait(): that waits for what its jobs in the background may still write.
                    while process.returncode is None:
                        await asyncio.sleep(0.05)
            _kill(process)
            await process.communicate()

    async def close(self) -> None:
        """Ends everything."""
        await self.interrupt()
        _kill(self._bash)
        await self._bash.communicate()

    async def _read_until(self, process: asyncio.subprocess.Process, pattern: str, block: Block) -> str:
        assert process.stdout
        output = ""
        try:
            async with asyncio.timeout(LIMIT):
                while line := (await process.stdout.readline()).decode("utf-8", "replace"):
                    output += line
                    if re.search(pattern, output):
                        return output
        except TimeoutError:
            raise AssertionError(f"line {block.line} takes too long:\n{output}") from None
        raise AssertionError(f"line {block.line} failed:\n{block.text}\n{output}")

    def _with_ports(self, text: str) -> str:
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda port: self._ports[port[0]], text)


def environ(ports: dict[str, str]) -> dict[str, str]:
    """Of a reader who has nothing set; ``make run`` takes the ports of this page."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("FN_", "DOCKER_", "MAKE"))
    }
    # make hands variables of its command line on in this way.
    return {**kept, "MAKEFLAGS": f" -- RUNNER_PORT={ports['8081']} PORT={ports['8080']}"}


@asynccontextmanager
async def open_shell(folder: Path) -> AsyncIterator[Shell]:
    """A shell in a copy of the checkout that shares its virtual environment."""
    checkout = folder / "fn-hybrid"
    shutil.copytree(ROOT, checkout, ignore=_LEFT_OUT)
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    for requirements in ("pyproject.toml", "constraints.txt"):
        # Older than the stamps of the shared environment, which must not be installed again from a copy.
        os.utime(checkout / requirements, (0, 0))
    ports = {name: str(free_port()) for name in PORTS}
    bash = await asyncio.create_subprocess_exec(
        "bash", "-eu", "-o", "pipefail", cwd=checkout, env=environ(ports),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    shell = Shell(checkout, bash, ports)
    try:
        yield shell
    finally:
        await shell.close()


def _kill(process: asyncio.subprocess.Process) -> None:
    """With all that it began, such as a job in its background."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _pattern(prints: str) -> str:
    return r"[\s\S]*?".join(re.escape(part.strip("\n")) for part in prints.split("..."))


def _matches(prints: str, output: str) -> bool:
    return not prints or re.fullmatch(rf"\s*{_pattern(prints.strip())}\s*", output) is not None
