"""The alphabet of names, and checks that several resources share."""

from __future__ import annotations

import unicodedata

MAX_NAME_BYTES = 255


def is_name(text: str) -> bool:
    """Whether *text* has only letters and numbers (of any script), ``_`` and ``-``."""
    if text.isascii():
        return all(char.isalnum() or char in "_-" for char in text)
    return all(char in "_-" or unicodedata.category(char)[0] in "LN" for char in text)


def too_long(text: str) -> bool:
    """Whether *text* has more than 255 bytes in UTF-8."""
    return len(text) > MAX_NAME_BYTES or len(text.encode("utf-8", "replace")) > MAX_NAME_BYTES
