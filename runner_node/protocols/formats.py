"""The formats over stdin and stdout by name."""

from __future__ import annotations

from runner_node.protocols.cloudevent import CloudEventFormat
from runner_node.protocols.contract import Format
from runner_node.protocols.default import DefaultFormat
from runner_node.protocols.http_format import HTTPFormat
from runner_node.protocols.json_format import JSONFormat
from shared_models import errors

_FORMATS: dict[str, Format] = {
    found.name: found for found in (DefaultFormat(), JSONFormat(), HTTPFormat(), CloudEventFormat())
}


def format_of(name: str) -> Format:
    """The format called *name* (``""`` is the default one); raises Invalid when there is none."""
    found = _FORMATS.get(name or DefaultFormat.name)
    if found is None:
        known = ", ".join(_FORMATS)
        raise errors.Invalid(f"Function format {name[:64]!r} is not known, use one of {known}, http-stream")
    return found
