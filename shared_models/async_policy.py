"""How often, how late and how long queued calls are tried: defaults of the node, annotations of a function.

Annotations under ``fn.hybrid/`` are ours, so that the existing ``fn`` command can set them: a bad value, or a
key that is none of them, is refused where it is set. Those of an app hold for all of its functions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from shared_models import annotations as annotation_maps
from shared_models import image_policy, invoke_policy, secrets
from shared_models.annotations import Annotations
from shared_models.call import WITHOUT_RESULT, Call, CallType, Reason, Status
from shared_models.env import env
from shared_models.errors import Invalid

_OURS = "fn.hybrid/"
MAX_ATTEMPTS = _OURS + "async/max-attempts"
BACKOFF = _OURS + "async/backoff"
MAX_BACKOFF = _OURS + "async/max-backoff"
RETRY_ON = _OURS + "async/retry-on"
MAX_AGE = _OURS + "async/max-age"
MAX_QUEUED = _OURS + "async/max-queued"
KEEP_RESULT = _OURS + "async/keep-result"
"""Whether the function's answer to a queued call is kept, to be fetched."""
MAX_CONCURRENCY = _OURS + "max-concurrency"
"""Containers of one function on one runner at most."""
WARM_MIN = _OURS + "warm/min"
"""Containers of one function that each runner keeps ready."""
MOST_WARM = 1000
_LONGEST = 366 * 86400
"""Seconds."""
_FOR_GOOD = frozenset({Reason.CANCELLED, Reason.EXPIRED, Reason.GONE, Reason.LOST, Reason.UNUSABLE})
"""Ends that another attempt would not change."""
_RETRYABLE = (Status.ERROR, Status.TIMEOUT)
_YES = b"true"


def statuses(text: str) -> tuple[str, ...]:
    """Ends of a run after which it is to be repeated: ``error``, ``timeout``, or both, by commas."""
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    if any(word not in _RETRYABLE for word in found):
        raise ValueError("must be error, timeout, or error,timeout")
    return found


