"""Several workers as one runner."""

from __future__ import annotations

import secrets

from msgspec import structs

from runner_node.drivers.fake import open_fake
from runner_node.health import Health
from runner_node.resources import Resources
from runner_node.scheduler import Scheduler
from runner_node.settings import AgentSettings
from runner_node.together import decode, encode, summed
from shared_models.runner import RunnerReport, RunnerState
from shared_models.workers import Place, open_siblings
from tests.unit.runner_node.scripted_data import ScriptedData

ONE = RunnerReport(
    id="n", address="http://n", version="1", capacity_memory=100, capacity_cpus=1000, free_memory=60,
    free_cpus=600, running=2, warm=["b", "a"], oldest_wait=0.5, spooled=3,
)  # fmt: skip
TWO = RunnerReport(
    id="n", address="http://n", version="1", capacity_memory=100, capacity_cpus=1000, free_memory=100,
    free_cpus=1000, running=1, warm=["c", "a"], oldest_wait=2.5, spooled=1,
)  # fmt: skip


class Recording(ScriptedData):
    def __init__(self) -> None:
        super().__init__()
        self.heartbeats: list[RunnerReport] = []

    async def heartbeat(self, report: RunnerReport) -> RunnerState:
        self.heartbeats.append(report)
        return await super().heartbeat(report)


def test_amounts_are_added_functions_are_joined_and_the_longest_wait_counts() -> None:
    assert summed(decode([encode(ONE), encode(TWO)])) == RunnerReport(
        id="n", address="http://n", version="1", capacity_memory=200, capacity_cpus=2000, free_memory=160,
        free_cpus=1600, running=3, warm=["a", "b", "c"], oldest_wait=2.5, workers=2, spooled=4,
    )  # fmt: skip


def test_a_node_drains_when_all_of_its_workers_have_heard_of_it() -> None:
    heard = structs.replace(ONE, drains=True)
    assert summed([heard, heard]).drains
    assert not summed([heard, TWO]).drains


async def test_each_worker_reports_all_that_are_alive_and_is_told_the_state() -> None:
    meeting = secrets.token_hex(4)
    data = Recording()
    async with open_fake({}) as driver:

        def health(siblings, memory: int) -> Health:  # type: ignore[no-untyped-def]
            resources = Resources(memory, 1000)
            scheduler = Scheduler(driver, AgentSettings(), resources, "node")
            made = Health(data, driver, scheduler, resources, "node", "here", "1", siblings)
            made.agent_running = lambda: 1
            return made

        async with open_siblings(Place(0, 2, meeting)) as one:
            first = health(one, 1 << 30)
            async with open_siblings(Place(1, 2, meeting)) as two:
                second = health(two, 2 << 30)
                await first._report()
                await second._report()
            data.state = RunnerState.DRAINING
            await first._report()
            assert first.drains
    seen = [(one.workers, one.capacity_memory >> 30, one.running) for one in data.heartbeats]
    assert seen == [(2, 3, 2), (2, 3, 2), (1, 1, 1)]
