"""The scheduler's decision on a simulated machine, where containers share the cores."""

from __future__ import annotations

import pytest

from benchmarks.policies import Fixed, Fn, Ours
from benchmarks.simulate import Case, oracle, run
from benchmarks.simulated_node import Function, Machine, Node
from benchmarks.traffic import Callers, Stream

CORES = 2
MACHINE = Machine(cores=CORES, slots=64, start_time=0.15)


def case(seconds: float, length: float, *, cpu: float = 1.0, machine: Machine = MACHINE) -> Case:
    return Case(machine, Function(seconds=seconds, cpu=cpu), Callers(64, length), "64 callers")


# -- the machine -------------------------------------------------------------------------------


def test_two_containers_of_a_function_that_computes_are_as_fast_on_two_cores_as_forty_seven() -> None:
    two, many = (run(case(0.0003, 1.0), Fixed(), ready) for ready in (2, 47))
    assert len(many.waits) == pytest.approx(len(two.waits), rel=0.01)
    assert len(two.waits) == pytest.approx(2 / 0.0003, rel=0.02)
    one = run(case(0.0003, 1.0), Fixed(), 1)
    assert len(one.waits) == pytest.approx(len(two.waits) / 2, rel=0.02)


def test_containers_of_a_function_that_waits_for_others_do_not_share_anything() -> None:
    two, many = (run(case(0.1, 10.0, cpu=0.001), Fixed(), ready) for ready in (2, 40))
    # Those who wait when the time is over are served as well.
    assert len(many.waits) - 64 == pytest.approx(20 * (len(two.waits) - 64), rel=0.05)


def test_starts_take_cpu_from_calls() -> None:
    def calls(policy: Fixed) -> int:
        node = Node(MACHINE, Function(seconds=0.001), policy)
        node.have(2)
        for _ in range(30 if isinstance(policy, Fn) else 0):
            node.start()
        Callers(2, 0.5).begin(node)
        return len(node.run().waits)

    assert calls(Fn()) < 0.6 * calls(Fixed())


def test_memory_is_held_from_the_begin_of_a_start_until_the_idle_timeout() -> None:
    machine = Machine(cores=1, start_time=1.0, start_cpu=0.0, idle_timeout=30.0)
    outcome = run(Case(machine, Function(seconds=1.0, spread=0.0), Stream(1e-9, 0.1), "one call"), Fn())
    ready = outcome.waits[0]
    assert outcome.started == 1
    assert outcome.container_seconds == pytest.approx(
        ready + 1.0, abs=0.01
    )  # the run ends with its last call


# -- the goals ---------------------------------------------------------------------------------


def test_sixty_four_callers_of_a_short_function_start_a_few_containers_where_fn_starts_forty_seven() -> None:
    short = case(0.0003, 2.0)
    ours, fn = run(short, Ours(CORES)), run(short, Fn())
    assert fn.started >= 47
    assert ours.most <= 4 * CORES
    assert ours.mean < fn.mean
    assert ours.p99 < fn.p99 / 5


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cores", [1, 2, 4])
def test_four_containers_per_core_are_enough_for_a_short_function_whatever_chance_says(
    cores: int, seed: int
) -> None:
    node = Node(Machine(cores=cores, start_time=0.15), Function(seconds=0.0003), Ours(cores), seed)
    Callers(64, 1.5).begin(node)
    assert node.run().most <= 4 * cores


@pytest.mark.parametrize("cores", [2, 4, 16])
def test_callers_of_a_long_function_get_all_that_fit_and_the_first_wait_for_one_start(cores: int) -> None:
    machine = Machine(cores=cores, slots=48, start_time=0.15)
    ours = run(case(1.0, 10.0, cpu=0.001, machine=machine), Ours(cores))
    assert ours.most == 48
    first = min(ours.waits)
    assert first < 0.3
    # Half of all callers are served before a call would have ended twice.
    assert sorted(ours.waits)[32] < 2.0


def test_a_short_function_that_waits_for_others_gets_many_containers() -> None:
    ours = run(case(0.003, 4.0, cpu=0.01), Ours(CORES))
    assert ours.most >= 32
    late = ours.waits[len(ours.waits) // 2 :]
    assert sum(late) / len(late) < 0.01


def test_calls_that_come_faster_than_the_cores_can_serve_them_do_not_fill_the_memory() -> None:
    overload = Case(MACHINE, Function(seconds=0.003), Stream(1000.0, 10.0), "overload")
    ours, fn = run(overload, Ours(CORES)), run(overload, Fn())
    assert ours.most <= 4 * CORES
    assert fn.most == 64
    assert ours.mean < fn.mean


def test_a_stuck_container_does_not_keep_others_waiting() -> None:
    node = Node(MACHINE, Function(seconds=0.001, spread=0.0), Ours(CORES))
    node.call()
    node.at(1.0, lambda: None)
    # The first four calls of these never come to an end, as far as anybody can see.
    node.at(1.0, lambda: setattr(node, "function", Function(seconds=1000.0, cpu=0.0, spread=0.0)))
    for number in range(4):
        node.at(1.1 + number * 0.0001, node.call)
    node.at(2.0, lambda: setattr(node, "function", Function(seconds=0.001, spread=0.0)))
    node.at(2.1, node.call)
    waits = node.run().waits
    assert len(waits) == 6
    assert max(waits) < 1.0


def test_the_oracle_takes_the_fewest_containers_that_are_enough() -> None:
    assert oracle(case(0.001, 1.0)).most == 2
    assert oracle(case(0.1, 10.0, cpu=0.001)).most == 64
