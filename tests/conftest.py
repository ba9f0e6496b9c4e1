"""Fixtures that tests of several kinds share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.engine.dockerd import engine as open_engine
from tests.engine.images import Images
from tests.engine.packages import Missing


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """The DOCKER_HOST of a container engine; without one, tests skip on a laptop and fail in CI."""
    try:
        with open_engine() as host:
            yield host
    except Missing as exc:
        _missing(f"NO CONTAINER ENGINE: {exc}")


@pytest.fixture(scope="session")
def engine_images(engine: str) -> Images:
    """``need(name)`` makes a function image available in ``engine``."""
    return Images(engine)


def _missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
