"""Names of images, which engines and people write in several ways: made one, and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from runner_node.drivers import credentials


class _Name(NamedTuple):
    """*repository* with its registry; *tag* and *digest* are empty where the name has none."""

    repository: str
    tag: str
    digest: str


def _parsed(image: str) -> _Name:
    name, _, digest = image.partition("@")
    host, path = credentials.repository(image)
    return _Name("/".join((host, *path)), name.rpartition("/")[2].partition(":")[2], digest)


def canonical(image: str) -> str:
    """*image* in the one way that all names of it have in common: ``docker.io/library/busybox:latest``.

    With a digest its tag says nothing, and is left out, as engines leave it out.
    """
    repository, tag, digest = _parsed(image)
    return f"{repository}@{digest}" if digest else f"{repository}:{tag or 'latest'}"


def repository(image: str) -> str:
    """*image* without tag and digest, in that way."""
    return _parsed(image).repository


def matching(wanted: Iterable[str]) -> Callable[[str], bool]:
    """Whether an image is one of *wanted*; of those a name without tag and digest means all of its tags."""
    whole: set[str] = set()
    exact: set[str] = set()
    for name in wanted:
        _, tag, digest = _parsed(name)
        if tag or digest:
            exact.add(canonical(name))
        else:
            whole.add(repository(name))
    return lambda image: repository(image) in whole or canonical(image) in exact
