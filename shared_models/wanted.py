"""What the API nodes want runners to have ready: images of functions that changed, and warm containers."""

from __future__ import annotations

import msgspec

from shared_models import annotations as annotation_maps
from shared_models import async_policy
from shared_models.annotations import Annotations

MAX_IMAGES = 100
"""Images that one answer names; the next one goes on."""
MAX_WARM = 1000
"""Functions and routes that runners keep warm at most, of each: no runner has room for more."""
UNSAID, NONE, SOME = "", "0", "1"
"""Whether an app, a function or a route wants warm containers, as it is stored: it says nothing, no, yes."""


class WarmTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A function (*fn_id*), or a route (*path* of *app_id*), of which each runner keeps *count* containers.

    *version* is another one whenever it or its app has changed.
    """

    fn_id: str = ""
    app_id: str = ""
    path: str = ""
    count: int = 1
    version: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """*images* of what has changed since the time that was asked for, the oldest change first; all of *warm*.

    *cursor* is the time to ask for next; changes that are seconds old are told again until it passes them.
    *more*: there are more changes to be asked for at once.
    """

    images: list[str] = []
    warm: list[WarmTarget] = []
    cursor: str = ""
    more: bool = False


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A function or a route that needs *image* was made or changed at *at* (wire text).

    *image* is empty where it is never to be pulled.
    """

    at: str
    image: str


def said(annotations: Annotations) -> str:
    """What *annotations* say of warm containers: ``UNSAID``, ``NONE`` or ``SOME``."""
    count = async_policy.warm_min(annotations)
    return UNSAID if count is None else SOME if count else NONE


def count_of(app: Annotations, own: Annotations) -> int:
    """Containers to keep of a function or a route with its *own* annotations, in an app with *app*."""
    return async_policy.warm_min(annotation_maps.merge(app, own)) or 0


def version_of(updated_at: str, app_updated_at: str) -> str:
    """The version of what was last changed at *updated_at*, in an app that was at *app_updated_at*."""
    return f"{updated_at}/{app_updated_at}"
