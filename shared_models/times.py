"""Points in time as the wire has them: text, UTC, milliseconds, so that text order is time order."""

from __future__ import annotations

import functools
import math
import re
import time
from datetime import UTC, datetime, timedelta

NEVER = "0001-01-01T00:00:00.000Z"
"""What Fn writes for a time that is not set."""

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))")


def to_text(seconds: float) -> str:
    """Unix seconds as wire text."""
    return _millisecond(int(seconds * 1000))


def now() -> str:
    """The present as wire text."""
    return to_text(time.time())


def deadline_text(seconds: float) -> str:
    """Unix seconds as RFC 3339 without a fraction, as in ``Fn-Deadline``."""
    return f"{_second(math.floor(seconds))}Z"


# Each call asks for a few times, and many calls for the same.
@functools.lru_cache(maxsize=64)
def _millisecond(millis: int) -> str:
    return f"{_second(millis // 1000)}.{millis % 1000:03}Z"


@functools.lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    parts = time.gmtime(seconds)
    return f"{parts[0]:04}-{parts[1]:02}-{parts[2]:02}T{parts[3]:02}:{parts[4]:02}:{parts[5]:02}"


def normalise(text: str) -> str:
    """Any RFC 3339 time as wire text; raises ValueError when it is none."""
    match = _RFC3339.fullmatch(text)
    if not match:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    millis = int((match[7] or "0").ljust(3, "0")[:3])
    moment = datetime(year, month, day, hour, minute, second, millis * 1000, tzinfo=UTC)
    if match[8]:
        offset = timedelta(hours=int(match[9]), minutes=int(match[10]))
        try:
            moment = moment - offset if match[8] == "+" else moment + offset
        except OverflowError as exc:
            raise ValueError(f"time out of range: {text!r}") from exc
    # Not strftime: on some platforms it does not pad years before 1000.
    return f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}.{millis:03}Z"


def seconds_of(text: str) -> float:
    """Unix seconds of a wire text."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
