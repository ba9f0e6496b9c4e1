"""What an operator can set about running functions."""

from __future__ import annotations

import dataclasses

from shared_models.destinations import destinations
from shared_models.env import env, millis, number, words

SYSLOG_ALLOW = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7",
    "127.0.0.0/8", "::1/128", "/dev/log",
)  # fmt: skip
"""Private and shared networks, where collectors of clusters are, and what takes lines on the machine."""


def percentage(text: str) -> float:
    """A number from 0 to 100."""
    value = number(text)
    if value > 100:
        raise ValueError("must be a number from 0 to 100")
    return value


def folder(text: str) -> str:
    """A folder; empty for ``none`` (an empty variable counts as not set)."""
    return "" if text == "none" else text


def collectors(text: str) -> tuple[str, ...]:
    """What ``destinations`` takes, and paths of unix sockets; empty for ``none``."""
    found = () if text == "none" else words(text)
    sockets = tuple(one for one in found if one.startswith("/"))
    return destinations(" ".join(one for one in found if one not in sockets)) + sockets


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Of the agent and all that it owns. Seconds, bytes and milli-CPUs inside."""

    freeze_idle: float = env(
        "FN_FREEZE_IDLE_MSECS", 0.05, "idle time after which a hot container is frozen; negative: never",
        unit="ms", parse=millis,
    )  # fmt: skip
    eject_idle: float = env(
        "FN_EJECT_IDLE_MSECS", 1.0, "idle time after which a container makes room for a function that waits",
        unit="ms", parse=millis,
    )  # fmt: skip
    start_timeout: float = env(
        "FN_HOT_START_TIMEOUT_MSECS",
        5.0,
        "time that a container has to open its socket",
        unit="ms",
        parse=millis,
    )
    secrets_path: str = env(
        "FN_SECRETS_PATH",
        "",
        "folder of secrets: secret://NAME in config is the file APP/NAME below it; empty: there are none",
    )
    slot_wait: float = env(
        "FN_SLOT_WAIT_SECS",
        60.0,
        "time that a sync call waits for a container before it is answered 503",
        unit="s",
    )
    max_waiting_calls: int = env(
        "FN_MAX_WAITING_CALLS",
        10_000,
        "sync calls that wait for a container; one function gets as many places as it leaves to all others, "
        "the rest is answered 503; 0: no limit",
    )
    max_waiting_size: int = env(
        "FN_MAX_WAITING_BYTES",
        512 << 20,
        "bodies of sync calls that wait for a container, shared out in the same way; 0: no limit",
        unit="bytes",
    )
    fair_share_reserve: float = env(
        "FN_FAIR_SHARE_RESERVE",
        10.0,
        "part of the memory that only functions without a container may take, at least 128 MB on a node "
        "that has 512 MB; 0: none",
        unit="%",
        parse=percentage,
    )
    max_response_size: int = env(
        "FN_MAX_RESPONSE_SIZE", 32 << 20, "largest body that a function may answer; 0: no limit", unit="bytes"
    )
    stream_above: int = env(
        "FN_STREAM_ABOVE_BYTES",
        1 << 20,
        "bodies larger than this are passed on as they come, both ways, and not held in memory; a smaller "
        "request is read before it gets a container",
        unit="bytes",
    )
    max_header_size: int = env(
        "FN_MAX_HDR_RESPONSE_SIZE",
        64 << 10,
        "largest head that a function may answer; 0: no limit",
        unit="bytes",
    )
    max_log_size: int = env(
        "FN_MAX_LOG_SIZE_BYTES", 1 << 20, "largest log that is kept of one call; 0: no limit", unit="bytes"
    )
    log_calls: bool = env(
        "FN_LOG_CALLS", False, "whether lines that functions write go to stdout, as JSON with their call's id"
    )
    max_memory: int = env(
        "FN_MAX_TOTAL_MEMORY_BYTES", 0, "memory for all containers; 0: what the machine has", unit="bytes"
    )
    max_cpus: int = env(
        "FN_MAX_TOTAL_CPU_MCPUS", 0, "CPU for all containers; 0: what the machine has", unit="milli-CPUs"
    )
    cache_stale: float = env(
        "FN_CACHE_STALE_SECS",
        600.0,
        "how long look-ups are served from memory while the API node is away",
        unit="s",
    )
    drain: float = env("FN_DRAIN_SECS", 30.0, "time that running calls get when the node stops", unit="s")
    spool_path: str = env(
        "FN_SPOOL_PATH",
        "data/spool",
        "folder for results that no API node has taken yet, one below it per node; none: memory only",
        parse=folder,
        show=lambda value: str(value or "none"),
    )
    max_spool_size: int = env(
        "FN_MAX_SPOOL_SIZE_BYTES",
        1 << 30,
        "largest size of that folder; when it, or its disk, is full, results of sync calls go first, "
        "and queued calls whose results do not fit run again",
        unit="bytes",
    )
    max_async: int = env("FN_MAX_ASYNC_CALLS", 0, "detached calls run at once; 0: as many as fit in memory")
    images_ahead: int = env(
        "FN_IMAGES_AHEAD",
        1,
        "images of functions that were made or changed that are fetched at once, ahead of their first call; "
        "0: none",
    )
    syslog_ca: str = env(
        "FN_SYSLOG_CA",
        "",
        "file of certificates to trust when function logs go to syslog over TLS; empty: those of the system",
    )
    syslog_allow: tuple[str, ...] = env(
        "FN_SYSLOG_ALLOW",
        SYSLOG_ALLOW,
        "where function logs may be sent although it is not public: networks such as 10.0.0.0/8, host names "
        "such as logs.internal or *.internal, paths of unix sockets, by commas; *: everywhere; none: nowhere",
        parse=collectors,
        show=lambda value: ",".join(value) or "none",
    )
    callback_max_body: int = env(
        "FN_CALLBACK_MAX_BODY",
        256 << 10,
        "bytes of a function's answer that a completion callback or a kept result has at most; the rest is "
        "cut off",
        unit="bytes",
    )
