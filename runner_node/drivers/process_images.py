"""Images of the process driver: folders with a func.yaml, and virtual environments for them.

``func.yaml`` is Fn's: ``runtime: python`` and an ``entrypoint`` as it would be in the container, e.g.
``/python/bin/fdk /function/func.py handler``. ``/python/bin/`` stands for the scripts of the virtual
environment, ``/function/`` for the folder.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import hashlib
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from runner_node.drivers.pulls import pulling
from shared_models import errors

log = logging.getLogger(__name__)

LAUNCHER = str(Path(__file__).with_name("launcher.py"))
DEFAULT_ENTRYPOINT = "/python/bin/fdk /function/func.py handler"
READY = ".ready"
LOCK_PAUSE = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessImage:
    """What to run: *argv* in *folder*; *venv* is the virtual environment that it needs."""

    folder: Path
    argv: tuple[str, ...]
    requirements: bytes
    venv: Path

    @property
    def ready(self) -> bool:
        """Whether the virtual environment is complete, or not needed at all."""
        needed = self.requirements.strip() or any(word.startswith(str(self.venv)) for word in self.argv)
        return not needed or (self.venv / READY).exists()


class ProcessImages:
    """The images below *root*, their environments below *venvs* (default: ``.venvs`` in *root*)."""

    def __init__(self, root: str, venvs: str, limit: float) -> None:
        self._root = Path(root).absolute() if root else None
        self._venvs = Path(venvs).absolute() if venvs else self._root and self._root / ".venvs"
        self._limit = limit
        self._installs: dict[Path, asyncio.Task[None]] = {}

    def find(self, image: str) -> ProcessImage:
        """Reads the folder that *image* names; raises ImagePullFailed with what is wrong with it.

        Registry, user and tag of the name do not count: ``registry/me/hello:0.0.1`` is ``hello``.
        """
        if self._root is None or self._venvs is None:
            raise errors.ImagePullFailed(image, "FN_PROCESS_IMAGES, the folder of images, is not set")
        name = image.split("@")[0].rsplit("/", 1)[-1].split(":")[0]
        folder = self._root / name
        try:
            if name in ("", ".", "..") or not folder.is_dir():
                raise errors.ImagePullFailed(image, f"no folder '{name}' in FN_PROCESS_IMAGES", 404)
            described = yaml.safe_load((folder / "func.yaml").read_text()) or {}
            requirements = folder / "requirements.txt"
            wanted = requirements.read_bytes() if requirements.exists() else b""
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as exc:
            reason = " ".join(str(exc).split())
            raise errors.ImagePullFailed(image, f"func.yaml cannot be read: {reason}") from exc
        key = hashlib.sha256(wanted + sys.version.encode() + sys.prefix.encode()).hexdigest()[:16]
        venv = self._venvs / key
        return ProcessImage(folder, _argv(image, described, folder, venv), wanted, venv)

    async def ensure(self, image: str) -> None:
        """Makes the virtual environment of *image*; raises ImagePullFailed with pip's last words."""
        found = self.find(image)
        if found.ready:
            return
        install = self._installs.get(found.venv)
        if install is None:
            work = self._install(image, found)
            install = self._installs[found.venv] = asyncio.create_task(work, name=f"install {image}")
            install.add_done_callback(lambda done: self._done(found.venv, done))
        await asyncio.shield(install)

    async def close(self) -> None:
        """Gives up the installations that are at work."""
        installs = list(self._installs.values())
        for install in installs:
            install.cancel()
        await asyncio.gather(*installs, return_exceptions=True)

    def _done(self, venv: Path, install: asyncio.Task[None]) -> None:
        del self._installs[venv]
        if not install.cancelled():
            install.exception()  # read, for when nobody waits any more

    async def _install(self, image: str, found: ProcessImage) -> None:
        with pulling(image):
            await self._in_time(image, found)

    async def _in_time(self, image: str, found: ProcessImage) -> None:
        try:
            async with asyncio.timeout(self._limit):
                found.venv.parent.mkdir(parents=True, exist_ok=True)
                (found.venv.parent / ".gitignore").write_text("*\n")
                with _lock_file(found.venv.with_suffix(".lock")) as descriptor:
                    # Other nodes may share the folder; a file lock has no event to wait for.
                    while not _try_lock(descriptor):  # noqa: ASYNC110
                        await asyncio.sleep(LOCK_PAUSE)
                    if not found.ready:
                        await self._make(image, found)
        except TimeoutError:
            raise errors.ImagePullFailed(image, f"not installed within {self._limit:g} s", 504) from None
        except OSError as exc:
            raise errors.ImagePullFailed(image, f"cannot install: {exc}") from exc

    async def _make(self, image: str, found: ProcessImage) -> None:
        log.info("installing the requirements of %s", image)
        await _tool(image, sys.executable, "-m", "venv", "--clear", str(found.venv))
        if found.requirements.strip():
            requirements = found.venv / "requirements.txt"
            requirements.write_bytes(found.requirements)
            pip = [str(found.venv / "bin" / "python"), "-m", "pip"]
            options = ["--quiet", "--disable-pip-version-check", "--no-input"]
            await _tool(image, *pip, "install", *options, "-r", str(requirements), cwd=str(found.folder))
        (found.venv / READY).touch()


def _argv(image: str, described: Any, folder: Path, venv: Path) -> tuple[str, ...]:
    if not isinstance(described, dict):
        raise errors.ImagePullFailed(image, "func.yaml must be a mapping")
    runtime = str(described.get("runtime", "python"))
    if not runtime.startswith("python"):
        raise errors.ImagePullFailed(image, f"the process driver runs runtime python only, not {runtime}")
    try:
        line = described.get("entrypoint") or DEFAULT_ENTRYPOINT
        words = _words(line) + _words(described.get("cmd") or [])
    except ValueError as exc:
        raise errors.ImagePullFailed(image, f"entrypoint in func.yaml: {exc}") from exc
    return tuple(_translated(word, folder, venv) for word in words)


def _words(line: object) -> list[str]:
    if isinstance(line, list):
        return [str(word) for word in line]
    return shlex.split(str(line))


def _translated(word: str, folder: Path, venv: Path) -> str:
    if word.startswith("/python/bin/"):
        return str(venv / "bin" / word.removeprefix("/python/bin/"))
    if word == "/function" or word.startswith("/function/"):
        return str(folder) + word.removeprefix("/function")
    return word


async def _tool(image: str, *argv: str, cwd: str | None = None) -> None:
    """Runs a tool to its end; raises ImagePullFailed with its last line when it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", LAUNCHER, "tool", str(os.getpid()), *argv,
        cwd=cwd, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        lines = output.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        raise errors.ImagePullFailed(image, lines[-1][:500])


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
