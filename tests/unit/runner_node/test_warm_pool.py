"""Containers that are kept ready, on a clock that jumps."""

from __future__ import annotations

import asyncio

import msgspec

from runner_node.calls import Target
from runner_node.container_states import State
from runner_node.warm_pool import LONGEST
from shared_models import errors
from tests.unit.runner_node.simulation import EJECT, Node, now, simulated


def keeping(node: Node, *wanted: tuple[Target, int]) -> None:
    """Looked at every second, as a node does."""

    async def look() -> None:
        while True:
            node.scheduler.keep_warm(wanted)
            await asyncio.sleep(1.0)

    node.begin(look())


@simulated
async def test_containers_are_kept_without_calls_and_beyond_their_idle_timeout() -> None:
    node = Node(10)
    warm = node.target("warm", idle_timeout=5.0)
    keeping(node, (warm, 3))
    await asyncio.sleep(2.0)
    assert node.driver.alive["warm"] == 3
    await asyncio.sleep(1000.0)
    assert (node.driver.alive["warm"], len(node.driver.starts["warm"])) == (3, 3)
    assert node.scheduler.keep_warm([(warm, 3)]) == 3
    await node.close()


@simulated
async def test_a_warm_container_is_frozen_as_others_are_and_serves_the_call_that_wakes_it() -> None:
    for freeze_idle in (0.05, 20.0):
        node = Node(10, freeze_idle=freeze_idle)
        warm = node.target("warm", idle_timeout=5.0)
        keeping(node, (warm, 1))
        await asyncio.sleep(10.0)
        [container] = node.scheduler._pool.owners
        for _ in range(3):
            await asyncio.sleep(1000.0)
            assert container.state is State.FROZEN
            assert await node.call(warm, 1.0) < 0.001
        assert len(node.driver.starts["warm"]) == 1
        await node.close()


@simulated
async def test_a_call_finds_a_warm_container_and_those_beyond_the_minimum_end_as_ever() -> None:
    node = Node(10)
    warm = node.target("warm", idle_timeout=5.0)
    cold = warm.series.cold
    keeping(node, (warm, 1))
    await asyncio.sleep(2.0)
    assert await node.call(warm, 1.0) < 0.001
    assert warm.series.cold == cold
    await asyncio.gather(*(node.call(warm, 1.0) for _ in range(3)))
    assert node.driver.alive["warm"] > 1
    assert warm.series.cold > cold
    await asyncio.sleep(30.0)
    assert node.driver.alive["warm"] == 1
    await node.close()


@simulated
async def test_calls_that_waited_for_a_start_are_counted() -> None:
    node = Node(10)
    cold = node.target("cold")
    before = cold.series.cold
    await node.call(cold, 0.1)
    await node.call(cold, 0.1)
    assert cold.series.cold - before == 1
    await node.close()


@simulated
async def test_what_is_kept_warm_leaves_a_fifth_of_the_memory_and_ejects_nobody() -> None:
    node = Node(10)
    other = node.target("other")
    await asyncio.gather(*(node.call(other, 1.0) for _ in range(4)))
    held = node.driver.alive["other"]
    await asyncio.sleep(10 * EJECT)
    keeping(node, (node.target("warm"), 100))
    await asyncio.sleep(100.0)
    assert node.driver.alive["other"] == held
    assert node.driver.alive["warm"] == 8 - held
    await node.close()


@simulated
async def test_where_not_all_fit_each_function_has_one_before_others_have_more() -> None:
    for start_time in (0.1, 2.5):
        node = Node(10, start_time=start_time)
        keeping(node, *((node.target(f"warm{number}"), 6) for number in range(4)))
        await asyncio.sleep(60.0)
        assert sorted(node.driver.alive.values()) == [2, 2, 2, 2]
        await node.close()


@simulated
async def test_a_function_that_wants_more_has_no_warm_container_go() -> None:
    node = Node(4, fair_share_reserve=0.0)
    warm, greedy = node.target("warm"), node.target("greedy")
    keeping(node, (warm, 2))
    await asyncio.sleep(2.0)
    node.press(greedy, 8, 1.0)
    await asyncio.sleep(60.0)
    assert (node.driver.alive["warm"], node.driver.alive["greedy"]) == (2, 2)
    assert len(node.driver.starts["warm"]) == 2
    await node.close()


