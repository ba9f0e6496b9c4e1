"""How callbacks are delivered, and which addresses they may lead to."""

from __future__ import annotations

from dataclasses import dataclass

from shared_models.destinations import destinations
from shared_models.env import env, number, whole


def _at_least_one(text: str) -> int:
    value = whole(text)
    if not value:
        raise ValueError("must be at least 1")
    return value


def _some_time(text: str) -> float:
    value = number(text)
    if not value:
        raise ValueError("must be more than 0")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackSettings:
    """Times in seconds. Those without a variable are the same for everybody, but for tests."""

    allow: tuple[str, ...] = env(
        "FN_CALLBACK_ALLOW",
        (),
        "where callbacks may be sent although it is not public: networks such as 10.0.0.0/8, host names "
        "such as hooks.internal or *.internal, by commas; *: everywhere",
        parse=destinations,
    )
    concurrency: int = env(
        "FN_CALLBACK_CONCURRENCY",
        20,
        "callbacks that this node sends at once; those of one app get half of it",
        parse=_at_least_one,
    )
    per_host: int = env(
        "FN_CALLBACK_PER_HOST",
        4,
        "callbacks that this node sends at once to one host and port",
        parse=_at_least_one,
    )
    timeout: float = env(
        "FN_CALLBACK_TIMEOUT_SECS",
        15.0,
        "time in which a receiver must have answered",
        unit="s",
        parse=_some_time,
    )
    connect_timeout: float = env(
        "FN_CALLBACK_CONNECT_TIMEOUT_SECS",
        5.0,
        "time in which a receiver must take the connection",
        unit="s",
        parse=_some_time,
    )
    max_age: float = env(
        "FN_CALLBACK_MAX_AGE_SECS",
        86400.0,
        "how long a callback is tried until it is given up",
        unit="s",
    )
    first_pause: float = 5.0
    max_pause: float = 3600.0
    poll: float = 1.0
    parting: float = 5.0
