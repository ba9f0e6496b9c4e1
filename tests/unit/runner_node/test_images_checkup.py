"""``fn-node doctor``: images on the engine's disk, and the mark above which some go."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner_node.drivers.settings import DriverSettings
from runner_node.images_checkup import Disk, engine_disk, examine_images
from shared_models.finding import Level

GIB = 1 << 30


def said(mark: int, layers: int, disk: Disk | None, record: str) -> list[str]:
    """The warnings."""
    settings = DriverSettings(image_clean_max_size=mark, image_record=record)
    found = list(examine_images(settings, layers, disk))
    assert any(one.level is Level.OK for one in found)
    return [one.says for one in found if one.level is Level.WARNING]


@pytest.mark.parametrize(
    ("mark", "layers", "disk", "words"),
    [
        (0, 5 * GIB, Disk(100 * GIB, 50 * GIB), ""),
        (0, 5 * GIB, Disk(100 * GIB, 4 * GIB), "nearly full: 4096 of 102400 MB are free"),
        (0, 0, Disk(10 * GIB, GIB - 1), "nearly full"),
        (0, 0, Disk(10 * GIB, GIB), ""),
        (10 * GIB, 5 * GIB, Disk(100 * GIB, 5 * GIB), ""),
        (11 * GIB, 5 * GIB, Disk(100 * GIB, 5 * GIB), "room for 10240 MB there, and only above 11264 MB"),
        (101 * GIB, 90 * GIB, Disk(100 * GIB, 90 * GIB), "room for 102400 MB there"),
        (11 * GIB, -1, Disk(100 * GIB, 10 * GIB), "room for 10240 MB there"),
        (11 * GIB, -1, None, ""),
    ],
)
def test_a_full_disk_and_a_mark_that_it_never_reaches_are_warned_of(
    tmp_path: Path, mark: int, layers: int, disk: Disk | None, words: str
) -> None:
    found = said(mark, layers, disk, str(tmp_path / "data" / "images"))
    assert len(found) == bool(words)
    assert words in " ".join(found)
    assert not list(tmp_path.iterdir()), "a look makes nothing"


def test_without_a_record_that_survives_a_restart_the_mark_is_of_little_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert said(0, 0, None, "") == []
    (words,) = said(GIB, 0, None, "")
    assert "switched off" in words
    (words,) = said(GIB, 0, None, str(tmp_path / "file" / "images"))
    assert "cannot be written: Not a directory" in words


@pytest.mark.parametrize(
    ("host", "folder", "known"),
    [
        ("unix:///run/engine.sock", "", True),
        ("unix:///run/engine.sock", "none", False),
        ("tcp://elsewhere:2376", "", False),
    ],
)
def test_the_disk_is_known_where_the_engine_is_on_this_machine(
    tmp_path: Path, host: str, folder: str, known: bool
) -> None:
    disk = engine_disk({"DockerRootDir": str(tmp_path / folder)}, host)
    assert (disk is not None) == known
    assert engine_disk({}, host) is None
