"""A server of somebody else's, which tests use and never stop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Given:
    """*url*: as a setting has it."""

    url: str
