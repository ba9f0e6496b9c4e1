"""A queue on Redis whose reserves pass over functions: what it costs, and what an older version left."""

from __future__ import annotations

import asyncio
import random

import redis.asyncio

from services.queue import open_queue
from services.queue.redis_server import VERSION
from shared_models.call import Call, LeaseKey
from tests.integration.redis_queues import TTL, a_call, got, ids, waiting
from tests.servers.server import Server


async def as_layout_1(admin: redis.asyncio.Redis) -> None:
    """Moves what is ready to where the first version had it: all functions' together."""
    for key in await admin.keys("{fn}:ready:*"):
        for place in await admin.zrange(key, 0, -1):
            await admin.zadd("{fn}:ready", {place: 0})
        await admin.delete(key)
    await admin.delete("{fn}:heads")
    await admin.set("{fn}:version", 1)


async def test_what_an_older_version_queued_comes_in_its_order(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(own_redis.url) as queue:
        made = [a_call(fn_id="full", priority=1) for _ in range(600)]
        made += [a_call(fn_id=f"fn{number % 3}", priority=number % 2) for number in range(300)]
        for call in made:
            await queue.push(call)
        delayed = a_call(fn_id="fn0", delay=600)
        await queue.push(delayed)
        held = await queue.reserve(2, 0, TTL)
    await as_layout_1(admin)
    waiting_now = [call for call in sorted(made, key=lambda call: -call.priority) if call.id not in ids(held)]
    async with open_queue(own_redis.url) as queue:
        assert await admin.get("{fn}:version") == str(VERSION)
        cancelled, *rest = waiting_now
        await queue.delete([LeaseKey(cancelled.id, "")])
        others = [call.id for call in rest if call.fn_id not in ("full", "fn1")]
        assert ids(await queue.reserve(10, 0, TTL, ["full", "fn1"])) == others[:10]
        taken: list[str] = []
        while some := await queue.reserve(200, 0, TTL):
            taken += ids(some)
        assert taken == [call.id for call in rest if call.id not in others[:10]]
        assert await queue.extend([one.key for one in held], TTL) == []
        assert await queue.holds([delayed.id, cancelled.id]) == {delayed.id}
        assert not await admin.exists("{fn}:ready")


async def test_what_an_older_node_still_queues_is_handed_out(nodes, admin: redis.asyncio.Redis) -> None:
    await nodes[0].push(a_call(fn_id="full"))
    waiter = await waiting(nodes[1], without=["full"])
    call = a_call(fn_id="fn", payload=b"x")
    place = f"{0x7FFFFFFF:08x}{99:014x}{call.id}"
    text = f'{{"id":"{call.id}","fn_id":"fn"}}'
    message = {
        "call": text,
        "payload": "x",
        "fn": "fn",
        "pushed": 1,
        "place": place,
        "attempt": 0,
        "token": "",
    }
    async with admin.pipeline(transaction=True) as old:
        old.hset(f"{{fn}}:m:{call.id}", mapping=message)
        old.hincrby("{fn}:fns", "fn", 1)
        old.zadd("{fn}:ready", {place: 0})
        old.zadd("{fn}:waiting:fn", {call.id: 1})
        old.publish("{fn}:bell", "")
        await old.execute()
    assert await got(waiter) == [call.id]


async def commands(admin: redis.asyncio.Redis) -> int:
    """How many the server has run."""
    return sum(counts["calls"] for counts in (await admin.info("commandstats")).values())


async def test_it_costs_the_same_however_many_calls_are_passed_over(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async def cost() -> int:
        first, second = a_call(fn_id="a"), a_call(fn_id="b")
        await queue.push(first)
        await queue.push(second)
        before = await commands(admin)
        assert ids(await queue.reserve(2, 0, TTL, ["full", "fuller"])) == [first.id, second.id]
        assert await queue.reserve(2, 0, TTL, ["full", "fuller"]) == []
        return await commands(admin) - before

    async with open_queue(own_redis.url) as queue:
        for fn_id in ("full", "fuller"):
            await queue.push(a_call(fn_id=fn_id, priority=1))
        await cost()  # the first lease of all is announced
        few = await cost()
        for number in range(2_000):
            await queue.push(a_call(fn_id=("full", "fuller")[number % 2], priority=1))
        assert await cost() == few
        assert few < 60


async def test_the_depth_of_a_function_costs_the_same_however_much_there_is(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async def cost() -> int:
        before = await commands(admin)
        await queue.depth("fn0")
        return await commands(admin) - before

    async with open_queue(own_redis.url) as queue:
        await queue.push(a_call(fn_id="fn0"))
        few = await cost()
        for number in range(500):
            await queue.push(a_call(fn_id=f"fn{number % 50}"))
        assert await cost() == few


async def test_the_first_place_of_every_function_is_known_after_any_operations(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    chance = random.Random(7)
    pushed: list[Call] = []
    keys: list[LeaseKey] = []
    async with open_queue(own_redis.url) as queue:
        for _ in range(400):
            some = chance.sample(keys, min(len(keys), 2))
            match chance.randint(0, 6):
                case 0 | 1:
                    call = a_call(fn_id=chance.choice("abcd"), priority=chance.randint(-1, 1))
                    pushed.append(call)
                    await queue.push(call)
                case 2:
                    without = chance.sample("abcd", chance.randint(0, 3))
                    keys += [one.key for one in await queue.reserve(chance.randint(1, 5), 0, TTL, without)]
                case 3:
                    await queue.release(some)
                case 4:
                    await queue.requeue(some, chance.choice((0, 60)))
                case 5:
                    await queue.extend(some, chance.choice((0, TTL)))
                case 6:
                    await queue.delete([*some, *[LeaseKey(call.id, "") for call in pushed[-1:]]])
            heads = set(await admin.zrange("{fn}:heads", 0, -1))
            firsts = {fn: await admin.zrange(f"{{fn}}:ready:{fn}", 0, 0) for fn in "abcd"}
            assert heads == {f"{places[0]} {fn}" for fn, places in firsts.items() if places}


async def test_messages_that_the_server_evicted_are_passed_over_as_well(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(own_redis.url) as queue:
        calls = [a_call(fn_id=f"fn{number % 4}") for number in range(600)]
        for call in calls:
            await queue.push(call)
        kept = calls[-1]
        await admin.delete(*[f"{{fn}}:m:{call.id}" for call in calls[:-1]])
        assert await admin.delete("{fn}:ready:fn1") == 1
        assert ids(await queue.reserve(5, 0, TTL, ["fn0"])) == [kept.id]


async def test_nodes_are_told_which_function_has_something_new(nodes, admin: redis.asyncio.Redis) -> None:
    queue = nodes[0]
    async with admin.pubsub() as channel:
        await channel.subscribe("{fn}:bell")
        for fn_id in ("a", "a", "b"):
            await queue.push(a_call(fn_id=fn_id))
        leased = [one.key for one in await queue.reserve(3, 0, TTL)]
        await queue.release(leased[:2])
        await queue.requeue(leased[2:], 0)
        await queue.release([one.key for one in await queue.reserve(3, 0, TTL)])
        await admin.publish("{fn}:bell", "end")
        heard: list[str] = []
        while heard[-1:] != ["end"]:
            message = await asyncio.wait_for(
                channel.get_message(ignore_subscribe_messages=True, timeout=None), 10
            )
            heard += [message["data"]] if message else []
    # A lease tells of the time when it runs out, which may be sooner than all that was known.
    assert heard == ["a", "b", "", "a", "b", "", "", "end"]
