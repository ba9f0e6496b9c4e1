"""What ``fn-node doctor`` asks the container engine: what it is, and which limits it can enforce."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from docker.errors import APIError

from runner_node.drivers.credentials import Credentials
from runner_node.drivers.engine import open_engine
from runner_node.drivers.image_choice import stock
from runner_node.drivers.settings import DriverSettings
from runner_node.images_checkup import engine_disk, examine_images
from shared_models.errors import FnError
from shared_models.finding import Finding, Level

_ABOUT, _LIMITS = "container engine", "limits of the container engine"
_LOGINS = "logins at registries (FN_DOCKER_CONFIG)"
_NEEDED = {
    "memory": ("MemoryLimit",),
    "swap": ("SwapLimit",),
    "processes": ("PidsLimit",),
    "CPU": ("CpuCfsPeriod", "CpuCfsQuota"),
}
"""What a function's container is limited in, and the engine's words for whether it can."""
_MIB = 1 << 20


async def examine_engine(settings: DriverSettings, memory: int) -> AsyncIterator[Finding]:
    """The engine, which is known to answer, and *memory*, the bytes that functions may take of it."""
    layers = -1
    try:
        with open_engine(settings.docker_host, settings.engine_timeout, settings.engine_certs()) as engine:
            info = await engine.call(lambda client: dict(client.info()))
            with contextlib.suppress(FnError, APIError):
                layers = stock((), await engine.image_usage()).layers
    except (FnError, APIError) as exc:
        yield Finding(Level.WARNING, _ABOUT, f"does not say what it is: {exc}", "look at the engine's log")
        return
    for finding in judged(info, memory):
        yield finding
    for finding in examine_images(settings, layers, engine_disk(info, settings.docker_host)):
        yield finding


def judged(info: Mapping[str, Any], memory: int) -> Iterator[Finding]:
    """What the engine's *info* (``GET /info``) means for functions; what it does not say is not judged."""
    version, driver = info.get("ServerVersion", "?"), info.get("CgroupDriver", "?")
    groups = f"cgroup {info.get('CgroupVersion', '?')}, by {driver}"
    yield Finding(Level.OK, _ABOUT, f"version {version}, {groups}")
    lacks = [what for what, words in _NEEDED.items() if any(info.get(word) is False for word in words)]
    if driver == "none":
        lacks = list(_NEEDED)
    if lacks:
        yield Finding(
            Level.WARNING, _LIMITS, f"it cannot limit {', '.join(lacks)}: functions may take more",
            "docker info names what the kernel lacks; cgroup 2 has all of them (rootless: systemd delegates)",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, _LIMITS, "memory, swap, processes and CPU of functions are limited")
    has = int(info.get("MemTotal") or 0)
    if has and has < memory:
        yield Finding(
            Level.WARNING, _ABOUT,
            f"its machine has {has // _MIB} MB, and functions may take {memory // _MIB} MB",
            "lower FN_MAX_TOTAL_MEMORY_BYTES",
        )  # fmt: skip


def examine_logins(settings: DriverSettings) -> Iterator[Finding]:
    """Which registries there are logins for, and which files cannot be used; no value of theirs. Blocks."""
    troubles: list[str] = []
    hosts = Credentials(settings.docker_auth, settings.docker_config, troubles.append).hosts()
    for trouble in troubles:
        yield Finding(
            Level.WARNING, _LOGINS, trouble, "put it right; until then images there are pulled without"
        )
    if hosts:
        yield Finding(Level.OK, _LOGINS, f"for {', '.join(hosts)}")
