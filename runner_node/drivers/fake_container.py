"""One scripted container inside this process: a real unix socket, or stdin and stdout, and no engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from runner_node.drivers import io_dirs
from runner_node.drivers.contract import SOCKET, Container, ContainerSpec, Exit, Sink
from runner_node.drivers.fake_behaviour import Behaviour, Request
from runner_node.drivers.fake_http import encode, read_request
from runner_node.drivers.fake_stdio import FakeStdin
from runner_node.drivers.talk import HELD, Talk
from shared_models import errors

if TYPE_CHECKING:
    from runner_node.drivers.fake import FakeDriver

KILLED = Exit(128 + 9)


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
        line, headers, data = await read_request(reader)
        request = Request(line=line, headers=headers, body=data, container=self)
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
        head, body = encode(answer)
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
