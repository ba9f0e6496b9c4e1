"""Annotations: JSON values under ASCII keys that a user hangs on an app, a function or a trigger.

Values are kept as the compact JSON text that they came as: two values are equal when their texts
are. Limits: 100 keys, keys of 128 bytes, values of 512 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from shared_models import errors

Annotations = dict[str, msgspec.Raw]

MAX_KEYS = 100
MAX_KEY_BYTES = 128
MAX_VALUE_BYTES = 512
_REMOVE = b'""'


def check(annotations: Annotations) -> None:
    """Raises one of the annotation errors when a key, a value or their number breaks a rule."""
    if len(annotations) > MAX_KEYS:
        raise errors.TooManyAnnotations
    for key, value in annotations.items():
        if not key or not all("!" <= char <= "~" for char in key):
            raise errors.InvalidAnnotationKey
        if len(key) > MAX_KEY_BYTES:
            raise errors.InvalidAnnotationKeyLength
        text = bytes(value)
        if text in (_REMOVE, b"null"):
            raise errors.InvalidAnnotationValue
        if len(text) > MAX_VALUE_BYTES:
            raise errors.InvalidAnnotationValueLength


def merge(old: Annotations, change: Annotations) -> Annotations:
    """*old* with *change* laid over it; an empty string (or null) removes its key."""
    merged = {key: value for key, value in old.items() if key not in change}
    merged.update({key: value for key, value in change.items() if bytes(value) not in (_REMOVE, b"null")})
    return merged


def same(one: Annotations, other: Annotations) -> bool:
    """Whether both have the same keys with the same texts."""
    return texts(one) == texts(other)


def texts(annotations: Mapping[str, msgspec.Raw]) -> dict[str, bytes]:
    """Plain bytes per key (msgspec.Raw does not compare by content across buffers)."""
    return {key: bytes(value) for key, value in annotations.items()}


def string(annotations: Mapping[str, msgspec.Raw], key: str) -> str | None:
    """The value under *key* when it is a JSON string, else None."""
    value = annotations.get(key)
    if value is None or not bytes(value).startswith(b'"'):
        return None
    return msgspec.json.decode(value, type=str)


def number(annotations: Mapping[str, msgspec.Raw], key: str) -> float | None:
    """The value under *key* as a finite number (``3`` or ``"3"``), None when it is missing or neither."""
    value = annotations.get(key)
    if value is None:
        return None
    try:
        found = msgspec.json.decode(value, type=float, strict=False)
    except msgspec.MsgspecError:
        return None
    return found if math.isfinite(found) else None
