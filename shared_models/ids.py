"""128-bit ids that sort by time, in the text form that Fn uses.

An id is 48 bits of unix milliseconds, 48 bits that name the process that made it, and a 32-bit
counter, big endian. Its text is 26 characters of Crockford's base32, the first of which holds three
bits. Ids of one process never repeat and sort in the order in which they were made.

Where Fn takes the address and port of the machine for the middle part, we take random bits: nodes
without an IPv4 address, or behind the same one, must not share an id space.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
_VALUES = {char: value for value, char in enumerate(ALPHABET)}
_MIRROR = str.maketrans(ALPHABET, ALPHABET[::-1])
_LAST_MILLIS = 2**48 - 1
_SAME = LENGTH - 7
"""Characters in which nothing of the counter is."""
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]


class IdMaker:
    """Makes ids; one per process. Not safe across threads (an event loop is one thread)."""

    def __init__(self, machine: int | None = None, clock: Callable[[], float] = time.time) -> None:
        self._machine = (secrets.randbits(48) if machine is None else machine) << 32
        self._clock = clock
        self._count = 0
        self._last = 0
        self._prefix = ""
        self._low = (self._machine >> 32 & 7) << 32

    def __call__(self) -> str:
        """A new id, greater than every id that this maker gave before."""
        now = int(self._clock() * 1000)
        count = self._count = (self._count + 1) & 0xFFFFFFFF
        # A clock that is set back must not make ids that sort before their elders.
        if now > self._last or count == 0:
            self._last = now if now > self._last else self._last + 1
            self._prefix = to_text((self._last << 80) | self._machine)[:_SAME]
        # All but the counter, and three bits that stand before it, is the same within a millisecond.
        low = self._low | count
        first, second, third = _PAIRS[low >> 25], _PAIRS[low >> 15 & 1023], _PAIRS[low >> 5 & 1023]
        return f"{self._prefix}{first}{second}{third}{ALPHABET[low & 31]}"


new_id = IdMaker()


def to_text(value: int) -> str:
    """The text form of a 128-bit number."""
    pairs = _PAIRS
    return "".join([pairs[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def is_id(text: str) -> bool:
    """Whether *text* is an id's text form."""
    return len(text) == LENGTH and text[0] <= "7" and all(char in _VALUES for char in text)


def time_of(text: str) -> float:
    """Unix seconds at which the id was made. *text* must be an id."""
    value = 0
    for char in text[:10]:
        value = (value << 5) | _VALUES[char]
    return value / 1000


def first_of(seconds: float) -> str:
    """The least id of that moment (unix seconds, to the millisecond): ids made before sort before it.

    Moments before 1970 are as 1970, those too far ahead as the last.
    """
    # Rounded, since a float cannot say every millisecond: 1.001 s may be 1000.9999... of them.
    millis = round(seconds * 1000)
    return to_text(min(max(millis, 0), _LAST_MILLIS) << 80)


def descending(text: str) -> str:
    """The mirrored form, whose ascending order is newest first; its own inverse."""
    return text.translate(_MIRROR)
