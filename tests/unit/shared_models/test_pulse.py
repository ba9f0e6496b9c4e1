"""Loops that stand still are named, and /healthz says so."""

from __future__ import annotations

import time

import aiohttp
import pytest

from shared_models.http_settings import HTTPSettings
from shared_models.pulse import Pulse
from shared_models.web import serving


def test_a_loop_that_does_not_come_round_in_time_is_named_until_it_does_or_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pulse = Pulse()
    pulse.beat("janitor", 30.0)
    pulse.beat("dequeuer", 10.0)
    now += 9
    assert pulse.reason() == ""
    now += 2
    assert pulse.reason() == "standing still: dequeuer for 10 s"
    now += 20
    assert pulse.reason() == "standing still: janitor for 30 s, dequeuer for 10 s"
    pulse.beat("dequeuer", 10.0)
    pulse.end("janitor")
    assert pulse.reason() == ""


async def test_a_node_whose_loops_stand_still_is_not_alive_and_may_be_ready() -> None:
    reason = ""
    settings = HTTPSettings(port=0, host="127.0.0.1")
    async with (
        serving([], settings, node_type="test", alive=lambda: reason) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        async with http.get("/healthz") as answer:
            assert answer.status == 200
        reason = "standing still: janitor for 30 s"
        async with http.get("/healthz") as answer:
            assert (answer.status, await answer.json()) == (503, {"message": reason})
        async with http.get("/readyz") as answer:
            assert answer.status == 200
