"""A clock that is off, for one process: libfaketime from Debian's packages."""

from __future__ import annotations

import glob
from pathlib import Path

from tests.engine.packages import Missing, need


def off(seconds: int) -> dict[str, str]:
    """The environment of a process whose clock is *seconds* ahead; raises Missing without the library."""
    need("faketime", "faketime")
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not found:
        raise Missing(f"no libfaketime.so.1 below {Path('/usr/lib')}")
    return {
        "LD_PRELOAD": found[0],
        "FAKETIME": f"{seconds:+d}",
        # Waits go by the monotonic clock, which no wrong setting moves.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
