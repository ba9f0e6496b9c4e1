"""When a runner asks the registry for the image of a function, although the engine may have it.

fn.hybrid/image/pull: missing | always | never       of an app, a function or a route
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shared_models import annotations as annotation_maps

PULL = "fn.hybrid/image/pull"
MISSING = "missing"
"""Only when the engine does not have it."""
ALWAYS = "always"
"""Before containers are started, however many, at most every few seconds: what a tag names now is run, and
only while the registry lets this runner have it."""
NEVER = "never"
"""What the engine does not have cannot be run."""
POLICIES = (MISSING, ALWAYS, NEVER)


def pull(annotations: Mapping[str, msgspec.Raw]) -> str:
    """One of ``POLICIES``, from the annotations of a function laid over those of its app."""
    given = annotation_maps.string(annotations, PULL)
    return given if given in POLICIES else MISSING


def is_policy(annotations: Mapping[str, msgspec.Raw], key: str) -> bool:
    """Whether the value under *key* is one of ``POLICIES``."""
    return annotation_maps.string(annotations, key) in POLICIES


RULES = {PULL: (is_policy, f"must be one of {', '.join(POLICIES)}")}
"""What a value under each key must be, and the words for it."""
