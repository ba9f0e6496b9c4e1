"""What each worker process of a node gets: an even part of whatever the node as a whole has.

So several workers take no more memory, CPU or disk than one process with the same settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from deploy.settings import FullNode, RunnerNode, Settings, node_id
from shared_models.finding import Finding, Level
from shared_models.workers import Place

_MIB = 1 << 20


def whole(settings: Settings, port: int) -> Settings:
    """*settings* of the node as a whole, with what each worker would find out differently: looked up once.

    *port* is the one that all listen on.
    """
    name = node_id(settings.node, settings.http.port, os.getpid())
    settings = replace(settings, node=replace(settings.node, id=name), http=replace(settings.http, port=port))
    if isinstance(settings, RunnerNode | FullNode):
        from runner_node import host

        memory = settings.agent.max_memory or host.available_memory()
        cpus = settings.agent.max_cpus or host.available_cpus()
        settings = replace(settings, agent=replace(settings.agent, max_memory=memory, max_cpus=cpus))
    return settings


def of_worker(settings: Settings, place: Place) -> Settings:
    """The part of the worker at *place*; *settings* are those of the node (``whole``)."""
    share = place.share
    http = replace(
        settings.http,
        max_connections=share(settings.http.max_connections),
        max_bodies=share(settings.http.max_bodies),
    )
    settings = replace(settings, http=http)
    if isinstance(settings, RunnerNode | FullNode):
        agent = replace(
            settings.agent,
            max_memory=share(settings.agent.max_memory),
            max_cpus=share(settings.agent.max_cpus),
            max_waiting_calls=share(settings.agent.max_waiting_calls),
            max_waiting_size=share(settings.agent.max_waiting_size),
            max_async=share(settings.agent.max_async),
            max_spool_size=share(settings.agent.max_spool_size),
        )
        driver = replace(settings.driver, prefork_pool_size=share(settings.driver.prefork_pool_size))
        settings = replace(settings, agent=agent, driver=driver)
    return settings


def examine(settings: Settings) -> Iterator[Finding]:
    """For ``fn-node doctor``: whether so many workers do any good."""
    workers = settings.node.workers
    if workers == 1:
        return
    about, cpus = "workers (FN_WORKERS)", len(os.sched_getaffinity(0))
    if workers > cpus:
        yield Finding(
            Level.WARNING, about, f"{workers} workers share {cpus} CPUs",
            f"set FN_WORKERS to {cpus} at most: more of them only take memory",
        )  # fmt: skip
    says = f"{workers} processes on one port"
    if isinstance(settings, RunnerNode | FullNode):
        part = of_worker(whole(settings, 0), Place(0, workers))
        assert isinstance(part, RunnerNode | FullNode)
        memory, milli = part.agent.max_memory // _MIB, part.agent.max_cpus
        says += f", each with {memory} MB and {milli} mCPU for containers: no function may be larger"
    yield Finding(Level.OK, about, says)
