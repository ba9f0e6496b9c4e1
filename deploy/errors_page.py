"""Every error that a client can be told, from the classes that say it: docs/errors.md, by ``make docs``."""

# ruff: noqa: E501 -- sentences of a page

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator

from deploy.errors_advice import ADVICE
from shared_models import errors
from shared_models.errors import FnError

_HEAD = """\
# Errors

What clients are told, by status. This page is made from the code (`make docs`). The body is
`{"message": "..."}`, and `{"error": {"message": "..."}}` below `/v1/` and `/r/`; `...` in a message stands for
what it is about. What else is known, such as a cause or numbers, is in the header `Error-Detail`. A reply of a call has
its id in `Fn-Call-Id`, errors as well. 429 and 503 come with `Retry-After` in seconds. Words that Fn has are Fn's. Messages
of nodes and commands, which are no answers, are in [troubleshooting.md](troubleshooting.md); what a record says in `reason`
is in [guarantees.md](guarantees.md#attempts).

A message that is not here has the status of its kind, and names the rule and what is wrong itself: of headers, annotations,
tokens. `internal server error` (500) is anything else: a fault of the node, whose log has it. Paths and methods that a node
does not know are 404 and 405; `/v1/runner/` on an API node that has `FN_RUNNER_API_PORT` is 421; `Too many connections, try
again` (503) is told where `FN_HTTP_MAX_CONNECTIONS` are open.
"""


# Not those of http: they differ between versions of Python.
_PHRASES = {
    400: "Bad request", 401: "Unauthorized", 403: "Forbidden", 404: "Not found", 406: "Not acceptable", 409: "Conflict",
    413: "Content too large", 429: "Too many requests", 499: "The client hung up", 500: "Internal server error",
    502: "Bad gateway", 503: "Service unavailable", 504: "Gateway timeout",
}  # fmt: skip


class _Hole(str):
    """What is put into a message by whoever raises it."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return "..."

    def __repr__(self) -> str:
        return "'...'"


def leaves() -> list[type[FnError]]:
    """All errors that somebody raises; kinds stand for what has no leaf of its own."""
    return sorted(_below(FnError), key=lambda kind: (kind.status, kind.__name__))


def message(kind: type[FnError]) -> str:
    """Its words, with ``...`` for what differs."""
    needed = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    return kind(**{name: _Hole() for name in needed}).message


def advice(kind: type[FnError]) -> str:
    """Its cause and what to do: its own, or that of its kind."""
    return next((ADVICE[one] for one in kind.__mro__ if one in ADVICE), "")


def markdown() -> str:
    """docs/errors.md."""
    lines = [_HEAD.rstrip("\n")]
    for status, kinds in itertools.groupby(leaves(), key=lambda kind: int(kind.status)):
        lines += ["", f"## {status} {_PHRASES[status]}", "", *_section(list(kinds))]
    return "\n".join(lines) + "\n"


def _section(kinds: list[type[FnError]]) -> list[str]:
    # What is said of a whole kind ends with a colon, and stands before its list.
    told = [kind for kind in kinds if kind in ADVICE and not ADVICE[kind].endswith(":")]
    own = [f"| `{message(kind)}` | {advice(kind)} |" for kind in told]
    others = [kind for kind in kinds if kind not in ADVICE]
    rules = [f"- `{message(kind)}`" for kind in others]
    head = ["| message | cause, and what to do |", "|---|---|"]
    return [*head, *own] + ([f"\n{advice(others[0])}\n", *rules] if others else [])


def _below(kind: type[FnError]) -> Iterator[type[FnError]]:
    for one in kind.__subclasses__():
        # Those of tests and extensions are not of the tree.
        if one.__module__.startswith(errors.__name__):
            if not one.__subclasses__() or one in ADVICE:
                yield one
            yield from _below(one)


if __name__ == "__main__":
    print(markdown(), end="")
