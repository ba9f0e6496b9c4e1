"""``fn-node doctor`` and the images of a real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.images import BUSYBOX, Images
from tests.integration.test_doctor import doctor


@pytest.mark.engine
def test_what_images_take_is_told_and_a_mark_beyond_the_disk_is_warned_of(
    tmp_path: Path, engine: str, engine_images: Images
) -> None:
    engine_images.need(BUSYBOX)
    settings = {"DOCKER_HOST": engine, "FN_RUNNER_API_URL": "http://127.0.0.1:1", "FN_SPOOL_PATH": "none"}
    _, said = doctor(tmp_path, "runner", **settings)
    assert "MB; the node removes none of them" in said
    _, said = doctor(tmp_path, "runner", **settings, FN_IMAGE_CLEAN_MAX_SIZE=str(1 << 60))
    assert "1099511627776 MB of its own the node removes the least used" in said
    assert "warning images (FN_IMAGE_CLEAN_MAX_SIZE): images have room for" in said
    assert "-> lower it: the disk is full before" in said
    assert not (tmp_path / "data" / "images").exists(), "a look keeps no record"
