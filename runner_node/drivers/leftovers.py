"""Containers of this node that nobody owns: those of an earlier run, and those of an engine in trouble."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from docker.errors import APIError

from runner_node.drivers.docker_container import remove_container
from runner_node.drivers.engine import Engine
from runner_node.drivers.spec import NODE_LABEL
from shared_models import errors
from shared_models.workers import Place

log = logging.getLogger(__name__)

SWEEP_PAUSE = 5.0
LOOK_FOR = 120.0
"""Seconds for which a container is looked for that may have been left."""


class Leftovers:
    """Of the worker at *place* of one node, in one engine."""

    def __init__(self, engine: Engine, node_id: str, place: Place) -> None:
        self._engine = engine
        self._node_id = node_id
        self._place = place
        self._name = place.name(node_id)
        self._until: dict[str, float] = {}
        """Containers that an engine in trouble may have left, and until when they are looked for."""

    def add(self, name: str) -> None:
        """There may be a container of this name, now or soon, which is to be removed."""
        self._until[name] = asyncio.get_running_loop().time() + LOOK_FOR

    async def look(self) -> None:
        """Removes what was added, as far as the engine has it by now."""
        for name, until in list(self._until.items()):
            # An engine that hung may make a container long after it was asked to, and given up.
            if await remove_container(self._engine, name) or asyncio.get_running_loop().time() > until:
                self._until.pop(name, None)

    async def sweep(self, known: Callable[[], set[str]]) -> None:
        """Removes every container of this worker but those of *known* names.

        The first worker also removes those of workers that the node has no more. Again and again, until the
        engine has answered once.
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
        own = {f"/{name}" for name in known()}
        left = [
            each["Id"]
            for each in found
            if self._is_ours(each["Labels"][NODE_LABEL]) and not own.intersection(each.get("Names") or [])
        ]
        if left:
            log.warning("removing %d containers that an earlier run of this node left", len(left))
            await asyncio.gather(*(remove_container(self._engine, container) for container in left))

    def _is_ours(self, name: str) -> bool:
        return name == self._name or self._place.inherits(name, self._node_id)
