"""One container of a Docker-compatible engine, from its creation to its removal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from docker.errors import APIError, NotFound

from runner_node.drivers import io_dirs, marks, out_of_memory, stats
from runner_node.drivers.attached_stdin import AttachedStdin
from runner_node.drivers.contract import Container, Exit
from runner_node.drivers.engine import Engine, words
from runner_node.drivers.output import Output
from shared_models import errors

log = logging.getLogger(__name__)

FIRST_LOOK = 0.005
LAST_LOOK = 1.0
REMOVALS = 3
HEALTH_PAUSE = 0.1
HEALTH_LIMIT = 120.0
"""Seconds between two looks at a container's health, and how long it may take to become healthy."""


class DockerContainer(Container):
    """A container from its creation on; ``DockerDriver.start`` calls ``start`` once."""

    def __init__(
        self, engine: Engine, id_: str, io_dir: str, output: Output, on_removed: Callable[[], None]
    ) -> None:
        self.id = id_
        self.io_dir = io_dir
        self._engine = engine
        self._output = output
        self._stdin: AttachedStdin | None = None
        self._on_removed = on_removed
        self.gone = True
        """Whether the engine has said so, once it was removed."""
        self._pid: int | None = None
        self._ended: asyncio.Task[Exit] | None = None
        self._removed: asyncio.Task[None] | None = None

    async def start(self, body: dict[str, Any]) -> None:
        """Creates, attaches and starts it; raises APIError or EngineUnavailable."""
        await self._engine.create(self.id, body)
        await self._engine.listen(self.id, self._output)
        if body["OpenStdin"]:
            self._stdin = await self._engine.attach_stdin(self.id)
        await self._engine.start(self.id)
        self._ended = asyncio.create_task(self._end(), name=f"end of {self.id}")

    def disown_output(self) -> None:
        """What it wrote, and that there is no more of it, is told to nobody: another takes its place."""
        self._output.disown()

    async def until_healthy(self) -> None:
        """Returns when the image's health check, if it has one, finds it healthy, or when it has ended.

        Raises ContainerInitFailed when the engine, after as many looks as the image says, gives it up.
        """
        deadline = asyncio.get_running_loop().time() + HEALTH_LIMIT
        while True:
            state = (await self._engine.inspect(self.id))["State"]
            health = (state.get("Health") or {}).get("Status", "none")
            if health in ("none", "healthy") or not state.get("Running"):
                return
            if health == "unhealthy":
                raise errors.ContainerInitFailed(detail="the image's health check says: unhealthy")
            if asyncio.get_running_loop().time() >= deadline:
                raise errors.ContainerInitTimedOut(detail=f"not healthy within {HEALTH_LIMIT:g} s")
            await asyncio.sleep(HEALTH_PAUSE)

    async def write(self, data: bytes) -> None:
        if self._stdin is None:
            raise errors.FunctionResponseError(detail="stdin is closed")
        await self._stdin.write(data)

    async def close_stdin(self) -> None:
        if self._stdin:
            await self._stdin.close()

    def pause_talk(self) -> None:
        self._output.pause_talk()

    def resume_talk(self) -> None:
        self._output.resume_talk()

    async def sample(self) -> dict[str, int]:
        if self._removed or (self._ended and self._ended.done()):
            return {}
        if pid := await self._first_process():
            with contextlib.suppress(OSError, ValueError, LookupError):
                return stats.from_cgroups(pid)
        return stats.from_engine(await self._engine.stats(self.id))

    async def freeze(self) -> None:
        await self._signal(self._engine.pause)

    async def unfreeze(self) -> None:
        await self._signal(self._engine.unpause)

    async def _signal(self, verb: Callable[[str], Awaitable[None]]) -> None:
        try:
            await verb(self.id)
        except APIError as exc:
            # Already so, or ended: nothing is left to do. "wait" tells the latter.
            if exc.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT) or _harmless(exc):
                return
            raise errors.EngineUnavailable(detail=words(exc)) from exc

    async def wait(self) -> Exit:
        assert self._ended is not None
        return await asyncio.shield(self._ended)

    async def _end(self) -> Exit:
        try:
            return await self._until_ended()
        finally:
            if self._stdin:
                self._stdin.abandon()

    async def _until_ended(self) -> Exit:
        pause = FIRST_LOOK
        while True:
            await self._output.unclear.wait()
            try:
                found = await self._engine.inspect(self.id)
                state = found["State"]
                # A function may close its outputs and run on, and an engine may restart.
                if not (state.get("Running") or state.get("Paused")) and state.get("Status") != "created":
                    code, oom = int(state.get("ExitCode", 0)), bool(state.get("OOMKilled"))
                    if code == out_of_memory.KILLED and not oom and not self._removed:
                        oom = await out_of_memory.event_of(self._engine, found)
                    return Exit(code, oom=oom)
            except NotFound:
                return Exit(out_of_memory.KILLED)
            except (APIError, errors.EngineUnavailable) as exc:
                log.debug("cannot see how %s ended yet: %s", self.id, exc)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_LOOK)

    async def drain_output(self) -> None:
        await self._output.drain(await self._first_process())

    async def _first_process(self) -> int:
        """The container's first process when it can be seen from here, else 0; asked once."""
        if self._pid is None:
            try:
                found = await self._engine.inspect(self.id)
            except (APIError, errors.EngineUnavailable):
                return 0
            pid = int(found["State"].get("Pid") or 0)
            self._pid = pid if pid and marks.reachable(pid, found["Id"]) else 0
        return self._pid

    async def remove(self) -> None:
        # Once begun it is finished, whatever becomes of the one who asked.
        if self._removed is None:
            self._removed = asyncio.create_task(self._remove(), name=f"remove {self.id}")
        await asyncio.shield(self._removed)

    async def _remove(self) -> None:
        self.gone = await remove_container(self._engine, self.id) is not None
        self._output.close()
        if self._stdin:
            self._stdin.abandon()
        if self._ended:
            await asyncio.wait({self._ended}, timeout=LAST_LOOK)
            self._ended.cancel()
        if self.io_dir:
            io_dirs.remove(self.io_dir)
        self._on_removed()


def _harmless(exc: APIError) -> bool:
    text = words(exc).lower()
    return any(hint in text for hint in ("is not running", "already paused", "is not paused", "not paused"))


def start_error(exc: APIError) -> errors.FnError:
    text = words(exc)
    if any(hint in text.lower() for hint in ("memory limit", "cpus available", "range of cpu", "cpu quota")):
        return errors.DoesNotFit(detail=text)
    return errors.ContainerInitFailed(detail=text)


async def remove_container(engine: Engine, container: str) -> bool | None:
    """True when it was there, False when it was not, None when the engine did not say."""
    for attempt in range(REMOVALS):
        try:
            await engine.remove(container)
            return True
        except NotFound:
            return False
        except (APIError, errors.EngineUnavailable) as exc:
            if isinstance(exc, APIError) and "already in progress" in words(exc):
                return True
            if attempt == REMOVALS - 1:
                log.warning("container %s could not be removed, it is tried again later: %s", container, exc)
            else:
                await asyncio.sleep(0.1 * 4**attempt)
    return None
