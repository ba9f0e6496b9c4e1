"""Values of config that are secret: marks that hide them in replies, and names of what only runners have.

fn.hybrid/secret/KEY: true      of an app, a function or a route: the value of KEY in config is hidden
secret://NAME                   as a value in config: what the runner has under NAME for this app
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from shared_models.errors import Invalid

if TYPE_CHECKING:
    from shared_models.app import App
    from shared_models.call import Call
    from shared_models.config import Headers
    from shared_models.fn import Fn
    from shared_models.route import Route

MARK = "fn.hybrid/secret/"
HIDDEN = "***"
"""What replies show instead of a hidden value. Sent back in a change it leaves the stored value as it is."""
SCHEME = "secret://"
_NAME = re.compile(r"(?!\.\.)[A-Za-z0-9._-]{1,253}(?<!^\.)")
_MARKED = b"true"
_WHO = frozenset({"authorization", "proxy-authorization", "cookie"})
"""Headers that say who somebody is."""
_AS_VARIABLE = "fn_header_"
"""Begins the names of headers in the environment of a call in the default format, which is in its config."""

Notes = Mapping[str, msgspec.Raw]


T = TypeVar("T", "App", "Call", "Fn", "Route")


def marked(*maps: Notes) -> set[str]:
    """The keys of config that one of these annotations (of an app, and of what is in it) hides."""
    return {key.removeprefix(MARK) for notes in maps for key in notes if key.startswith(MARK)}


def check_mark(annotations: Notes, key: str) -> None:
    """Raises Invalid unless the annotation *key*, which begins with ``MARK``, is as it must be."""
    if key == MARK or bytes(annotations[key]) != _MARKED:
        raise Invalid(f"Annotation {key} must be true, and name a key of config behind {MARK}")


def check(config: Mapping[str, str], annotations: Notes) -> None:
    """Raises Invalid for a value of *config* that cannot be a secret, and names the key."""
    check_shown(config, {}, annotations)
    for key, value in config.items():
        if value.startswith(SCHEME) and not name_of(value):
            raise Invalid(f"config {key}: {SCHEME}NAME needs a name of letters, numbers, '.', '_' and '-'")


def check_shown(config: Mapping[str, str], stored: Mapping[str, str], annotations: Notes) -> None:
    """Raises Invalid for ``HIDDEN`` at a key that *annotations* hide and that *stored* has no value for."""
    for key in marked(annotations):
        if config.get(key) == HIDDEN and key not in stored:
            raise Invalid(f"config {key}: {HIDDEN} stands for a value that is hidden: send the value itself")


def name_of(value: str) -> str:
    """The name that *value* of config refers to; empty when there is none, or it is no name of a file."""
    name = value.removeprefix(SCHEME)
    return name if value.startswith(SCHEME) and _NAME.fullmatch(name) else ""


def hidden(resource: T, of_app: Notes | None = None) -> T:
    """An app, function or route as clients may see it; *of_app* are the annotations of its app."""
    if not (resource.config and (of_app or resource.annotations)):
        return resource
    keys = marked(of_app or {}, resource.annotations) & resource.config.keys()
    if not keys:
        return resource
    return msgspec.structs.replace(resource, config={**resource.config, **dict.fromkeys(keys, HIDDEN)})


def shown(headers: Headers) -> Headers:
    """The *headers* of a call as replies show them: those that others could use stay with the call."""
    return {
        name: [HIDDEN] * len(values) if name.lower() in _WHO else values for name, values in headers.items()
    }


def _header(key: str) -> str:
    name = key.lower()
    return name.removeprefix(_AS_VARIABLE) if name.startswith(_AS_VARIABLE) else ""


def shown_config(config: Mapping[str, str]) -> dict[str, str]:
    """The *config* of a call as replies show it: as ``shown``, of headers that are in its environment."""
    return {key: HIDDEN if _header(key) in _WHO else value for key, value in config.items()}


def without(call: T, *more: Notes) -> T:
    """*call* without the values of config that are marked, by its annotations or by *more*."""
    keys = marked(call.annotations, *more) & call.config.keys()
    if not keys:
        return call
    kept = {key: value for key, value in call.config.items() if key not in keys}
    return msgspec.structs.replace(call, config=kept)
