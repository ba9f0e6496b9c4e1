"""Functions as plain processes of the node's user, for development: nothing keeps them apart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from runner_node.drivers import io_dirs, stats
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
from runner_node.drivers.process_pipes import OutputPipe
from runner_node.drivers.settings import DriverSettings
from runner_node.drivers.stdin import Stdin
from runner_node.drivers.talk import Talk
from shared_models import errors
from shared_models.image_policy import MISSING

log = logging.getLogger(__name__)

MARK = "FN_NODE"
"""The environment variable by which a node finds the processes that an earlier run of it left."""
PATH = "/usr/local/bin:/usr/bin:/bin"
LONGEST_ADDRESS = 107
"""Bytes that the address of a unix socket may have."""
LONGEST_NAME = "0" * 26 + "/io/phony" + SOCKET


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

    async def ensure_image(self, image: str, pull: str = MISSING) -> None:
        await self._images.ensure(image)

    async def start(self, spec: ContainerSpec, sink: Sink, talk: Sink | None = None) -> Container:
        try:
            image = self._images.find(spec.image)
        except errors.ImagePullFailed as exc:
            raise errors.ContainerInitFailed(detail=exc.message) from exc
        home = os.path.join(self._folder, spec.id)
        try:
            io_dir = io_dirs.make(os.path.join(home, "io"))  # its home, too, is made thereby
            environ = _environment(spec, image, home, io_dir, self._node_id)
            container = ProcessContainer(spec, io_dir, home, image, environ, sink, talk)
        except OSError as exc:
            io_dirs.remove(home)
            raise errors.ContainerInitFailed(detail=exc.strerror or str(exc)) from exc
        except ValueError as exc:  # of its environment, which no program can have
            io_dirs.remove(home)
            raise errors.ContainerInitFailed(detail=f"config: {exc}") from exc
        self._containers.add(container)
        container.on_removed = lambda: self._containers.discard(container)
        return container

    async def close(self) -> None:
        """Ends the processes and installations that are left."""
        await asyncio.gather(*(container.remove() for container in self._containers), self._images.close())


class ProcessContainer(Container):
    """A running process with a session, a process group and pipes of its own."""

    def __init__(
        self, spec: ContainerSpec, io_dir: str, home: str, image: ProcessImage, environ: Mapping[str, str],
        sink: Sink, talk: Sink | None,
    ) -> None:  # fmt: skip
        self.id = spec.id
        self.io_dir = "" if spec.stdio else io_dir
        self.on_removed: Callable[[], object] = lambda: None
        self._home = home
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._talk = Talk(talk)
        self._stdin: Stdin | None = None
        self._stdout: OutputPipe | None = None
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            reads, err = _pipe(ours, theirs)
            says, out = _pipe(ours, theirs) if spec.stdio else (-1, err)
            inlet, writes = _pipe(theirs, ours) if spec.stdio else (subprocess.DEVNULL, -1)
            # In the loop's thread: the launcher asks to die with the thread that started it.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", LAUNCHER, "function", str(os.getpid()), *image.argv],
                cwd=image.folder, env=environ, stdin=inlet, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
            ours.pop_all()
        self._output = OutputPipe(reads, sink)
        if spec.stdio:
            self._stdin = Stdin(writes)
            self._stdout = OutputPipe(says, self._talk.feed, self._talk.end)
        self._watch()

    async def write(self, data: bytes) -> None:
        if self._stdin is None:
            raise errors.FunctionResponseError(detail="stdin is closed")
        await self._stdin.write(data)

    async def close_stdin(self) -> None:
        if self._stdin:
            await self._stdin.close()

    def pause_talk(self) -> None:
        self._talk.pause()
        if self._stdout:
            self._stdout.pause()

    def resume_talk(self) -> None:
        self._talk.resume()
        if self._stdout and not self._talk.paused:
            self._stdout.resume()
            if self._exit.done():
                self._end_talk()

    async def sample(self) -> dict[str, int]:
        return {} if self._exit.done() else stats.of_process(self._process.pid)

    async def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    async def unfreeze(self) -> None:
        self._signal(signal.SIGCONT)

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def drain_output(self) -> None:
        self._output.drain()

    async def remove(self) -> None:
        self._signal(signal.SIGKILL)
        await self.wait()
        self._output.close()
        if self._stdout:
            self._stdout.close()
        self._talk.close()
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
        self._output.drain()
        if self._stdin:
            self._stdin.abandon()
        if self._stdout and not self._talk.paused:
            self._end_talk()
        self._exit.set_result(Exit(code if code >= 0 else 128 - code))

    def _end_talk(self) -> None:
        """The function has ended: what is in the pipe is all that it said."""
        assert self._stdout is not None
        self._stdout.drain()
        self._stdout.close()
        self._talk.end()


def _pipe(of_reader: contextlib.ExitStack, of_writer: contextlib.ExitStack) -> tuple[int, int]:
    """The reading and the writing end of a new pipe, each closed by the stack of its owner."""
    reader, writer = os.pipe()
    of_reader.callback(os.close, reader)
    of_writer.callback(os.close, writer)
    return reader, writer


def _environment(
    spec: ContainerSpec, image: ProcessImage, home: str, io_dir: str, node_id: str
) -> dict[str, str]:
    """All that the function sees: nothing of the node's own environment."""
    listener = {} if spec.stdio else {"FN_LISTENER": f"unix:{io_dir}/{SOCKET}"}
    return {
        "PATH": f"{image.venv / 'bin'}:{PATH}",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        # So that what a function prints is in the log of the call that printed it.
        "PYTHONUNBUFFERED": "1",
        **spec.env,
        **listener,
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
