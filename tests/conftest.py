"""Fixtures that tests of several kinds share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.engine.dockerd import engine as open_engine
from tests.engine.images import Images
from tests.engine.packages import Missing, missing


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder for what is made under the system's temporary folder: the killed leave nothing behind."""
    tmp_path_factory.getbasetemp()  # this one stays where it is, for a look at what failed
    folder = tempfile.mkdtemp(prefix="fnt-")  # short: sockets are in it
    os.chmod(folder, 0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def engine(temporary_folder: None) -> Iterator[str]:
    """The DOCKER_HOST of a container engine; without one, tests skip on a laptop and fail in CI."""
    try:
        with open_engine() as host:
            yield host
    except Missing as exc:
        missing(f"NO CONTAINER ENGINE: {exc}")


@pytest.fixture(scope="session")
def engine_images(engine: str) -> Images:
    """``need(name)`` makes a function image available in ``engine``."""
    return Images(engine)
