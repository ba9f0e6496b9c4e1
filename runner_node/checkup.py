"""Whether this machine can run functions: ``fn-node doctor``."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

from runner_node import host
from runner_node.drivers.engine_tls import TROUBLE
from runner_node.drivers.opener import open_driver
from runner_node.drivers.settings import DriverSettings
from runner_node.engine_checkup import examine_engine, examine_logins
from runner_node.secrets_checkup import examine_secrets
from runner_node.settings import AgentSettings
from shared_models.errors import FnError
from shared_models.finding import Finding, Level

_MIB = 1 << 20
_LITTLE = 256 * _MIB


async def examine_runner(
    agent: AgentSettings, driver: DriverSettings, node_id: str
) -> AsyncIterator[Finding]:
    """The engine, the memory, the folders of results and secrets, logins at registries.

    *node_id* must be that of no node at work.
    """
    about = "container engine (FN_DRIVER)"
    try:
        # A look removes no images.
        async with open_driver(replace(driver, image_clean_max_size=0), node_id) as engine:
            await engine.ping()
        yield Finding(Level.OK, about, f"{driver.driver} answers")
        if driver.driver == "docker":
            async for finding in examine_engine(driver, agent.max_memory):
                yield finding
    except FnError as exc:
        advice = "start the engine, or set DOCKER_HOST to it"
        if TROUBLE in exc.explained:
            advice = "correct DOCKER_HOST, DOCKER_CERT_PATH or the engine's certificate"
        yield Finding(Level.ERROR, about, exc.explained, advice)
    except (ValueError, OSError) as exc:
        yield Finding(Level.ERROR, about, str(exc), "correct the settings of the driver")
    for finding in _memory(agent, driver):
        yield finding
    yield _spool(agent)
    for finding in examine_secrets(agent.secrets_path):
        yield finding
    if driver.driver == "docker":
        for finding in examine_logins(driver):
            yield finding


def _memory(agent: AgentSettings, driver: DriverSettings) -> Iterator[Finding]:
    about = "memory for containers"
    memory = agent.max_memory or host.available_memory()
    level = Level.OK if memory >= _LITTLE else Level.WARNING
    advice = "" if level is Level.OK else "give the node more memory, or set FN_MAX_TOTAL_MEMORY_BYTES"
    yield Finding(level, about, f"{memory // _MIB} MB", advice)
    # Containers of an engine are in no cgroup of the node's: the engine is asked what its machine has.
    if driver.driver == "process" and memory > (limit := host.memory_limit()):
        yield Finding(
            Level.WARNING, about,
            f"FN_MAX_TOTAL_MEMORY_BYTES is {memory // _MIB} MB, and this machine or container has "
            f"{limit // _MIB} MB", "lower it, or raise the limit: the kernel kills the node or functions",
        )  # fmt: skip


def _spool(agent: AgentSettings) -> Finding:
    about = "spool (FN_SPOOL_PATH)"
    if not agent.spool_path:
        return Finding(
            Level.WARNING, about, "is switched off: results are lost with the node when no API node answers",
            "set FN_SPOOL_PATH to a folder on a disk that survives the node",
        )  # fmt: skip
    folder = Path(agent.spool_path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as exc:
        return Finding(
            Level.ERROR,
            about,
            f"{folder} cannot be written: {exc.strerror}",
            "make it writable, or set another",
        )
    return Finding(Level.OK, about, f"{folder} can be written")