def _attempts(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if not 1 <= value <= 1000:
        raise ValueError("must be a whole number from 1 to 1000")
    return value


def _lease(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1.0 <= value <= 3600.0:
        raise ValueError("must be a number from 1 to 3600")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncSettings:
    """What holds for queued calls of functions that say nothing themselves. Times in seconds."""

    max_attempts: int = env(
        "FN_ASYNC_MAX_ATTEMPTS", 3, "how often a queued call is tried until it has a result", parse=_attempts
    )
    backoff: float = env(
        "FN_ASYNC_BACKOFF_SECS",
        1.0,
        "pause before a queued call's second attempt; doubles with each",
        unit="s",
    )
    max_backoff: float = env(
        "FN_ASYNC_MAX_BACKOFF_SECS", 300.0, "longest pause between two attempts", unit="s"
    )
    retry_on: tuple[str, ...] = env(
        "FN_ASYNC_RETRY_ON",
        (),
        "results after which a queued call is run again: error, timeout, or both; empty: none",
        parse=statuses,
    )
    max_age: float = env(
        "FN_ASYNC_MAX_AGE_SECS",
        6 * 3600.0,
        "how long a call may be queued before it is given up; 0: no limit",
        unit="s",
    )
    max_queued: int = env(
        "FN_ASYNC_MAX_QUEUED",
        100_000,
        "calls of one function that may be queued, more are refused with 429; 0: no limit",
    )
    lease: float = env(
        "FN_ASYNC_LEASE_SECS",
        30.0,
        "how long a runner that is not heard of keeps the calls that it has taken, at least 1",
        unit="s",
        parse=_lease,
    )


DEFAULTS = AsyncSettings()


def max_attempts(call: Call, settings: AsyncSettings) -> int:
    """Attempts that *call* may have, at least one."""
    return max(1, int(_number(call, MAX_ATTEMPTS, settings.max_attempts)))


def max_age(call: Call, settings: AsyncSettings) -> float:
    """Seconds that *call* may be queued, beyond its own delay; infinite where 0 is set."""
    return max(0.0, _number(call, MAX_AGE, settings.max_age)) or math.inf


def is_too_old(call: Call, age: float, settings: AsyncSettings) -> bool:
    """Whether *call*, which was queued *age* seconds ago, is not to be run any more."""
    return age > call.delay + max_age(call, settings)


def max_queued(call: Call, settings: AsyncSettings) -> int:
    """Calls of its function that may be queued; 0 for no limit."""
    return max(0, int(_number(call, MAX_QUEUED, settings.max_queued)))


def wants_retry(call: Call, settings: AsyncSettings) -> bool:
    """Whether a call that ended as *call* did is to be run again, attempts permitting."""
    if call.status == Status.SUCCESS or call.reason in _FOR_GOOD:
        return False
    if call.reason in WITHOUT_RESULT:
        return True
    given = annotation_maps.string(call.annotations, RETRY_ON)
    wanted = settings.retry_on if given is None else {word.strip() for word in given.split(",")}
    return call.status in wanted


def keeps_result(call: Call) -> bool:
    """Whether the function's answer to *call* is to be kept: to a queued one, where its function says so."""
    given = call.annotations.get(KEEP_RESULT)
    return given is not None and call.type != CallType.SYNC and bytes(given) == _YES


def wants_answer(call: Call) -> bool:
    """Whether the function's answer to *call*, which nobody waits for, is handed in with its end."""
    return bool(call.callback_url) or keeps_result(call)


def pause(call: Call, attempt: int, settings: AsyncSettings) -> float:
    """Seconds before the attempt that follows *attempt* (1, 2, ...): doubling, within a tenth at random."""
    first = max(0.0, _number(call, BACKOFF, settings.backoff))
    most = max(0.0, _number(call, MAX_BACKOFF, settings.max_backoff))
    return min(most, first * 2.0 ** min(attempt - 1, 60)) * random.uniform(0.9, 1.1)


def max_concurrency(annotations: Mapping[str, msgspec.Raw]) -> int:
    """Containers that a function may have on one runner; 0 for no limit."""
    given = annotation_maps.number(annotations, MAX_CONCURRENCY)
    return 0 if given is None else max(1, int(given))


def warm_min(annotations: Mapping[str, msgspec.Raw]) -> int | None:
    """Containers of a function that each runner keeps ready; None where nothing is said of it."""
    given = annotation_maps.number(annotations, WARM_MIN)
    return None if given is None else min(max(0, int(given)), MOST_WARM)


def _number(call: Call, key: str, default: float) -> float:
    given = annotation_maps.number(call.annotations, key)
    return default if given is None else given


def _whole(least: int, most: int) -> Callable[[Annotations, str], bool]:
    def holds(annotations: Annotations, key: str) -> bool:
        value = annotation_maps.number(annotations, key)
        return value is not None and value == int(value) and least <= value <= most

    return holds


def _seconds(annotations: Annotations, key: str) -> bool:
    value = annotation_maps.number(annotations, key)
    return value is not None and 0 <= value <= _LONGEST


def _flag(annotations: Annotations, key: str) -> bool:
    return bytes(annotations[key]) in (_YES, b"false")


def _ends(annotations: Annotations, key: str) -> bool:
    try:
        statuses(annotation_maps.string(annotations, key) or "none")
    except ValueError:
        return False
    return True


_RULES: dict[str, tuple[Callable[[Annotations, str], bool], str]] = {
    MAX_ATTEMPTS: (_whole(1, 1000), "must be a whole number from 1 to 1000"),
    BACKOFF: (_seconds, f"must be a number of seconds from 0 to {_LONGEST}"),
    MAX_BACKOFF: (_seconds, f"must be a number of seconds from 0 to {_LONGEST}"),
    RETRY_ON: (_ends, 'must be "error", "timeout", or "error,timeout"'),
    MAX_AGE: (_seconds, f"must be a number of seconds from 0 to {_LONGEST}"),
    MAX_QUEUED: (_whole(0, 10**9), "must be a whole number, 0 for no limit"),
    KEEP_RESULT: (_flag, "must be true or false"),
    MAX_CONCURRENCY: (_whole(1, 10**6), "must be a whole number of at least 1"),
    WARM_MIN: (_whole(0, MOST_WARM), f"must be a whole number from 0 to {MOST_WARM}"),
    **invoke_policy.RULES,
    **image_policy.RULES,
}


_KNOWN = ", ".join(sorted([*_RULES, f"{secrets.MARK}KEY"]))


def check(annotations: Annotations, *, of_app: bool = True) -> None:
    """Raises Invalid that names the annotation under ``fn.hybrid/`` that is unknown or has a bad value.

    Without *of_app*, also one that only an app can have. A call has those of its app as well.
    """
    for key in annotations:
        if not key.startswith(_OURS):
            continue
        if key.startswith(secrets.MARK):
            secrets.check_mark(annotations, key)
            continue
        if key in invoke_policy.OF_APPS and not of_app:
            raise Invalid(f"Annotation {key} is for apps: set it on the app of this function")
        if key not in _RULES:
            raise Invalid(f"Unknown annotation {key}: those under {_OURS} are {_KNOWN}")
        holds, rule = _RULES[key]
        if not holds(annotations, key):
            raise Invalid(f"Annotation {key} {rule}")
