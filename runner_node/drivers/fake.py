"""Scripted containers inside this process, for tests: real unix sockets, no engine.

A ``Behaviour`` says what happens to containers of an image. What a container serves is the http-stream
contract: ``POST /call``, one call after another on a connection; or, with ``ContainerSpec.stdio``, its
stdin, where each piece that is written counts as one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

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
from runner_node.drivers.fake_stdio import FakeStdin
from runner_node.drivers.talk import HELD, Talk
from shared_models import errors
from shared_models.image_policy import MISSING

FAILED = Exit(1)
KILLED = Exit(128 + 9)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call as the function sees it; header names in lower case."""

    line: str
    headers: Mapping[str, str]
    body: bytes
    container: FakeContainer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the function answers; *log* is written to its output first."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/octet-stream"),)
    body: bytes = b""
    log: bytes = b""


def echo(request: Request) -> Answer:
    """The default function: the body comes back."""
    return Answer(body=request.body)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What happens, in the order in which it happens. Counts are of calls, beginning with 1."""

    pull_error: errors.FnError | None = None
    start_error: errors.FnError | None = None
    output: bytes = b""
    """Written when it starts."""
    exits_at_start: Exit | None = None
    socket: str = "listens"
    """``listens``, ``links`` (a link to the socket, as the FDKs make it), ``file``, or ``never``."""
    start_delay: float = 0.0
    """Seconds until there is a socket."""
    function: Callable[[Request], Answer] = echo
    call_delay: float = 0.0
    hangs: bool = False
    """Takes calls and never answers."""
    garbage: bytes = b""
    """Sent instead of an answer; then the connection is closed."""
    exits_in_call: int = 0
    """The call in the middle of whose answer it exits."""
    exits_after: int = 0
    """The call after whose answer it exits."""
    exit: Exit = FAILED
    """How it exits in or after a call."""
    stdio: Callable[[bytes], bytes] = bytes
    """What it says on stdout to each piece of stdin; to ``b""``, the end, before it exits with 0."""
    sample: Mapping[str, int] = dataclasses.field(default_factory=dict)


class FakeDriver(ContainerDriver):
    """Made by ``open_fake``. An image that has no behaviour is not there.

    A test may set ``down`` to the reason for which the engine does not answer, and add behaviours.
    """

    capabilities = Capabilities(freeze=True, isolates=False)

    def __init__(self, behaviours: Mapping[str, Behaviour], folder: str) -> None:
        self.behaviours = dict(behaviours)
        self.down = ""
        self.pulls: list[str] = []
        self.containers: list[FakeContainer] = []
        self.started = self.frozen = self.unfrozen = self.removed = 0
        self._folder = folder

    @property
    def alive(self) -> list[FakeContainer]:
        """Containers that have neither ended nor been removed."""
        return [container for container in self.containers if container.running]

    async def ping(self) -> None:
        if self.down:
            raise errors.EngineUnavailable(detail=self.down)

    async def ensure_image(self, image: str, pull: str = MISSING) -> None:
        await self.ping()
        self.pulls.append(image)
        behaviour = self.behaviours.get(image)
        if behaviour is None:
            raise errors.ImagePullFailed(image, "no such image", 404)
        if behaviour.pull_error:
            raise behaviour.pull_error

    async def start(self, spec: ContainerSpec, sink: Sink, talk: Sink | None = None) -> Container:
        await self.ping()
        behaviour = self.behaviours.get(spec.image)
        if behaviour is None:
            raise errors.ContainerInitFailed(detail=f"no such image: {spec.image}")
        if behaviour.start_error:
            raise behaviour.start_error
        io_dir = "" if spec.stdio else io_dirs.make(os.path.join(self._folder, spec.id))
        container = FakeContainer(self, spec, behaviour, io_dir, sink, talk)
        self.containers.append(container)
        self.started += 1
        return container

    async def close(self) -> None:
        """Removes the containers that are left."""
        for container in self.containers:
            await container.remove()


class FakeContainer(Container):
    """Runs from its making on; ``spec`` is what it was asked for, ``calls`` how many it took."""

    def __init__(
        self, driver: FakeDriver, spec: ContainerSpec, behaviour: Behaviour, io_dir: str, sink: Sink,
        talk: Sink | None,
    ) -> None:  # fmt: skip
        self.id = spec.id
        self.io_dir = io_dir
        self.spec = spec
        self.calls = 0
        self.frozen = False
        self._driver = driver
        self._behaviour = behaviour
        self._sink = sink
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._stdin = FakeStdin(self._exit)
        self._talk = Talk(talk)
        self._heard = asyncio.Event()
        self._heard.set()
        self._removed = False
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._main = asyncio.create_task(self._run(), name=f"fake {spec.id}")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._exit.done()

    def log(self, data: bytes) -> None:
        """Writes to its output (with stdio: to stderr), as the function would."""
        self._sink(data)

    def say(self, data: bytes) -> None:
        """Writes to stdout, as a function with stdio would."""
        self._talk.feed(data)

    def end(self, how: Exit) -> None:
        """Ends it now, as if by itself."""
        if self._exit.done():
            return
        self._main.cancel()
        self.hang_up()
        current = asyncio.current_task()
        for connection in self._connections:
            if connection is not current:
                connection.cancel()
        self._exit.set_result(how)
        if self.spec.stdio:
            self._talk.end()

    def hang_up(self) -> None:
        """Closes its socket and its connections, and runs on."""
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def freeze(self) -> None:
        await self._driver.ping()
        if self.running and not self.frozen:
            self.frozen = True
            self._driver.frozen += 1
            self._thawed.clear()

    async def unfreeze(self) -> None:
        await self._driver.ping()
        if self.frozen:
            self.frozen = False
            self._driver.unfrozen += 1
            self._thawed.set()

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def drain_output(self) -> None:
        """Output reaches the sink at once."""

    async def write(self, data: bytes) -> None:
        if not self.spec.stdio:
            raise errors.FunctionResponseError(detail="stdin is closed")
        await self._stdin.write(data)

    async def close_stdin(self) -> None:
        await self._stdin.close()

    def pause_talk(self) -> None:
        self._talk.pause()
        self._heard.clear()

    def resume_talk(self) -> None:
        self._talk.resume()
        if not self._talk.paused:
            self._heard.set()

    async def sample(self) -> dict[str, int]:
        return dict(self._behaviour.sample) if self.running else {}

    async def remove(self) -> None:
        if self._removed:
            return
        self._removed = True
        self.end(KILLED)
        await asyncio.gather(self._main, *self._connections, return_exceptions=True)
        if self.spec.stdio:
            self._talk.close()
        else:
            io_dirs.remove(self.io_dir)
        self._driver.removed += 1

    async def _run(self) -> None:
        behaviour = self._behaviour
        if behaviour.output:
            self._sink(behaviour.output)
        if behaviour.exits_at_start:
            self.end(behaviour.exits_at_start)
            return
        await asyncio.sleep(behaviour.start_delay)
        if self.spec.stdio:
            await self._serve_stdin()
            return
        path = os.path.join(self.io_dir, SOCKET)
        if behaviour.socket == "file":
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
        elif behaviour.socket == "links":
            self._server = await asyncio.start_unix_server(self._connected, f"{self.io_dir}/phony{SOCKET}")
            os.symlink(f"phony{SOCKET}", path)
        elif behaviour.socket == "listens":
            self._server = await asyncio.start_unix_server(self._connected, path)

    async def _serve_stdin(self) -> None:
        """Piece after piece, until it ends itself."""
        behaviour = self._behaviour
        while True:
            piece = await self._stdin.read()
            await self._thawed.wait()
            if not piece:
                self._talk.feed(behaviour.stdio(b""))
                self.end(Exit(0))
                return
            self.calls += 1
            if behaviour.hangs:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(behaviour.call_delay)
            answer = behaviour.garbage or behaviour.stdio(piece)
            exits = self.calls == behaviour.exits_in_call
            self._talk.feed(answer[: len(answer) // 2] if exits else answer)
            if exits or self.calls == behaviour.exits_after:
                self.end(behaviour.exit)
                return
            if self._talk.held > HELD:
                await self._heard.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while await self._serve(reader, writer):
                    pass
        finally:
            self._connections.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One call; whether another may follow."""
        behaviour = self._behaviour
        request = await _read_request(reader, self)
        await self._thawed.wait()
        self.calls += 1
        if behaviour.hangs:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(behaviour.call_delay)
        if behaviour.garbage:
            writer.write(behaviour.garbage)
            await writer.drain()
            return False
        answer = behaviour.function(request)
        if answer.log:
            self._sink(answer.log)
        head, body = _encode(answer)
        if self.calls == behaviour.exits_in_call:
            writer.write(head + body[: len(body) // 2])
            await writer.drain()
            self.end(behaviour.exit)
            return False
        writer.write(head + body)
        await writer.drain()
        if self.calls == behaviour.exits_after:
            writer.close()
            await writer.wait_closed()
            self.end(behaviour.exit)
            return False
        return True


async def _read_request(reader: asyncio.StreamReader, container: FakeContainer) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for field in head[1:]:
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    headers.pop("", None)
    return Request(line=head[0], headers=headers, body=body, container=container)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readline() not in (b"\r\n", b""):
        pass
    return body


def _encode(answer: Answer) -> tuple[bytes, bytes]:
    lines = [f"HTTP/1.1 {answer.status} Status"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += [f"Content-Length: {len(answer.body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1"), answer.body


@asynccontextmanager
async def open_fake(behaviours: Mapping[str, Behaviour]) -> AsyncIterator[FakeDriver]:
    """A driver whose images are the keys of *behaviours*."""
    with tempfile.TemporaryDirectory(prefix="fn-") as folder:
        driver = FakeDriver(behaviours, folder)
        try:
            yield driver
        finally:
            await driver.close()
