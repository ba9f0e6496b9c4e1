"""How network namespaces are made in an engine: image, networks, names, and what is left of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from docker.errors import APIError, NotFound

from runner_node.drivers import pause_image
from runner_node.drivers.engine import Engine, words
from runner_node.drivers.holder import Holder, HolderSpec
from runner_node.drivers.images import Images
from runner_node.drivers.settings import DriverSettings
from shared_models import errors
from shared_models.ids import new_id

BRIDGE = "bridge"
"""The engine's default network, when it has one."""


def networks(settings: DriverSettings) -> tuple[str, ...]:
    """Those on which namespaces are made: not where containers get none of their own."""
    found = settings.networks or ("",)
    return tuple(name for name in found if name != "host" and not name.startswith("container:"))


class Holders:
    """The holders of one driver in its engine. *left* is told the names of those it could not remove."""

    def __init__(
        self,
        engine: Engine,
        settings: DriverSettings,
        images: Images,
        *,
        labels: Mapping[str, str],
        hostname: str,
        left: Callable[[str], None],
    ) -> None:
        self.names: set[str] = set()
        """Those that are this driver's, and no left-overs."""
        self._engine = engine
        self._settings = settings
        self._images = images
        self._labels = labels
        self._hostname = hostname
        self._left = left
        self._image = ""

    async def make(self, network: str) -> Holder | None:
        """A holder that runs, None when the engine has no such network; raises EngineUnavailable."""
        if not network and not await self._has_bridge():
            return None
        image = self._image = self._image or await self._find_image()
        spec = HolderSpec(
            image=image,
            network=network,
            cmd=self._settings.prefork_cmd,
            hostname=self._hostname,
            labels=self._labels,
        )
        holder = Holder(self._engine, f"prefork-{new_id()}")
        self.names.add(holder.name)
        start = asyncio.create_task(holder.start(spec), name=f"start {holder.name}")
        try:
            await asyncio.shield(start)
        except BaseException:
            # Not removed while it is being made: the engine would make it behind that.
            await asyncio.wait({start})
            self._image = ""  # perhaps it is gone: looked for again
            await self.end(holder)
            raise
        return holder

    async def end(self, holder: Holder) -> None:
        """Removes *holder*."""
        if not await holder.remove():
            self._left(holder.name)
        self.names.discard(holder.name)

    async def _find_image(self) -> str:
        if not self._settings.prefork_image:
            return await pause_image.make(self._engine)
        try:
            await self._images.ensure(self._settings.prefork_image)
        except errors.FnError as exc:
            raise errors.EngineUnavailable(detail=exc.explained) from exc
        return self._settings.prefork_image

    async def _has_bridge(self) -> bool:
        try:
            await self._engine.call(lambda client: client.inspect_network(BRIDGE))
        except NotFound:
            return False
        except APIError as exc:
            raise errors.EngineUnavailable(detail=words(exc)) from exc
        return True
