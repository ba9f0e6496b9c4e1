"""Whether a Redis server is fit to hold the queue."""

from __future__ import annotations

import logging
from typing import Any

from services.queue.redis_link import Command, RedisLink
from shared_models.finding import Finding, Level

log = logging.getLogger(__name__)

VERSION = 2
_OLDEST = 5


async def check(link: RedisLink) -> None:
    """Marks an empty server as ours; warns of what may lose calls.

    Raises the driver's exceptions, and ValueError for a server that is too old or that a newer
    version of ours has written to.
    """
    [info] = await link.ask([("INFO", "server")])
    # A server may forbid INFO and CONFIG: then nothing is known, and nothing said.
    release = str(info.get("redis_version", "")) if isinstance(info, dict) else ""
    major = release.partition(".")[0]
    if major.isdigit() and int(major) < _OLDEST:
        raise ValueError(f"it is Redis {release}, and the queue needs {_OLDEST} or later")
    key = link.key("version")
    version = await _one(link, ("GET", key))
    if version is None:
        await _one(link, ("SET", key, VERSION, "NX"))
        version = await _one(link, ("GET", key)) or b""
    if not version.isdigit() or int(version) > VERSION:
        raise ValueError(
            f"it has queue schema {version.decode(errors='replace'):.20}, and this version knows {VERSION}: "
            "it was written by a newer version of fn-hybrid; upgrade this node"
        )
    if int(version) < VERSION:
        # The scripts move what layout 1 left, as they come upon it. Nodes that know no other may still run:
        # what they queue is handed out by newer ones, what newer ones queue they do not see.
        await _one(link, ("SET", key, VERSION))
    # A write that changes nothing: a replica, or a server that cannot save, refuses it.
    await _one(link, link.script("release", "", 0, 0))
    await _warn(link)


async def _one(link: RedisLink, command: Command) -> Any:
    [answer] = await link.ask([command])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def durability(link: RedisLink) -> Finding:
    """Whether what the server has acknowledged survives its crash, by its own settings."""
    append_only, sync, policy = await _configured(link, "appendonly", "appendfsync", "maxmemory-policy")
    about = "durability of the queue"
    if append_only is None:
        return Finding(
            Level.WARNING, about, "is unknown: the Redis server does not let this user read its settings",
            "see that it has appendonly yes, appendfsync always and maxmemory-policy noeviction",
        )  # fmt: skip
    if append_only != "yes":
        return Finding(
            Level.WARNING, about, "Redis loses calls since its last snapshot when it stops: appendonly is no",
            "set appendonly to yes and appendfsync to always",
        )  # fmt: skip
    if policy and policy.startswith("allkeys"):
        return Finding(
            Level.WARNING, about, f"Redis may evict queued calls when its memory is full ({policy})",
            "set maxmemory-policy to noeviction",
        )  # fmt: skip
    if sync != "always":
        return Finding(
            Level.WARNING, about, f"Redis may lose the calls of its last second when its machine crashes "
            f"(appendfsync {sync})", "set appendfsync to always, at the price of one sync a round trip",
        )  # fmt: skip
    return Finding(Level.OK, about, "each call is on the server's disk before its 202 (appendfsync always)")


async def _configured(link: RedisLink, *names: str) -> list[str | None]:
    answers = await link.ask([("CONFIG GET", name) for name in names])
    return [
        answer.get(name) if isinstance(answer, dict) else None
        for name, answer in zip(names, answers, strict=True)
    ]


async def _warn(link: RedisLink) -> None:
    policy, append_only, save, sync = await _configured(
        link, "maxmemory-policy", "appendonly", "save", "appendfsync"
    )
    if policy and policy.startswith("allkeys"):
        log.warning(
            "Redis may evict queued calls when its memory is full: set maxmemory-policy to noeviction, "
            "not %s",
            policy,
        )
    if append_only == "no":
        lost = "all calls" if save == "" else "the calls since its last snapshot"
        log.warning("Redis loses %s when it stops: set appendonly to yes", lost)
    elif append_only == "yes" and sync != "always":
        log.info("Redis may lose the calls of its last seconds when it crashes: appendfsync is %s", sync)
