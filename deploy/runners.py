"""What settings of runner nodes mean together: where they are called, what no function could be started with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_ONE = 128 << 20
"""Bytes of a function that says nothing of its memory."""


def doubts(node_type: str, values: Mapping[str, Any]) -> list[str]:
    """What an operator should be warned of; *values* by variable name."""
    if node_type == "api":
        return _of_callers(values)
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


def _of_callers(values: Mapping[str, Any]) -> list[str]:
    if values["FN_PUBLIC_LB_URL"]:
        return []
    return [
        "FN_PUBLIC_LB_URL is not set: replies tell clients to call functions where they asked, and this node "
        'answers such calls 404 ("fn invoke" fails); set it to where clients reach runner nodes, or to the '
        "load balancer that serves both tiers at one address"
    ]
