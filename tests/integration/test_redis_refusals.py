"""A Redis server that cannot be used, or not now: one clear line, and nothing that was queued is lost."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess

import pytest
import redis.asyncio

from services import urls
from services.queue import open_queue
from services.queue.redis_link import open_link
from services.queue.redis_server import VERSION, durability
from services.queue.redis_settings import RedisSettings
from shared_models.errors import Invalid, QueueUnavailable
from shared_models.finding import Finding, Level
from tests.integration.redis_queues import TTL, a_call
from tests.servers.ports import free_port
from tests.servers.server import Server


async def refusal(url: str) -> str:
    """The line that opening *url* ends with."""
    with pytest.raises(QueueUnavailable) as caught:
        async with open_queue(url):
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_login(own_redis: Server, login: str) -> str:
    return own_redis.url.replace("redis://", f"redis://{login}@")


# -- at the start ------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_is_told() -> None:
    port = free_port()
    told = await refusal(f"redis://me:s3cret@127.0.0.1:{port}/0")
    assert told.startswith(f"Queue: redis://127.0.0.1:{port}/0: ")
    assert "s3cret" not in told


async def test_a_wrong_password_is_told_and_not_repeated(
    own_redis: Server, admin: redis.asyncio.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await admin.config_set("requirepass", "s3cret")
    assert "it refuses the login" in await refusal(own_redis.url)
    for login in (":wr0ng", "default:wr0ng", "nobody:wr0ng"):
        told = await refusal(with_login(own_redis, login))
        assert "it refuses the login" in told
        assert "wr0ng" not in told + caplog.text
    async with open_queue(with_login(own_redis, ":s3cret")) as queue:
        assert await queue.push(a_call())


async def test_a_database_that_is_not_there_is_told(own_redis: Server, admin: redis.asyncio.Redis) -> None:
    assert "DB index is out of range" in await refusal(own_redis.url.removesuffix("/0") + "/9999")


async def test_a_replica_is_told(own_redis: Server, admin: redis.asyncio.Redis) -> None:
    async with open_queue(own_redis.url) as queue:
        kept, lost = a_call(), a_call()
        await queue.push(kept)
        await admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert "it is a replica" in await refusal(own_redis.url)
        with pytest.raises(QueueUnavailable) as caught:
            await queue.push(lost)
        assert caught.value.detail.startswith("it is a replica")
        await admin.execute_command("REPLICAOF", "NO", "ONE")
        assert await queue.holds([kept.id, lost.id]) == {kept.id}


async def test_what_a_newer_version_wrote_is_left_alone(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    await admin.set("{fn}:version", VERSION + 1)
    assert f"it has queue schema {VERSION + 1}, and this version knows {VERSION}" in await refusal(
        own_redis.url
    )
    await admin.set("{fn}:version", "x")
    assert "it has queue schema x" in await refusal(own_redis.url)


async def test_a_user_who_may_not_run_scripts_is_told(own_redis: Server, admin: redis.asyncio.Redis) -> None:
    await admin.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "&*", "+@all", "-evalsha")
    assert "the user lacks a right that the queue needs" in await refusal(with_login(own_redis, "weak:pw"))


async def test_a_user_needs_the_keys_and_the_channel_of_the_prefix_alone(
    own_redis: Server, admin: redis.asyncio.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    rights = ("~{fn}:*", "&{fn}:*", "+@all", "-@dangerous", "-@admin")
    await admin.execute_command("ACL", "SETUSER", "own", "on", ">pw", *rights)
    async with open_queue(with_login(own_redis, "own:pw")) as queue:
        await queue.push(a_call())
        [leased] = await queue.reserve(1, 5, TTL)
        await queue.extend([leased.key], TTL)
        assert await queue.requeue([leased.key], 0) == []
        [leased] = await queue.reserve(1, 5, TTL, ["another"])
        await queue.release([leased.key])
        assert set(await queue.find([leased.call.id])) == {leased.call.id}
        assert (await queue.depth("fn")).queued == 1
        assert [one.queued for one in await queue.depths()] == [1]
    assert caplog.messages == [], "what it may not ask, it does not warn of"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("maxmemory-policy", "allkeys-lru", "Redis may evict queued calls"),
        ("appendonly", "no", "Redis loses all calls when it stops"),
    ],
)
async def test_a_server_that_may_lose_calls_is_warned_of(
    own_redis: Server,
    admin: redis.asyncio.Redis,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
    words: str,
) -> None:
    await admin.config_set(name, value)
    with caplog.at_level(logging.WARNING):
        async with open_queue(own_redis.url):
            pass
    [line] = caplog.messages
    assert line.startswith(words)


@pytest.mark.parametrize(
    ("settings", "level", "words"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, Level.OK, "each call is on the server's disk"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, Level.WARNING, "may lose the calls of its last"),
        ({"appendonly": "no"}, Level.WARNING, "loses calls since its last snapshot"),
        ({"maxmemory-policy": "allkeys-lru"}, Level.WARNING, "may evict queued calls"),
    ],
    ids=["each-call", "each-second", "never", "evicting"],
)
async def test_what_a_server_may_lose_is_read_from_its_settings(
    own_redis: Server, admin: redis.asyncio.Redis, settings: dict[str, str], level: Level, words: str
) -> None:
    for name, value in settings.items():
        await admin.config_set(name, value)
    found = await found_of(own_redis.url)
    assert (found.level, words in found.says) == (level, True), found


async def test_what_a_server_may_lose_is_unknown_where_its_settings_may_not_be_read(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    rights = ("~{fn}:*", "&{fn}:*", "+@all", "-config")
    await admin.execute_command("ACL", "SETUSER", "own", "on", ">pw", *rights)
    found = await found_of(with_login(own_redis, "own:pw"))
    assert (found.level, "is unknown" in found.says) == (Level.WARNING, True), found


async def found_of(url: str) -> Finding:
    """What of the calls on the server at *url* may be lost."""
    address = urls.parse(url, "FN_MQ_URL", ("redis",))
    async with open_link(RedisSettings.of(address, "FN_MQ_URL")) as link:
        return await durability(link)


async def test_tls_is_checked_against_the_given_certificate(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    if not shutil.which("openssl"):
        pytest.skip("NO OPENSSL COMMAND: Redis over TLS is not tested")
    port = free_port()
    cert, key = own_redis.folder / "cert.pem", own_redis.folder / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    )
    arguments = [*command.split(), "-keyout", str(key), "-out", str(cert)]
    await asyncio.to_thread(subprocess.run, arguments, check=True, capture_output=True)
    own_redis.own(key)
    await admin.config_set("tls-auth-clients", "no")
    await admin.execute_command(
        *("CONFIG", "SET", "tls-cert-file", str(cert), "tls-key-file", str(key)),
        *("tls-ca-cert-file", str(cert)),
        *("tls-port", port),
    )
    async with open_queue(f"rediss://127.0.0.1:{port}/0?ca={cert}") as queue:
        assert await queue.push(a_call())
    assert "certificate verify failed" in (await refusal(f"rediss://127.0.0.1:{port}/0")).lower()
    assert await refusal(f"redis://127.0.0.1:{port}/0?timeout=1&connect_timeout=1")
    assert await refusal(own_redis.url.replace("redis://", "rediss://") + "?timeout=1&connect_timeout=1")


# -- while it runs -----------------------------------------------------------------------------


async def test_a_full_memory_refuses_pushes_loses_nothing_and_can_be_emptied(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(own_redis.url) as queue:
        calls = [a_call(payload=b"x" * 1000) for _ in range(200)]
        for call in calls:
            await queue.push(call)
        await admin.config_set("maxmemory", "1mb")
        refused = a_call()
        with pytest.raises(QueueUnavailable) as caught:
            await queue.push(refused)
        assert caught.value.detail.startswith("its memory is full")
        assert await queue.holds([refused.id]) == set()
        async with open_queue(own_redis.url) as late:
            taken = await late.reserve(100, 0, TTL)
        assert [one.call.id for one in taken] == [call.id for call in calls[:100]]
        assert await queue.extend([one.key for one in taken], TTL) == []
        await queue.release([one.key for one in taken[:25]])
        assert await queue.requeue([one.key for one in taken[25:50]], 0) == []
        assert len(await queue.find([one.call.id for one in taken])) == 100
        assert [(one.queued, one.leased) for one in await queue.depths()] == [(150, 50)]
        await queue.delete([one.key for one in taken[50:]])
        assert await queue.holds([call.id for call in calls]) == {
            call.id for call in (*calls[:50], *calls[100:])
        }
        await admin.config_set("maxmemory", "0")
        assert await queue.push(refused)


async def test_a_server_that_cannot_write_to_its_disk_refuses_pushes(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    snapshot = own_redis.folder / "dump.rdb"
    async with open_queue(own_redis.url) as queue:
        kept, refused = a_call(), a_call()
        await queue.push(kept)
        snapshot.unlink(missing_ok=True)
        (snapshot / "in the way").mkdir(parents=True)
        await admin.config_set("save", "3600 1000000")
        await admin.bgsave()
        async with asyncio.timeout(60):
            while (await admin.info("persistence"))["rdb_last_bgsave_status"] == "ok":
                await asyncio.sleep(0.01)
        with pytest.raises(QueueUnavailable) as caught:
            await queue.push(refused)
        assert caught.value.detail.startswith("it cannot write to its disk")
        assert "it cannot write to its disk" in await refusal(own_redis.url)
        shutil.rmtree(snapshot)
        await admin.save()
        assert await queue.holds([kept.id, refused.id]) == {kept.id}
        assert await queue.push(refused)


async def test_a_call_that_cannot_be_read_is_put_aside(
    own_redis: Server, admin: redis.asyncio.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_queue(own_redis.url) as queue:
        broken, whole = a_call(), a_call()
        for call in (broken, whole):
            await queue.push(call)
        await admin.hset(f"{{fn}}:m:{broken.id}", "call", "{")
        assert [one.call.id for one in await queue.reserve(1, 0, TTL)] == [whole.id]
        assert await queue.reserve(1, 0, TTL) == []
        [line] = [line for line in caplog.messages if "cannot be read" in line]
        assert "put aside for an hour" in line
        assert await queue.holds([broken.id]) == {broken.id}
        assert [(one.queued, one.leased) for one in await queue.depths()] == [(1, 1)]
        assert set(await queue.find([broken.id, whole.id])) == {whole.id}


async def test_messages_that_the_server_evicted_are_passed_over(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(own_redis.url) as queue:
        calls = [a_call() for _ in range(600)]
        for call in calls:
            await queue.push(call)
        await admin.delete(*[f"{{fn}}:m:{call.id}" for call in calls[:599]])
        assert [one.call.id for one in await queue.reserve(1, 0, TTL)] == [calls[-1].id]


async def test_what_cannot_be_written_as_text_is_invalid(
    own_redis: Server, admin: redis.asyncio.Redis
) -> None:
    async with open_queue(own_redis.url) as queue:
        with pytest.raises(Invalid):
            await queue.push(a_call(path="/\ud800"))
        with pytest.raises(Invalid):
            await queue.holds(["\ud800"])
        assert await queue.push(a_call(path="/𠀋"))
