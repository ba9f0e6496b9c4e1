"""What settings of runner nodes mean together: where they are called, what cannot start, what a stop cuts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from shared_models.finding import Finding, Level
from shared_models.fn import MAX_TIMEOUT

if TYPE_CHECKING:
    from runner_node.settings import AgentSettings
    from shared_models.http_settings import HTTPSettings

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


def examine(http: HTTPSettings, agent: AgentSettings) -> Iterator[Finding]:
    """Whether a node that stops lets each function that it runs come to its end: ``fn-node doctor``."""
    again = "run again elsewhere, as one more attempt"
    for name, seconds, cut in (
        ("FN_HTTP_DRAIN", http.drain, "requests that take longer are cut off"),
        ("FN_DRAIN_SECS", agent.drain, f"detached calls that take longer are cut off, and {again}"),
    ):
        if seconds < MAX_TIMEOUT:
            yield Finding(
                Level.WARNING, f"stop of the node ({name})",
                f"waits {seconds:g} s, and a function may take {MAX_TIMEOUT} s: {cut}",
                f"set it to {MAX_TIMEOUT + 10}, and kill the node no sooner",
            )  # fmt: skip


def _of_callers(values: Mapping[str, Any]) -> list[str]:
    if values["FN_PUBLIC_LB_URL"]:
        return []
    return [
        "FN_PUBLIC_LB_URL is not set: replies tell clients to call functions where they asked, and this node "
        'answers such calls 404 ("fn invoke" fails); set it to where clients reach runner nodes, or to the '
        "load balancer that serves both tiers at one address"
    ]
