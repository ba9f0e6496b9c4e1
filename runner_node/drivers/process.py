"""Functions as plain processes of the node's user, for development: nothing keeps them apart."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from runner_node.drivers import io_dirs
from runner_node.drivers.contract import (
    SOCKET,
    Capabilities,
    Container,
    ContainerDriver,
    ContainerSpec,
    Exit,
    Sink,
)
from runner_node.drivers.process_images import LAUNCHER, ProcessImage, ProcessImages
from runner_node.drivers.settings import DriverSettings
from shared_models import errors

log = logging.getLogger(__name__)

MARK = "FN_NODE"
"""The environment variable by which a node finds the processes that an earlier run of it left."""
PATH = "/usr/local/bin:/usr/bin:/bin"
LONGEST_ADDRESS = 107
"""Bytes that the address of a unix socket may have."""
LONGEST_NAME = "0" * 26 + "/io/phony" + SOCKET
PIECE = 65536


class ProcessDriver(ContainerDriver):
    """Made by ``open_process``."""

    capabilities = Capabilities(freeze=True, isolates=False)

    def __init__(self, images: ProcessImages, node_id: str, folder: str) -> None:
        self._images = images
        self._node_id = node_id
        self._folder = folder
        self._containers: set[ProcessContainer] = set()

    async def ping(self) -> None:
        """There is no engine that could be away."""

    async def ensure_image(self, image: str) -> None:
        await self._images.ensure(image)

    async def start(self, spec: ContainerSpec, sink: Sink) -> Container:
        try:
            image = self._images.find(spec.image)
        except errors.ImagePullFailed as exc:
            raise errors.ContainerInitFailed(detail=exc.message) from exc
        home = os.path.join(self._folder, spec.id)
        try:
            io_dir = io_dirs.make(os.path.join(home, "io"))
            environ = _environment(spec, image, home, io_dir, self._node_id)
            container = ProcessContainer(spec.id, io_dir, home, image, environ, sink)
        except OSError as exc:
            io_dirs.remove(home)
            raise errors.ContainerInitFailed(detail=str(exc)) from exc
        self._containers.add(container)
        container.on_removed = lambda: self._containers.discard(container)
        return container

    async def close(self) -> None:
        """Ends the processes and installations that are left."""
        await asyncio.gather(*(container.remove() for container in self._containers), self._images.close())


class ProcessContainer(Container):
    """A running process with a session, a process group and an output pipe of its own."""

    def __init__(
        self, id_: str, io_dir: str, home: str, image: ProcessImage, environ: Mapping[str, str], sink: Sink
    ) -> None:
        self.id = id_
        self.io_dir = io_dir
        self.on_removed: Callable[[], object] = lambda: None
        self._home = home
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._pipe, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
        try:
            os.set_blocking(self._pipe, False)
            os.set_blocking(write_end, True)
            # In the loop's thread: the launcher asks to die with the thread that started it.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", LAUNCHER, "function", str(os.getpid()), *image.argv],
                cwd=image.folder, env=environ, stdin=subprocess.DEVNULL, stdout=write_end, stderr=write_end,
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        self._loop.add_reader(self._pipe, self._read)
        self._watch()

    async def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    async def unfreeze(self) -> None:
        self._signal(signal.SIGCONT)

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def drain_output(self) -> None:
        self._drain()

    async def remove(self) -> None:
        self._signal(signal.SIGKILL)
        await self.wait()
        self._close_pipe()
        io_dirs.remove(self._home)
        self.on_removed()

    def _signal(self, number: signal.Signals) -> None:
        # The process is not reaped before _ended, so that its number cannot be another's by now.
        if not self._exit.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _watch(self) -> None:
        """Calls ``_ended`` on the loop when the process has ended."""
        if hasattr(os, "pidfd_open"):
            descriptor = os.pidfd_open(self._process.pid)
            self._loop.add_reader(descriptor, self._on_pidfd, descriptor)
        else:
            threading.Thread(target=self._wait_in_thread, name=f"wait {self.id}", daemon=True).start()

    def _on_pidfd(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._ended()

    def _wait_in_thread(self) -> None:
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            self._loop.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        # What it started must not outlive it.
        self._signal(signal.SIGKILL)
        code = self._process.wait()
        self._drain()
        self._exit.set_result(Exit(code if code >= 0 else 128 - code))

    def _read(self) -> None:
        """The loop's call when the pipe has something to read."""
        try:
            data = os.read(self._pipe, PIECE)
        except BlockingIOError:
            return
        if data:
            self._sink(data)
        else:
            self._close_pipe()

    def _drain(self) -> None:
        """Reads what is in the pipe now, and no more than that."""
        if self._pipe < 0:
            return
        waiting = array.array("i", [0])
        fcntl.ioctl(self._pipe, termios.FIONREAD, waiting)
        left = waiting[0]
        while left > 0 and (data := os.read(self._pipe, left)):
            left -= len(data)
            self._sink(data)

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1


def _environment(
    spec: ContainerSpec, image: ProcessImage, home: str, io_dir: str, node_id: str
) -> dict[str, str]:
    """All that the function sees: nothing of the node's own environment."""
    return {
        "PATH": f"{image.venv / 'bin'}:{PATH}",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        # So that what a function prints is in the log of the call that printed it.
        "PYTHONUNBUFFERED": "1",
        **spec.env,
        "FN_LISTENER": f"unix:{io_dir}/{SOCKET}",
        MARK: node_id,
    }


def sweep(node_id: str) -> int:
    """Kills what an earlier run of this node left; how many processes that were. Linux only."""
    mark = f"{MARK}={node_id}".encode()
    killed = 0
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        # A descriptor keeps the number from meaning another process between look and kill.
        with contextlib.suppress(OSError), _pidfd(int(entry.name)) as descriptor:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                killed += 1
    return killed


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@asynccontextmanager
async def open_process(settings: DriverSettings, node_id: str) -> AsyncIterator[ContainerDriver]:
    """A driver that runs folders of ``settings.process_images``; kills what an earlier run left."""
    log.warning("functions run as plain processes (FN_DRIVER=process): they are NOT isolated")
    if hasattr(os, "pidfd_open") and (left := sweep(node_id)):
        log.warning("killed %d processes that an earlier run of this node left", left)
    with io_dirs.node_folder(settings.iofs_path, node_id) as folder:
        if len(os.path.join(folder, LONGEST_NAME).encode()) > LONGEST_ADDRESS:
            raise ValueError(f"FN_IOFS_PATH is too long for the address of a unix socket: {folder}")
        driver = ProcessDriver(
            ProcessImages(settings.process_images, settings.process_venvs, settings.pull_timeout),
            node_id,
            folder,
        )
        try:
            yield driver
        finally:
            await driver.close()
