"""What a runner has and who has it, as /metrics shows it: memory, CPU, containers, calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shared_models.telemetry import REGISTRY

if TYPE_CHECKING:
    from runner_node.agent import Agent

_agents: set[Agent] = set()


class _Room(Collector):
    """Of all agents of this process: one, but in tests."""

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        memory = GaugeMetricFamily(
            "fn_runner_memory_bytes", "Memory for containers: all of it, and what is free", labels=("part",)
        )
        cpus = GaugeMetricFamily(
            "fn_runner_cpu_mcpus",
            "CPU for containers in milli-CPUs: all of it, and what is free",
            labels=("part",),
        )
        calls = GaugeMetricFamily(
            "fn_runner_calls", "Calls that run, and calls that wait for a container", labels=("state",)
        )
        containers = GaugeMetricFamily(
            "fn_runner_containers", "Containers that serve a call, and those that are idle", labels=("state",)
        )
        oldest = GaugeMetricFamily(
            "fn_runner_oldest_wait_seconds", "How long the call that waits longest has waited for a container"
        )
        leases = GaugeMetricFamily("fn_runner_leases", "Queued calls that this runner holds")
        agents = list(_agents)
        if agents:
            has = [agent.scheduler.resources for agent in agents]
            memory.add_metric(("all",), sum(one.memory for one in has))
            memory.add_metric(("free",), sum(one.free_memory for one in has))
            cpus.add_metric(("all",), sum(one.cpus for one in has))
            cpus.add_metric(("free",), sum(one.free_cpus for one in has))
            calls.add_metric(("running",), sum(agent.running for agent in agents))
            calls.add_metric(("waiting",), sum(agent.scheduler.waiting() for agent in agents))
            containers.add_metric(("busy",), sum(len(agent.scheduler.busy()) for agent in agents))
            containers.add_metric(("idle",), sum(agent.scheduler.resting() for agent in agents))
            oldest.add_metric((), max(agent.scheduler.oldest_wait() for agent in agents))
            leases.add_metric((), sum(len(agent.dequeuer.leases) for agent in agents))
        yield from (memory, cpus, calls, containers, oldest, leases)


room = _Room()
REGISTRY.register(room)


@contextmanager
def shown(agent: Agent) -> Iterator[None]:
    """*agent* is in the metrics until the end of the block."""
    _agents.add(agent)
    try:
        yield
    finally:
        _agents.discard(agent)
