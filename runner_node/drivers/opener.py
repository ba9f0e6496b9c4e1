"""The driver that the settings ask for."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from runner_node.drivers.contract import ContainerDriver
from runner_node.drivers.docker import open_docker
from runner_node.drivers.process import open_process
from runner_node.drivers.settings import DriverSettings
from shared_models.workers import ALONE, Place


def open_driver(
    settings: DriverSettings, node_id: str, place: Place = ALONE
) -> AbstractAsyncContextManager[ContainerDriver]:
    """Opens the driver of ``FN_DRIVER`` for the worker at *place* of the node *node_id*.

    What an earlier run of that worker left is removed. An engine that does not answer is no error here:
    the driver's verbs raise EngineUnavailable until it does. Raises OSError when the folder for sockets
    cannot be made, ValueError when its path is too long.
    """
    if settings.driver == "process":
        return open_process(settings, place.name(node_id))
    return open_docker(settings, node_id, place)
