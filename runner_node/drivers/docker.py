"""Containers of a Docker-compatible engine.

No thread is bound to a container: its output comes over an attached socket that the event loop reads,
and the end of that stream says that it is time to ask how the container ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import docker
from docker.errors import APIError, NotFound

from runner_node.drivers import io_dirs, marks, stats
from runner_node.drivers.contract import Capabilities, Container, ContainerDriver, ContainerSpec, Exit, Sink
from runner_node.drivers.engine import Engine, open_engine, words
from runner_node.drivers.images import Images
from runner_node.drivers.output import Output
from runner_node.drivers.settings import DriverSettings
from runner_node.drivers.spec import NODE_LABEL, create_body
from runner_node.drivers.stdin import Stdin
from runner_node.drivers.talk import Talk
from shared_models import errors
from shared_models.workers import ALONE, Place

log = logging.getLogger(__name__)

SWEEP_PAUSE = 5.0
FIRST_LOOK = 0.005
LAST_LOOK = 1.0
REMOVALS = 3
LOOK_FOR = 120.0
"""Seconds for which a container is looked for that may have been left."""
HEALTH_PAUSE = 0.1
HEALTH_LIMIT = 120.0
"""Seconds between two looks at a container's health, and how long it may take to become healthy."""


class DockerDriver(ContainerDriver):
    """Made by ``open_docker``."""

    capabilities = Capabilities(freeze=True, isolates=True)

    def __init__(
        self, engine: Engine, settings: DriverSettings, node_id: str, folder: str, place: Place = ALONE
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._node_id = node_id
        self._place = place
        self._name = place.name(node_id)
        self._folder = folder
        self._images = Images(engine, settings.pull_timeout)
        self._on_network: Counter[str] = Counter()
        self._hostname = socket.gethostname()
        self._containers: set[DockerContainer] = set()
        self._left: dict[str, float] = {}
        """Containers that an engine in trouble may have left, and until when they are looked for."""

    async def ping(self) -> None:
        try:
            await self._engine.call(lambda client: client.ping())
        except APIError as exc:
            raise errors.EngineUnavailable(detail=words(exc)) from exc
        for name, until in list(self._left.items()):
            # An engine that hung may make a container long after it was asked to, and given up.
            if await _remove(self._engine, name) or asyncio.get_running_loop().time() > until:
                self._left.pop(name, None)

    async def ensure_image(self, image: str) -> None:
        await self._images.ensure(image)

    async def start(self, spec: ContainerSpec, sink: Sink, talk: Sink | None = None) -> Container:
        network = min(self._settings.networks, key=self._on_network.__getitem__, default="")
        self._on_network[network] += 1
        container = DockerContainer(
            self._engine,
            spec.id,
            "" if spec.stdio else io_dirs.make(os.path.join(self._folder, spec.id)),
            Output(sink, Talk(talk) if spec.stdio else None),
            on_removed=lambda: self._forget(container, network),
        )
        self._containers.add(container)
        body = create_body(
            spec,
            self._settings,
            node_id=self._name,
            io_dir=self._seen_by_engine(container.io_dir),
            hostname=self._hostname,
            network=network,
        )
        try:
            await container.start(body)
            if spec.stdio:
                await container.until_healthy()
        except APIError as exc:
            await container.remove()
            raise _start_error(exc) from exc
        except errors.EngineUnavailable:
            self._left[spec.id] = asyncio.get_running_loop().time() + LOOK_FOR
            await asyncio.shield(container.remove())
            raise
        except BaseException:
            await asyncio.shield(container.remove())
            raise
        return container

    def _forget(self, container: DockerContainer, network: str) -> None:
        self._containers.discard(container)
        self._on_network[network] -= 1
        if not container.gone:
            self._left[container.id] = asyncio.get_running_loop().time() + LOOK_FOR

    async def close(self) -> None:
        """Removes the containers that are left, and gives up pulls."""
        await asyncio.gather(*(container.remove() for container in self._containers), self._images.close())

    def _seen_by_engine(self, io_dir: str) -> str:
        if not io_dir or not self._settings.iofs_docker_path:
            return io_dir
        root = os.path.abspath(self._settings.iofs_path) if self._settings.iofs_path else self._folder
        return os.path.join(self._settings.iofs_docker_path, os.path.relpath(io_dir, root))

    async def sweep(self) -> None:
        """Removes every container of this worker, again and again until the engine has answered once.

        The first also removes those of workers that the node has no more.
        """
        wanted = {"label": [NODE_LABEL if not self._place.number else f"{NODE_LABEL}={self._name}"]}
        while True:
            try:
                found = await self._engine.call(lambda client: client.containers(all=True, filters=wanted))
                break
            except (APIError, errors.EngineUnavailable) as exc:
                log.debug("cannot look for leftovers yet: %s", exc)
                await asyncio.sleep(SWEEP_PAUSE)
        # Those that this process has made meanwhile are not left over.
        known = {f"/{container.id}" for container in self._containers}
        left = [
            each["Id"]
            for each in found
            if self._is_ours(each["Labels"][NODE_LABEL]) and not known.intersection(each.get("Names") or [])
        ]
        if left:
            log.warning("removing %d containers that an earlier run of this node left", len(left))
            await asyncio.gather(*(_remove(self._engine, container) for container in left))

    def _is_ours(self, name: str) -> bool:
        return name == self._name or self._place.inherits(name, self._node_id)


class DockerContainer(Container):
    """A container from its creation on; ``DockerDriver.start`` calls ``start`` once."""

    def __init__(
        self, engine: Engine, id_: str, io_dir: str, output: Output, on_removed: Callable[[], None]
    ) -> None:
        self.id = id_
        self.io_dir = io_dir
        self._engine = engine
        self._output = output
        self._stdin: Stdin | None = None
        self._on_removed = on_removed
        self.gone = True
        """Whether the engine has said so, once it was removed."""
        self._pid: int | None = None
        self._ended: asyncio.Task[Exit] | None = None
        self._removed: asyncio.Task[None] | None = None

    async def start(self, body: dict[str, Any]) -> None:
        """Creates, attaches and starts it; raises APIError or EngineUnavailable."""
        await self._engine.call(lambda client: client.create_container_from_config(body, self.id))  # type: ignore[no-untyped-call]
        attached = await self._engine.attach(self.id)
        loop = asyncio.get_running_loop()
        try:
            if attached.family == socket.AF_UNIX:
                await loop.create_unix_connection(lambda: self._output, sock=attached)
            else:
                await loop.create_connection(lambda: self._output, sock=attached)
        except BaseException:
            attached.close()
            raise
        if body["OpenStdin"]:
            self._stdin = Stdin((await self._engine.attach_stdin(self.id)).detach())
        await self._engine.call(lambda client: client.start(self.id))
        self._ended = asyncio.create_task(self._end(), name=f"end of {self.id}")

    async def until_healthy(self) -> None:
        """Returns when the image's health check, if it has one, finds it healthy, or when it has ended.

        Raises ContainerInitFailed when the engine, after as many looks as the image says, gives it up.
        """
        deadline = asyncio.get_running_loop().time() + HEALTH_LIMIT
        while True:
            state = (await self._engine.call(lambda client: client.inspect_container(self.id)))["State"]
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
        await self._signal(lambda client: client.pause(self.id))

    async def unfreeze(self) -> None:
        await self._signal(lambda client: client.unpause(self.id))

    async def _signal(self, work: Callable[[docker.APIClient], object]) -> None:
        try:
            await self._engine.call(work)
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
                state = (await self._engine.call(lambda client: client.inspect_container(self.id)))["State"]
                # A function may close its outputs and run on, and an engine may restart.
                if not (state.get("Running") or state.get("Paused")) and state.get("Status") != "created":
                    return Exit(int(state.get("ExitCode", 0)), oom=bool(state.get("OOMKilled")))
            except NotFound:
                return Exit(128 + 9)
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
                found = await self._engine.call(lambda client: client.inspect_container(self.id))
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
        self.gone = await _remove(self._engine, self.id) is not None
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


def _start_error(exc: APIError) -> errors.FnError:
    text = words(exc)
    if any(hint in text.lower() for hint in ("memory limit", "cpus available", "range of cpu", "cpu quota")):
        return errors.DoesNotFit(detail=text)
    return errors.ContainerInitFailed(detail=text)


async def _remove(engine: Engine, container: str) -> bool | None:
    """True when it was there, False when it was not, None when the engine did not say."""
    for attempt in range(REMOVALS):
        try:
            await engine.call(lambda client: client.remove_container(container, force=True, v=True))
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


@asynccontextmanager
async def open_docker(
    settings: DriverSettings, node_id: str, place: Place = ALONE
) -> AsyncIterator[ContainerDriver]:
    """A driver on the engine at ``settings.docker_host``, which need not be there yet."""
    with (
        io_dirs.node_folder(settings.iofs_path, place.name(node_id)) as folder,
        open_engine(settings.docker_host, settings.engine_timeout) as engine,
    ):
        driver = DockerDriver(engine, settings, node_id, folder, place)
        sweeper = asyncio.create_task(driver.sweep(), name="sweep containers")
        try:
            yield driver
        finally:
            sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeper
            await driver.close()
