"""What settings of stores mean together: what is kept where, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_IN_MEMORY = ("sqlite://", "sqlite:///", "sqlite3://", "sqlite3:///")


def doubts(node_type: str, values: Mapping[str, Any]) -> list[str]:
    """What the operator of an API node should be warned of; *values* by variable name."""
    if node_type == "runner":
        return []
    return [*_of_memory(values), *_of_workers(values)]


def _of_memory(values: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}={values[name]} names no file: what is in it is lost when the node ends; "
        "sqlite:///data/fn.db is a file below this folder, sqlite:////srv/fn.db one anywhere"
        for name in ("FN_DB_URL", "FN_LOGSTORE_URL", "FN_MQ_URL")
        if values[name] in _IN_MEMORY
    ]


def _of_workers(values: Mapping[str, Any]) -> list[str]:
    if values["FN_WORKERS"] == 1 or not values["FN_DB_URL"].startswith("sqlite"):
        return []
    return [
        "FN_WORKERS is more than 1, and FN_DB_URL a SQLite file, to which only one worker writes at a time: "
        "more of them need PostgreSQL, MySQL or MariaDB to be faster"
    ]
