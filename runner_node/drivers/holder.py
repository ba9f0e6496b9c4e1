"""A container that does nothing but hold a network namespace, ready for one function's container to join."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from docker.errors import APIError

from runner_node.drivers.docker_container import remove_container
from runner_node.drivers.engine import Engine, words
from runner_node.drivers.spec import USER
from shared_models import errors

PIDS = 10
MEMORY = 16 << 20
"""What a program that waits may have: processes, and bytes."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HolderSpec:
    """*image* is available; *cmd* replaces its command unless empty; *hostname* is used as for functions."""

    image: str
    network: str
    cmd: tuple[str, ...] = ()
    hostname: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


def holder_body(spec: HolderSpec) -> dict[str, Any]:
    """The JSON object of ``POST /containers/create``. What joins it sees its host name and name servers."""
    body: dict[str, Any] = {
        "Image": spec.image,
        "User": USER,
        "Labels": dict(spec.labels),
        "AttachStdout": True,
        "HostConfig": {
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "PidsLimit": PIDS,
            "ReadonlyRootfs": True,
            "Memory": MEMORY,
            "MemorySwap": MEMORY,
            "LogConfig": {"Type": "none"},
        },
    }
    if spec.cmd:
        body["Cmd"] = list(spec.cmd)
    if spec.network:
        body["HostConfig"]["NetworkMode"] = spec.network
    elif spec.hostname:
        body["Hostname"] = spec.hostname[:63]
    return body


class Holder(asyncio.Protocol):
    """Made by ``start``. The engine closes the stream of its output when it ends, which is how we know."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self.alive = False
        """Whether it runs, as far as the engine has told."""
        self.on_end: Callable[[Holder], None] | None = None
        """Called once when it ends by itself."""
        self._engine = engine
        self._transport: asyncio.BaseTransport | None = None

    async def start(self, spec: HolderSpec) -> None:
        """Creates and starts it; raises EngineUnavailable. To be removed in any case."""
        body = holder_body(spec)
        try:
            await self._engine.create(self.name, body)
            await self._engine.listen(self.name, self)
            self.alive = True
            await self._engine.start(self.name)
        except APIError as exc:
            raise errors.EngineUnavailable(detail=words(exc)) from exc

    async def runs(self) -> bool:
        """Whether it runs, by asking the engine."""
        try:
            found = await self._engine.inspect(self.name)
        except (APIError, errors.EngineUnavailable):
            return False
        return self.alive and bool(found["State"].get("Running"))

    async def remove(self) -> bool:
        """Kills and removes it; False when the engine did not say so."""
        self.on_end = None
        gone = await remove_container(self._engine, self.name) is not None
        if self._transport:
            self._transport.close()
        self.alive = False
        return gone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        if self.on_end:
            self.on_end(self)
