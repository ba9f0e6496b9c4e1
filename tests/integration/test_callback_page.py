"""What docs/callbacks.md says is so."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.callbacks.delivery import running_callbacks
from services.callbacks.retries import REFUSALS
from services.callbacks.settings import CallbackSettings
from services.stores import Stores
from shared_models.telemetry import exposition
from tests.integration.receivers import a_callback, emptied, quick, stores_in

PAGE = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text()


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with stores_in(tmp_path) as opened:
        yield opened


async def test_its_receiver_takes_a_callback_once_and_no_strangers(stores: Stores, tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found
    script = tmp_path / "receiver.py"
    script.write_text(
        found[1]
        .replace('"127.0.0.1", 9000', '"127.0.0.1", 0')
        .replace("http.server.ThreadingHTTPServer(", "server = http.server.ThreadingHTTPServer(")
        .replace(".serve_forever()", "\nprint(server.server_port, flush=True)\nserver.serve_forever()")
    )
    receiver = await asyncio.create_subprocess_exec(
        sys.executable, str(script), stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        assert receiver.stdout
        async with asyncio.timeout(60):
            port = int(await receiver.stdout.readline())
            first = a_callback(f"http://127.0.0.1:{port}/done/k7Qp2")
            last = a_callback(first.url)
            async with running_callbacks(stores, quick(max_pause=0.01)):
                for callback in (a_callback(f"http://127.0.0.1:{port}/done/guess"), first, first, last):
                    await stores.outbox.put([callback])
                    await emptied(stores)
            lines = [(await receiver.stdout.readline()).decode() for _ in range(2)]
    finally:
        receiver.kill()
        await receiver.wait()
    assert lines == [f"{one.call_id} success hello\n" for one in (first, last)]


def test_its_numbers_are_those_of_the_settings() -> None:
    settings = CallbackSettings()
    assert f"`FN_CALLBACK_CONCURRENCY` ({settings.concurrency})" in PAGE
    assert f"`FN_CALLBACK_PER_HOST` ({settings.per_host})" in PAGE
    assert f"within {settings.timeout:g} s" in PAGE
    assert f"for {settings.max_age / 3600:g} hours" in PAGE
    assert (settings.first_pause, settings.max_pause, REFUSALS) == (5.0, 3600.0, 8)


def test_its_metrics_are_those_of_a_node() -> None:
    named = set(re.findall(r"`(fn_callbacks_\w+)`", PAGE))
    shown = set(re.findall(r"^(fn_callbacks_\w+)", exposition().decode(), re.MULTILINE))
    assert named == shown
