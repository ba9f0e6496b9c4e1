"""Configuration of apps and functions (environment variables), headers, and shares of CPUs."""

from __future__ import annotations

import functools
import re

from shared_models.errors import Invalid, InvalidCPUs
from shared_models.secrets import HIDDEN

Config = dict[str, str]
Headers = dict[str, list[str]]

MAX_MILLI_CPUS = 1024 * 1000
_MILLIS = re.compile(r"[0-9]{1,20}m")
_CPUS = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def check(config: Config) -> None:
    """Raises Invalid for what no environment variable can be: names and values are without NUL."""
    for key, value in config.items():
        if "\0" in key or "\0" in value:
            shown = key.replace("\0", "\\0")
            raise Invalid(f"config: key and value must not contain NUL: {shown[:64]!r}")


def merge(old: Config, change: Config) -> Config:
    """*old* with *change* laid over it; an empty value removes its key, ``***`` leaves it as it is."""
    change = {key: value for key, value in change.items() if value != HIDDEN or key not in old}
    merged = {**old, **change}
    return {key: value for key, value in merged.items() if value != "" or key not in change}


@functools.lru_cache(maxsize=4096)
def canonical_header(name: str) -> str:
    """A header's name as Go writes it: ``x-custom`` becomes ``X-Custom``, ``Fn_Call`` ``Fn_call``.

    A name with a character that no header may have stays as it is.
    """
    if not name or not _TOKEN.issuperset(name):
        return name
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def milli_cpus(text: str) -> int:
    """Thousandths of a CPU in ``"500m"`` or ``"0.5"``; 0 (no limit) for ``""``. Raises InvalidCPUs.

    Source: api/models/cpus.go (Fn 0.3.484), which takes NaN too and then fails.
    """
    text = text.strip()
    if not text:
        return 0
    if _MILLIS.fullmatch(text):
        millis = int(text[:-1])
    elif _CPUS.fullmatch(text):
        cpus = float(text)
        # What is below zero or endless must not get as far as int().
        if not 0 <= cpus <= MAX_MILLI_CPUS / 1000:
            raise InvalidCPUs
        millis = int(cpus * 1000)
    else:
        raise InvalidCPUs
    if millis > MAX_MILLI_CPUS:
        raise InvalidCPUs
    return millis


def cpus_text(text: str) -> str:
    """*text* as it is stored: ``"500m"`` for ``"0.5"``, ``""`` for nothing. Raises InvalidCPUs."""
    millis = milli_cpus(text)
    return f"{millis}m" if millis else ""


def merge_headers(old: Headers, change: Headers) -> Headers:
    """*old* with *change* laid over it; an empty list removes its header, however that is spelled."""
    removed = {canonical_header(name) for name, values in change.items() if not values}
    merged = {name: values for name, values in old.items() if canonical_header(name) not in removed}
    merged.update({name: values for name, values in change.items() if values})
    return merged
