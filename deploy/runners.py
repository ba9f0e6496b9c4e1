"""What settings of runner nodes mean together: what no function could be started with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_ONE = 128 << 20
"""Bytes of a function that says nothing of its memory."""


def doubts(node_type: str, values: Mapping[str, Any]) -> list[str]:
    """What the operator of a runner node should be warned of; *values* by variable name."""
    if node_type == "api":
        return []
    found = []
    if values["FN_DRIVER"] == "process" and not values["FN_PROCESS_IMAGES"]:
        found.append(
            "FN_PROCESS_IMAGES is not set, and FN_DRIVER=process finds functions there: none can start; "
            "FN_PROCESS_IMAGES=examples has those of make run"
        )
    memory = values["FN_MAX_TOTAL_MEMORY_BYTES"]
    if 0 < memory < _OF_ONE:
        found.append(
            f"FN_MAX_TOTAL_MEMORY_BYTES={memory} is in bytes, and less than the {_OF_ONE} of a function "
            "that names no memory: such calls are refused"
        )
    return found
