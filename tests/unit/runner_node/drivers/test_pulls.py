"""Pulls under way are counted, layer by layer, and what became of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from runner_node.drivers import pulls
from runner_node.drivers.pulls import Progress, pulling
from shared_models.errors import ImagePullFailed
from shared_models.telemetry import REGISTRY

NAMES = "fn_runner_image_pull"


def value(name: str, **labels: str) -> float:
    found = REGISTRY.get_sample_value(NAMES + name, labels)
    assert found is not None
    return found


def said(layer: str, status: str, current: int | None = None, total: int | None = None) -> dict[str, Any]:
    detail = {} if current is None else {"current": current, "total": total}
    return {"id": layer, "status": status, "progressDetail": detail}


def test_a_pull_is_followed_by_bytes_and_layers() -> None:
    progress = Progress("i")
    for message in (
        {"id": "2", "status": "Pulling from me/fn"},
        said("a", "Pulling fs layer"),
        said("b", "Pulling fs layer"),
        said("c", "Already exists"),
        said("a", "Downloading", 10, 100),
        said("b", "Downloading", 20, 300),
    ):
        progress.note(message)
    assert (progress.bytes, progress.layers) == ((30, 400), (1, 3))
    for message in (
        said("a", "Download complete"),
        said("a", "Extracting", 1, 100),
        said("a", "Pull complete"),
        {"status": "Digest: sha256:1"},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 25}},
    ):
        progress.note(message)
    assert (progress.bytes, progress.layers) == ((120, 400), (2, 3))


def test_pulls_are_counted_while_they_are_under_way_and_by_their_ends() -> None:
    assert (value("s_running"), value("_oldest_seconds")) == (0, 0)
    well, badly = value("s_total", result="success"), value("s_total", result="failure")
    lasted = value("_duration_seconds_count")
    with pulling("one") as one, pulling("two") as two:
        one.note(said("a", "Downloading", 1, 3))
        two.note(said("a", "Downloading", 1, 4))
        two.note(said("b", "Already exists"))
        assert value("s_running") == 2
        assert value("_oldest_seconds") > 0
        assert (value("_bytes", state="done"), value("_bytes", state="known")) == (2, 7)
        assert (value("_layers", state="done"), value("_layers", state="known")) == (1, 3)
    with pytest.raises(ImagePullFailed), pulling("bad"):
        raise ImagePullFailed("bad", "no such image", 404)
    with pytest.raises(asyncio.CancelledError), pulling("given up"):
        raise asyncio.CancelledError
    assert value("s_running") == 0
    assert value("s_total", result="success") == well + 2
    assert value("_duration_seconds_count") == lasted + 2
    assert value("s_total", result="failure") == badly + 1


def test_a_pull_that_takes_long_says_in_the_log_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pulls, "TELL", 0.0)
    with caplog.at_level(logging.INFO):
        Progress("me/fn:1").note(said("a", "Downloading", 1_500_000, 3_000_000))
    assert "pulling image me/fn:1 for 0 s: 2 of 3 MB, 0 of 1 layers" in caplog.text
