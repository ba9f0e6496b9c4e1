"""Scripted containers inside this process, for tests: real unix sockets, no engine.

A ``Behaviour`` says what happens to containers of an image. What a container serves is the http-stream
contract: ``POST /call``, one call after another on a connection; or, with ``ContainerSpec.stdio``, its
stdin, where each piece that is written counts as one call.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from runner_node.drivers import io_dirs
from runner_node.drivers.contract import Capabilities, Container, ContainerDriver, ContainerSpec, Sink
from runner_node.drivers.fake_behaviour import Behaviour
from runner_node.drivers.fake_container import FakeContainer
from shared_models import errors
from shared_models.image_policy import MISSING


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


@asynccontextmanager
async def open_fake(behaviours: Mapping[str, Behaviour]) -> AsyncIterator[FakeDriver]:
    """A driver whose images are the keys of *behaviours*."""
    with tempfile.TemporaryDirectory(prefix="fn-") as folder:
        driver = FakeDriver(behaviours, folder)
        try:
            yield driver
        finally:
            await driver.close()
