"""One schedule of the model that chance rarely makes: a result that only the spool has."""

from __future__ import annotations

from tests.model import checks
from tests.model.people import People
from tests.model.world import Rules, World


def test_a_result_outlives_its_runner_in_the_spool() -> None:
    world = World(Rules())
    people = People(world)
    call = people.plan("plain", duration=20.0)
    people.submit(call)
    world.pull(0, 1, 0.0)
    world.wait(1.0)
    world.network.cut.add("runner0")
    world.wait(60.0)
    world.kill_runner(0)
    world.network.cut.clear()
    world.start_runner(0)
    world.wait(20.0)
    assert world.records()[call.id]["status"] == "success"
    assert len(world.history.runs) == 1
    world.calm()
    checks.at_each_step(world)
    checks.at_rest(world)
    world.end()
