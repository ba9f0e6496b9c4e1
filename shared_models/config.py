"""Configuration of apps and functions (environment variables), and the headers of a call."""

from __future__ import annotations

import functools

Config = dict[str, str]
Headers = dict[str, list[str]]

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def merge(old: Config, change: Config) -> Config:
    """*old* with *change* laid over it; an empty value removes its key."""
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
