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

from runner_node import exits
from runner_node.calls import Target
from runner_node.container_states import TRANSITIONS, State
from runner_node.drivers.contract import ContainerDriver, ContainerSpec, Exit
from runner_node.function_container import FunctionContainer
from runner_node.secret_files import SecretFiles
from runner_node.settings import AgentSettings
from shared_models import errors, image_policy, times
from shared_models.call import Stat
from shared_models.ids import new_id

log = logging.getLogger(__name__)


class StartFailed(Exception):
    """*error* is what the caller is told, *output* what the container wrote before it failed."""

    def __init__(self, error: errors.FnError, output: bytes) -> None:
        self.error = error
        self.output = output
        super().__init__(error.message)


class HotContainer(FunctionContainer):
    """Made by ``start``. *on_gone* is called once, when no call may use it any more."""

    def __init__(
        self, target: Target, settings: AgentSettings, on_gone: Callable[[HotContainer], None]
    ) -> None:
        super().__init__(target, settings.max_log_size)
        self.state = State.STARTING
        self.idle_since = 0.0
        self.times = (0.0, 0.0, 0.0)
        """When its start began, when its image was there, when it could be called, in unix seconds."""
        self.kept: Callable[[], bool] = lambda: False
        """Whether it stays when it has been idle for too long."""
        self._settings = settings
        self._on_gone = on_gone
        self._timer: asyncio.TimerHandle | None = None
        self._freezer: asyncio.Task[None] | None = None

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
            await self._launch(driver, spec)
            if not spec.stdio:
                await self._until_it_listens(self._settings.start_timeout)
            self._to(State.IDLE)
            self.times = (asked, pulled, time.time())
        except errors.FnError as exc:
            if self._container:
                await self._container.drain_output()
            await self._dispose()
            raise StartFailed(exc, self._notes.close()) from exc
        except BaseException:
            await self._dispose()
            raise

    def _exited(self, how: Exit) -> None:
        if self.state in (State.STARTING, State.GONE):
            return
        expected = logging.DEBUG if self.target.cold else logging.INFO
        log.log(expected, "container of %s ended by itself: %s", self._name(), exits.how(how))
        if self.state is not State.BUSY:
            self.retire()

    def _noise(self) -> None:
        if self.state not in (State.STARTING, State.GONE):
            log.warning("container of %s wrote to stdout unasked and is retired", self._name())
            self.retire()

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
        await self._remove()

    def _to(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"a container cannot go from {self.state.value} to {state.value}")
        self.state = state
