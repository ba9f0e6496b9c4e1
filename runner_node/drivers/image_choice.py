"""Which images go, and in which order. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from runner_node.drivers.image_names import canonical, repository
from runner_node.drivers.image_use import Pulled


class Image(NamedTuple):
    """One image of an engine. *size* in bytes, *shared* those that other images have, too; -1: unknown."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    shared: int = -1

    @property
    def references(self) -> tuple[str, ...]:
        """What has to be removed of it, one after the other, so that it is gone."""
        return self.tags or self.digests or (self.id,)


class Stock(NamedTuple):
    """What an engine has: its images, and bytes of all their layers, shared ones once; -1: unknown."""

    images: tuple[Image, ...]
    layers: int


def stock(listed: Iterable[Mapping[str, Any]], usage: Mapping[str, Any]) -> Stock:
    """From the answers of ``GET /images/json`` and ``GET /system/df``, of which either may say little.

    Sources: the engine's API 1.41, which tells shares in the latter only; 1.42, which tells them in both;
    1.52, which has ``ImageUsage`` instead of ``LayersSize``.
    """
    shares = {one.get("Id"): one.get("SharedSize", -1) for one in usage.get("Images") or ()}
    images = []
    for one in listed:
        shared = one.get("SharedSize", -1)
        images.append(
            Image(
                id=one["Id"],
                tags=_named(one.get("RepoTags")),
                digests=_named(one.get("RepoDigests")),
                size=int(one.get("Size") or 0),
                shared=int(shared if shared >= 0 else shares.get(one["Id"], -1)),
            )
        )
    layers = (usage.get("ImageUsage") or {}).get("TotalSize", usage.get("LayersSize"))
    return Stock(tuple(images), -1 if layers is None else int(layers))


def _named(names: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(name for name in names or () if "<none>" not in name)


def taken(found: Stock, pulled: Collection[str]) -> int:
    """Bytes on the engine's disk that the images with the ids *pulled* take; never too few.

    The smaller of two figures that are each too large at times: their sizes, where layers that several have
    are counted for each; and all layers without what only other images have.
    """
    sizes = sum(one.size for one in found.images if one.id in pulled)
    if found.layers < 0:
        return sizes
    others = (one for one in found.images if one.id not in pulled and one.shared >= 0)
    return min(sizes, max(found.layers - sum(max(one.size - one.shared, 0) for one in others), 0))


def in_order(
    images: Iterable[Image],
    pulled: Mapping[str, Pulled],
    *,
    in_use: Collection[str],
    exempt: Callable[[str], bool],
    before: float,
) -> list[Image]:
    """Those that may be removed, in this order: what no name leads to any more, then the longest unused.

    Not those with an id *in_use*, with a name that is *exempt* and leads to them still, with a name under
    which this node did not pull them, and those that were used since *before*, in unix seconds: they may be
    starting.
    """
    found = [
        one
        for one in images
        if one.id in pulled
        and one.id not in in_use
        and pulled[one.id].used < before
        and _only_ours(one, pulled[one.id].names)
        and not (_wanted(one, pulled[one.id].names) and any(map(exempt, (*one.tags, *one.digests))))
    ]
    return sorted(found, key=lambda one: (_wanted(one, pulled[one.id].names), pulled[one.id].used, one.id))


def _only_ours(image: Image, names: Collection[str]) -> bool:
    repositories = set(map(repository, names))
    return all(canonical(tag) in names for tag in image.tags) and all(
        repository(digest) in repositories for digest in image.digests
    )


def _wanted(image: Image, names: Collection[str]) -> bool:
    """Whether a name that functions used leads to it still: a tag, or a digest that they gave."""
    return bool(image.tags) or any(canonical(digest) in names for digest in image.digests)
