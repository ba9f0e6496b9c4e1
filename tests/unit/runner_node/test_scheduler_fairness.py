"""Fair share on a runner: nobody has all of it, and whoever waits gets a turn."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from runner_node.hot_container import StartFailed
from runner_node.resources import Resources
from shared_models import errors
from tests.unit.runner_node.simulation import EJECT, MIB, Node, now, simulated

START = 0.2


@simulated
async def test_the_last_of_the_memory_is_for_functions_that_have_no_container() -> None:
    node = Node(8, start_time=START)
    node.press(node.target("greedy"), 50, 5.0)
    await asyncio.sleep(60)
    assert node.driver.alive["greedy"] == 7
    assert await node.call(node.target("late"), 0.1) == pytest.approx(START)
    await node.close()


@simulated
async def test_a_function_may_have_all_of_a_node_without_a_reserve() -> None:
    node = Node(8, fair_share_reserve=0.0)
    node.press(node.target("greedy"), 50, 5.0)
    await asyncio.sleep(60)
    assert node.driver.alive["greedy"] == 8
    await node.close()


@simulated
async def test_an_async_call_gets_the_only_container_of_a_node_that_is_busy_with_sync_calls() -> None:
    node = Node(1, start_time=START)
    node.press(node.target("sync"), 20, 0.5)
    await asyncio.sleep(30)
    waited = await node.call(node.target("async"), 0.5, sync=False)
    assert waited <= EJECT + 0.5 + START + 0.01
    before = node.served["sync"]
    await asyncio.sleep(10)
    assert node.served["sync"] > before + 10
    await node.close()


@simulated
async def test_a_sync_call_gets_the_only_container_of_a_node_that_is_busy_with_async_calls() -> None:
    node = Node(1, start_time=START)
    node.press(node.target("async"), 20, 0.5, sync=False)
    await asyncio.sleep(30)
    assert await node.call(node.target("sync"), 0.5) <= EJECT + 0.5 + START + 0.01
    await node.close()


@simulated
async def test_an_async_call_gets_a_container_where_sync_functions_have_all_the_memory() -> None:
    node = Node(8, start_time=START)
    for number in range(4):
        node.press(node.target(f"sync{number}"), 10, 0.3)
    await asyncio.sleep(30)
    assert await node.call(node.target("async"), 1.0, sync=False) <= EJECT + 0.3 + START + 0.01
    await node.close()


@simulated
async def test_sync_and_async_both_go_on_for_as_long_as_both_press() -> None:
    node = Node(1, start_time=START)
    node.press(node.target("sync"), 20, 0.2)
    node.press(node.target("async"), 20, 0.2, sync=False)
    await asyncio.sleep(100)
    assert node.served["sync"] > 100
    assert node.served["async"] > 100
    await node.close()


@simulated
async def test_many_functions_share_a_node_that_has_room_for_two_of_them() -> None:
    node = Node(2, start_time=START)
    for number in range(6):
        node.press(node.target(f"f{number}"), 5, 0.2)
    await asyncio.sleep(200)
    served = [node.served[f"f{number}"] for number in range(6)]
    assert min(served) > max(served) / 3
    # Not a container for each call: a start has to be worth something.
    assert sum(served) > 2 * sum(len(starts) for starts in node.driver.starts.values())
    await node.close()


@simulated
async def test_a_long_line_of_old_calls_does_not_beat_a_function_that_has_nothing() -> None:
    node = Node(4, start_time=START)
    old = node.target("old")
    line = [node.begin(node.call(old, 1.0)) for _ in range(200)]
    await asyncio.sleep(20)
    assert not line[-1].done()
    assert await node.call(node.target("new"), 0.1) <= EJECT + 1.0 + START + 0.01
    await node.close()


@simulated
async def test_a_function_as_large_as_the_node_gets_its_turn() -> None:
    node = Node(4, start_time=START)
    node.press(node.target("small"), 20, 0.3)
    await asyncio.sleep(10)
    assert await node.call(node.target("large", memory=512), 0.3) <= EJECT + 0.3 + START + 0.01
    await asyncio.sleep(10)
    assert node.driver.alive["small"] > 0
    await node.close()


@simulated
async def test_a_large_function_that_waits_for_long_calls_does_not_stop_small_ones() -> None:
    node = Node(4, start_time=START)
    node.press(node.target("long"), 2, 300.0)
    await asyncio.sleep(10)
    node.press(node.target("small"), 5, 0.3)
    await asyncio.sleep(10)
    large = node.begin(node.call(node.target("large", memory=512), 0.3, patience=60.0))
    await asyncio.sleep(3)
    before = node.served["small"]
    await asyncio.sleep(50)
    assert node.served["small"] > before + 50
    with pytest.raises(errors.ServerBusy):
        await large
    before = node.served["small"]
    await asyncio.sleep(2)
    assert node.served["small"] > before
    await node.close()


@simulated
async def test_whoever_waited_for_one_that_gave_up_is_looked_after_at_once() -> None:
    node = Node(4, start_time=START)
    node.press(node.target("long"), 2, 300.0)
    await asyncio.sleep(10)
    node.press(node.target("small"), 5, 0.3)
    await asyncio.sleep(10)
    large = node.begin(node.call(node.target("large", memory=512), 0.3, patience=3.0))
    with pytest.raises(errors.ServerBusy):
        await large
    before = node.served["small"]
    assert not node.driver.alive["small"]
    await asyncio.sleep(START + 0.4)
    assert node.served["small"] > before
    await node.close()


@simulated
async def test_a_small_function_that_is_new_does_not_wait_for_a_large_one() -> None:
    node = Node(4, start_time=START)
    node.press(node.target("long"), 2, 100.0)
    await asyncio.sleep(10)
    large = node.begin(node.call(node.target("large", memory=512), 0.3))
    await asyncio.sleep(10)
    assert await node.call(node.target("new"), 0.1) == pytest.approx(START)
    assert await large <= 100 + START
    await node.close()


@simulated
async def test_starts_that_hang_leave_room_for_those_of_other_functions() -> None:
    node = Node(64, start_time=START)
    node.driver.slow["hangs"] = 1e5
    for _ in range(50):
        node.begin(node.call(node.target("hangs"), 1.0))
    await asyncio.sleep(10)
    assert len(node.driver.starts["hangs"]) == max(node.scheduler._starts._most // 2, 1)
    assert await node.call(node.target("good"), 0.1) == pytest.approx(START)
    await node.close()


@simulated
async def test_a_function_whose_starts_fail_backs_off_and_its_callers_are_told_at_once() -> None:
    node = Node(8, start_time=0.01)
    node.driver.broken["bad"] = errors.ImagePullFailed("bad", "no such image", 404)
    bad, told, longest = node.target("bad"), 0, 0.0
    began = now()
    while now() < began + 60:
        asked = now()
        with pytest.raises(StartFailed) as failed:
            await node.call(bad, 1.0)
        assert failed.value.error.message == "Failed to pull image 'bad': no such image"
        longest = max(longest, now() - asked)
        told += 1
        await asyncio.sleep(0.01)
    starts = node.driver.starts["bad"]
    assert told > 1000
    assert longest <= 0.12
    # 0.1 + 0.2 + ... + 6.4 is 12.7 s, then one every 10 s.
    assert 11 <= len(starts) <= 13
    assert max(later - earlier for earlier, later in itertools.pairwise(starts)) < 10.1

    del node.driver.broken["bad"]
    await asyncio.sleep(10)
    await node.call(bad, 1.0)
    await node.close()


@simulated
async def test_one_start_that_fails_by_bad_luck_costs_the_first_caller_only() -> None:
    node = Node(8, start_time=0.01)
    node.driver.broken["f"] = errors.ContainerInitFailed()
    target = node.target("f")
    first, second = node.begin(node.call(target, 1.0)), node.begin(node.call(target, 1.0))
    with pytest.raises(StartFailed):
        await first
    del node.driver.broken["f"]
    assert await second == pytest.approx(0.12, abs=0.02)
    await node.close()


@simulated
async def test_a_start_that_fails_costs_nobody_his_place_where_a_container_is_at_work() -> None:
    node = Node(8, start_time=0.01)
    target = node.target("f")
    first = node.begin(node.call(target, 5.0))
    await asyncio.sleep(1)
    node.driver.broken["f"] = errors.EngineUnavailable()
    others = [node.begin(node.call(target, 0.1)) for _ in range(5)]
    await asyncio.sleep(3)
    assert 1 < len(node.driver.starts["f"]) < 8
    await asyncio.gather(first, *others)
    await node.close()


@simulated
async def test_a_new_version_of_a_broken_function_starts_at_once() -> None:
    node = Node(8, start_time=0.01)
    node.driver.broken["bad"] = errors.ImagePullFailed("bad", "no such image", 404)
    for _ in range(20):
        with pytest.raises(StartFailed):
            await node.call(node.target("bad"), 1.0)
        await asyncio.sleep(1)
    assert await node.call(node.target("bad", image="better"), 0.1) == pytest.approx(0.01)
    await node.close()


@pytest.mark.parametrize(("memory", "free"), [(512, 384), (1024, 896), (4000, 3600), (500, 450), (100, 90)])
def test_the_reserve_is_a_tenth_and_room_for_one_container_at_least(memory: int, free: int) -> None:
    assert Resources(memory * MIB, 0).missing(free * MIB, 0, sync=True, first=False) == (0, 0)
    over = Resources(memory * MIB, 0).take((free - 20) * MIB, 0, sync=True, first=False)
    assert over
    left = Resources(memory * MIB, 0)
    assert left.take((free - 20) * MIB, 0, sync=True)
    assert not left.take(21 * MIB, 0, sync=True, first=False)
    assert left.take(20 * MIB, 0, sync=True, first=False)
