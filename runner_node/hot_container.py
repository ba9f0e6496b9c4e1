"""One container's life.

    starting -> idle <-> busy        a call takes an idle container and brings it back
                idle -> freezing -> frozen -> unfreezing -> busy
    any of them -> gone              exited, retired, ejected, idle for too long

Which state may follow which is in ``container_states``; all that changes ``state`` goes through ``_to``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable

from runner_node import exits, function_socket
from runner_node.calls import Target
from runner_node.container_states import TRANSITIONS, State
from runner_node.drivers.contract import SOCKET, Container, ContainerDriver, ContainerSpec, Exit
from runner_node.func_logs import CallLog
from runner_node.function_socket import Body, FunctionSocket, Heard, SocketNotReady
from runner_node.notes import Notes
from runner_node.protocols.contract import AnswerParser
from runner_node.protocols.http_stream import ResponseParser
from runner_node.reasons import End, NeverReached, end_in_function
from runner_node.secret_files import SecretFiles
from runner_node.settings import AgentSettings
from runner_node.sinks import Sink
from runner_node.stdio_line import StdioLine
from shared_models import errors, image_policy, times
from shared_models.call import Stat
from shared_models.ids import new_id

log = logging.getLogger(__name__)

FIRST_LOOK = 0.002
LONGEST_LOOK = 0.02
LOOKS = 20
"""Seconds between two looks for a function's socket, at least and at most. In between they are this part of
the time that it has taken so far: it is seen late by a fortieth of that on average, quick or slow."""
LAST_WORDS = 0.5
"""Seconds that a container gets to end after it has cut its answer short."""
ENDING = 5.0
"""The same where its stdout has ended as well: a machine that is busy takes a while to tell."""
EXPLAINS = 1.0
"""Seconds that a container gets to end after its connection broke; then something else broke it."""


class StartFailed(Exception):
    """*error* is what the caller is told, *output* what the container wrote before it failed."""

    def __init__(self, error: errors.FnError, output: bytes) -> None:
        self.error = error
        self.output = output
        super().__init__(error.message)


class HotContainer:
    """Made by ``start``. *on_gone* is called once, when no call may use it any more."""

    def __init__(
        self, target: Target, settings: AgentSettings, on_gone: Callable[[HotContainer], None]
    ) -> None:
        self.target = target
        self.state = State.STARTING
        self.idle_since = 0.0
        self.times = (0.0, 0.0, 0.0)
        """When its start began, when its image was there, when it could be called, in unix seconds."""
        self.kept: Callable[[], bool] = lambda: False
        """Whether it stays when it has been idle for too long."""
        self._settings = settings
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._container: Container | None = None
        self._socket: FunctionSocket | None = None
        self._notes = Notes(settings.max_log_size)
        self._line = StdioLine(self._noise)
        self._timer: asyncio.TimerHandle | None = None
        self._freezer: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._exit: Exit | None = None

    @property
    def alive(self) -> bool:
        """Whether calls may still use it."""
        return self.state is not State.GONE

    # -- start -----------------------------------------------------------------------------

    async def start(self, driver: ContainerDriver, node_id: str, secrets: SecretFiles) -> None:
        """Pulls, creates, starts, and waits for the socket; raises StartFailed, leaving nothing behind."""
        target = self.target
        spec = ContainerSpec(
            id=new_id(), image=target.image, env=target.env, memory=target.memory, cpus=target.cpus,
            tmpfs_size=target.tmpfs_size,
            labels={"fn.hybrid.app": target.app_id, "fn.hybrid.fn": target.fn_id},
            stdio=target.format is not None,
        )  # fmt: skip
        asked = time.time()
        try:
            await driver.ensure_image(target.image, image_policy.pull(target.annotations))
            pulled = time.time()
            env = await secrets.resolved(target)
            spec = dataclasses.replace(spec, env={**env, **target.said})
            self._container = await driver.start(spec, self._output, self._line.output)
            self._watcher = asyncio.create_task(self._watch(self._container), name=f"watch {spec.id}")
            if spec.stdio:
                self._to(State.IDLE)
            else:
                await self._until_ready(self._container)
            self.times = (asked, pulled, time.time())
        except errors.FnError as exc:
            if self._container:
                await self._container.drain_output()
            await self._dispose()
            raise StartFailed(exc, self._notes.close()) from exc
        except BaseException:
            await self._dispose()
            raise

    async def _until_ready(self, container: Container) -> None:
        assert self._watcher is not None
        begun = self._loop.time()
        while True:
            try:
                self._socket = await function_socket.connect(container.io_dir, SOCKET)
                self._to(State.IDLE)
                return
            except SocketNotReady:
                pass
            if self._exit is not None:
                raise errors.ContainerInitFailed(detail=exits.how(self._exit))
            waited = self._loop.time() - begun
            if waited >= self._settings.start_timeout:
                raise errors.ContainerInitTimedOut(
                    detail=f"no socket within {self._settings.start_timeout:g} s"
                )
            pause = min(max(waited / LOOKS, FIRST_LOOK), LONGEST_LOOK)
            await asyncio.wait({self._watcher}, timeout=pause)

    async def _watch(self, container: Container) -> None:
        self._exit = await container.wait()
        if self.state in (State.STARTING, State.GONE):
            return
        expected = logging.DEBUG if self.target.cold else logging.INFO
        log.log(expected, "container of %s ended by itself: %s", self._name(), exits.how(self._exit))
        if self.state is not State.BUSY:
            self.retire()

    # -- calls -----------------------------------------------------------------------------

    def begin(self, call_log: CallLog) -> None:
        """What the function writes from now on belongs to *call_log*."""
        self._notes.begin(call_log)

    def disown(self) -> None:
        """What the function writes from now on belongs to no call: it did not get the one that began."""
        nobody = CallLog(1)
        nobody.close()
        self._notes.begin(nobody)

    async def call(
        self, head: bytes, body: Body, parser: ResponseParser, timeout: float, sink: Sink | None = None
    ) -> None:
        """Returns when *parser* is done, and *sink* has what of it was ``streamed``.

        Raises CallTimedOut after *timeout* seconds, NeverReached when nothing was sent, or a BadFunction.
        """
        try:
            async with asyncio.timeout(timeout):
                if self._socket is None or not self._socket.usable():
                    await self._connect_again()
                assert self._socket is not None
                await self._socket.call(head, body, parser, sink)
        except TimeoutError:
            raise errors.CallTimedOut(detail=f"no answer within {timeout:g} s") from None

    @property
    def ended(self) -> bool:
        """Whether it is known to run no more, though the call that has it may not have come to its end."""
        return self._exit is not None

    @property
    def connected(self) -> bool:
        """Whether a call can be sent at once."""
        return self._socket is not None and self._socket.usable()

    def send(self, head: bytes, body: bytes, parser: ResponseParser, heard: Heard | None = None) -> None:
        """Sends a call over the socket, which is ``connected``. See ``FunctionSocket.send``."""
        assert self._socket is not None
        self._socket.send(head, body, parser, heard)

    def end(self, parser: ResponseParser) -> None:
        """The call that was sent is over, or given up."""
        assert self._socket is not None
        self._socket.end(parser)

    async def finish(self, parser: ResponseParser, until: float, timeout: float, sink: Sink | None) -> None:
        """What ``call`` does once it has sent everything; *until*, in the loop's time, *timeout* is over."""
        assert self._socket is not None
        try:
            async with asyncio.timeout_at(until):
                await self._socket.finish(parser, sink)
        except TimeoutError:
            raise errors.CallTimedOut(detail=f"no answer within {timeout:g} s") from None

    async def _connect_again(self) -> None:
        assert self._container is not None
        if self._socket:
            self._socket.close()
        try:
            self._socket = await function_socket.connect(self._container.io_dir, SOCKET)
        except SocketNotReady as exc:
            raise NeverReached(detail=f"the function's socket is gone: {exc}") from None

    async def end_of(self, error: errors.FnError) -> End:
        """The end of the call that failed with *error*: by how the container ended where that explains it."""
        if self._watcher and isinstance(error, errors.FunctionResponseError):
            # The connection breaks a moment before the engine knows that the container has ended.
            await asyncio.wait({self._watcher}, timeout=EXPLAINS)
            if self._exit is not None:
                return exits.end_of(error, self._exit)
        return end_in_function(error)

    @property
    def chatty(self) -> bool:
        """Whether the container wrote something lately, so that more may be on its way."""
        return self._notes.chatty

    async def drain_output(self) -> None:
        """Returns when what was written before now is in the log of the call."""
        if self._container:
            await self._container.drain_output()

    def _noise(self) -> None:
        if self.state not in (State.STARTING, State.GONE):
            log.warning("container of %s wrote to stdout unasked and is retired", self._name())
            self.retire()

    def _output(self, data: bytes) -> None:
        if not self._notes.write(data) and log.isEnabledFor(logging.DEBUG):
            log.debug("container of %s wrote between calls: %r", self._name(), data[:200])

    async def converse(self, data: bytes, parser: AnswerParser, timeout: float, *, last: bool) -> None:
        """A call over stdin and stdout; returns when *parser* is done, with *last* when it has ended well.

        Raises CallTimedOut after *timeout* seconds, NeverReached when nothing was sent, ContainerExited, or
        another BadFunction.
        """
        assert self._container is not None
        if self._line.ended and self._notes.served:
            raise NeverReached(detail="the function has closed its stdout")
        try:
            async with asyncio.timeout(timeout):
                await self._line.call(self._container, data, parser, last=last)
                if last:
                    exits.must_be_zero(await self._container.wait())
        except TimeoutError:
            raise errors.CallTimedOut(detail=f"no answer within {timeout:g} s") from None
        except errors.BadFunction:
            # A cut answer is best explained by how the container ended, if it has.
            if self._watcher:
                await asyncio.wait({self._watcher}, timeout=ENDING if self._line.ended else LAST_WORDS)
            if self._exit is not None:
                exits.must_be_zero(self._exit)
            raise

    def stats(self) -> list[Stat]:
        """What was sampled of the container since ``begin``, thinned out; for the record of the call."""
        return self._notes.stats()

    async def sample(self) -> None:
        """Takes one sample for the call that runs."""
        samples = self._notes.samples
        if self._container and self.state is State.BUSY:
            metrics = await self._container.sample()
            if metrics and samples is self._notes.samples:
                samples.append(Stat(timestamp=times.now(), metrics=metrics))

    # -- idle, frozen, gone ----------------------------------------------------------------

    @property
    def awake(self) -> bool:
        """Idle and neither frozen nor about to be."""
        return self.state is State.IDLE

    def take(self) -> None:
        """An idle container becomes busy; a frozen one must be ``wake``-d."""
        self._to(State.BUSY)

    def rest(self) -> None:
        """A busy container becomes idle; it is frozen, and later removed, unless a call takes it."""
        self._to(State.IDLE)
        self._notes.rest()
        self.idle_since = self._loop.time()
        if self._timer is None:
            self._arm(min(self._settings.freeze_idle, self.target.idle_timeout))

    async def wake(self) -> None:
        """Makes a frozen or freezing one busy; raises EngineUnavailable when it cannot be unfrozen."""
        if self._freezer:
            await asyncio.shield(self._freezer)
        if not self.alive:
            raise errors.EngineUnavailable("The container could not be frozen and unfrozen")
        self._to(State.UNFREEZING)
        assert self._container is not None
        try:
            await self._container.unfreeze()
        except errors.FnError:
            self.retire()
            raise
        if not self.alive:
            raise errors.EngineUnavailable("The container ended while it was unfrozen")
        if self._timer:  # it waits for the idle timeout; the next rest begins with the freeze again
            self._timer.cancel()
            self._timer = None
        self._to(State.BUSY)

    def _arm(self, delay: float) -> None:
        self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        """One timer serves both limits; it is not touched on the way of a call, only looked at here."""
        self._timer = None
        if self.state not in (State.IDLE, State.FREEZING, State.FROZEN):
            return
        idle = self._loop.time() - self.idle_since
        ends = self.target.idle_timeout
        if idle >= ends and self.kept():
            ends += idle
        elif idle >= ends:
            log.debug("container of %s was idle for %g s", self._name(), self.target.idle_timeout)
            self.retire()
            return
        if self.state is State.IDLE:
            if idle < self._settings.freeze_idle:
                self._arm(min(self._settings.freeze_idle, ends) - idle)
                return
            self._to(State.FREEZING)
            self._freezer = asyncio.create_task(self._freeze(), name="freeze")
        self._arm(ends - idle)

    async def _freeze(self) -> None:
        assert self._container is not None
        try:
            await self._container.freeze()
        except errors.FnError as exc:
            log.warning("container of %s could not be frozen and is retired: %s", self._name(), exc)
            self.retire()
            return
        finally:
            self._freezer = None
        if self.state is State.FREEZING:
            self._to(State.FROZEN)

    def retire(self) -> None:
        """No call may use it any more. Idempotent; removal is the owner's (``dispose``)."""
        if self.state is State.GONE:
            return
        self._to(State.GONE)
        if self._timer:
            self._timer.cancel()
        self._on_gone(self)

    async def dispose(self) -> None:
        """Removes the container; for retired ones."""
        await self._dispose()

    async def _dispose(self) -> None:
        self.state = State.GONE
        if self._freezer:
            await asyncio.wait({self._freezer})
        if self._socket:
            self._socket.close()
        if self._container:
            await self._container.remove()
        if self._watcher:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})

    def _to(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"a container cannot go from {self.state.value} to {state.value}")
        self.state = state

    def _name(self) -> str:
        return self.target.fn_id or f"{self.target.app_id}{self.target.path}"
