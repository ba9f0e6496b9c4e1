"""What it means for a call that its container has ended."""

from __future__ import annotations

from runner_node.drivers.contract import Exit
from runner_node.reasons import ContainerKilled, End
from shared_models import errors
from shared_models.call import Reason, Status

KILLED = 137
"""Exit code of a killed process, which Fn takes for out of memory."""


def must_be_zero(end: Exit) -> None:
    """Raises what a client is to be told of a container that did not end well, in Fn's words."""
    if end.oom:
        raise errors.ContainerOutOfMemory
    if end.code == KILLED:
        raise ContainerKilled
    if end.code:
        raise errors.ContainerExited(end.code)


def end_of(error: errors.FnError, end: Exit) -> End:
    """The end of a call whose client was told *error*, because its container had ended."""
    if end.oom:
        return End(Status.ERROR, errors.ContainerOutOfMemory.text, Reason.OOM)
    return End(Status.ERROR, f"{error.message}: {how(end)}", Reason.EXIT)


def how(end: Exit) -> str:
    """In a few words, for logs and records."""
    if end.oom:
        return "container out of memory (oom)"
    return f"container exit code {end.code}"
