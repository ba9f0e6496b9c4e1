"""What ``fn-node doctor`` finds."""

from __future__ import annotations

import enum

import msgspec


class Level(enum.StrEnum):
    """``warning``: works, and may lose or refuse calls. ``error``: the node cannot work so."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: *about* names it, *says* tells what is, *advice* what to do about it."""

    level: Level
    about: str
    says: str
    advice: str = ""