@simulated
async def test_a_function_that_is_owed_a_container_has_a_warm_one_go_and_it_comes_back() -> None:
    for sync in (True, False):
        node = Node(2, fair_share_reserve=0.0, start_time=0.1)
        warm, small = node.target("warm"), node.target("small", idle_timeout=5.0)
        large = node.target("large", memory=256, idle_timeout=5.0)
        keeping(node, (warm, 1), (small, 1))
        await asyncio.sleep(3.0)
        kept = node.driver.alive["warm"] + node.driver.alive["small"]
        assert kept == 1, "a fifth is left"
        began = now()
        await node.call(large, 0.5, sync=sync)
        assert EJECT <= now() - began - 0.6 < 2 * EJECT, "not at once, and not for ever"
        await asyncio.sleep(60.0)
        assert node.driver.alive["warm"] + node.driver.alive["small"] == 1
        assert node.driver.alive["large"] == 0
        await node.close()


@simulated
async def test_one_that_ends_is_replaced_and_one_that_keeps_ending_less_and_less_often() -> None:
    node = Node(10)
    warm = node.target("warm")
    keeping(node, (warm, 1))
    await asyncio.sleep(2.0)
    [container] = node.scheduler._pool.owners
    container.retire()
    await asyncio.sleep(2.0)
    assert node.driver.alive["warm"] == 1

    async def die() -> None:
        while True:
            for one in list(node.scheduler._pool.owners):
                one.retire()
            await asyncio.sleep(0.5)

    dying = node.begin(die())
    await asyncio.sleep(100 * LONGEST)
    assert 100 < len(node.driver.starts["warm"]) < 115
    dying.cancel()
    await asyncio.sleep(4 * LONGEST)
    assert node.driver.alive["warm"] == 1
    [container] = node.scheduler._pool.owners
    container.retire()
    await asyncio.sleep(2.0)
    assert node.driver.alive["warm"] == 1, "it was calm for long"
    await node.close()


@simulated
async def test_starts_that_fail_become_rare_and_warm_containers_come_when_they_no_longer_do() -> None:
    node = Node(10)
    warm = node.target("warm")
    node.driver.broken["warm"] = errors.ContainerInitFailed()
    keeping(node, (warm, 3))
    await asyncio.sleep(600.0)
    assert len(node.driver.starts["warm"]) < 20
    del node.driver.broken["warm"]
    await asyncio.sleep(4 * LONGEST)
    assert node.driver.alive["warm"] == 3
    await node.close()


@simulated
async def test_what_is_no_longer_wanted_ends_after_its_idle_timeout() -> None:
    node = Node(10)
    warm = node.target("warm", idle_timeout=5.0)
    node.scheduler.keep_warm([(warm, 2)])
    await asyncio.sleep(20.0)
    assert node.driver.alive["warm"] == 2
    node.scheduler.keep_warm([])
    await asyncio.sleep(5.1)
    assert node.driver.alive["warm"] == 0
    await node.close()


@simulated
async def test_a_new_version_of_a_function_has_containers_of_its_own_and_the_old_ones_go() -> None:
    node = Node(4, fair_share_reserve=0.0)
    old, new = node.target("fn", env={"V": "1"}), node.target("fn", env={"V": "2"})
    node.scheduler.keep_warm([(old, 2)])
    await asyncio.sleep(2.0)
    node.scheduler.supersede(old.key)
    keeping(node, (new, 2))
    await asyncio.sleep(2.0)
    targets = [container.target for container in node.scheduler._pool.owners]
    assert targets == [new, new]
    assert node.driver.alive["fn"] == 2
    await node.close()


@simulated
async def test_no_more_are_kept_than_a_function_may_have() -> None:
    node = Node(10)
    most = {"fn.hybrid/max-concurrency": msgspec.Raw(b"2")}
    keeping(node, (node.target("warm", annotations=most), 5))
    await asyncio.sleep(10.0)
    assert node.driver.most["warm"] == 2
    await node.close()


@simulated
async def test_starts_of_warm_containers_are_never_in_the_way_of_calls() -> None:
    node = Node(1000, start_time=5.0)
    keeping(node, *((node.target(f"warm{number}"), 10) for number in range(20)))
    await asyncio.sleep(0.5)
    assert await node.call(node.target("called"), 0.1) < 5.1
    await node.close()


@simulated
async def test_a_node_that_is_closed_starts_none() -> None:
    node = Node(10)
    warm = node.target("warm")
    await node.scheduler.close()
    assert node.scheduler.keep_warm([(warm, 1)]) == 0
    await asyncio.sleep(1.0)
    assert not node.driver.starts
    await node.close()
