"""The debug pages: what they show of tasks, threads and memory, also of several workers."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import aiohttp
import pytest

from shared_models.http_settings import HTTPSettings
from shared_models.web import serving
from shared_models.workers import Place, open_siblings
from tests.servers.ports import free_port

LIMIT = aiohttp.ClientTimeout(30)


async def _page(name: str, siblings: Any = None, **pages: Any) -> Any:
    admin = free_port()
    settings = HTTPSettings(port=0, host="127.0.0.1", admin_port=admin)
    async with (
        serving([], settings, node_type="test", siblings=siblings, pages=pages),
        aiohttp.ClientSession(timeout=LIMIT) as http,
        http.get(f"http://127.0.0.1:{admin}/debug{name}") as answer,
    ):
        return await answer.json()


async def _only(name: str, **pages: Any) -> Any:
    (worker,) = (await _page(f"/{name}", **pages))["workers"]
    assert (worker["worker"], worker["process"]) == (0, os.getpid())
    return worker[name]


async def test_the_pages_are_listed_with_those_that_the_node_adds() -> None:
    assert (await _page("", slots=dict))["pages"] == [
        "/debug/memory", "/debug/slots", "/debug/tasks", "/debug/threads",
    ]  # fmt: skip
    assert "GET /debug lists them" in (await _page("/heap"))["message"]


async def test_tasks_are_counted_by_where_they_wait_down_to_the_innermost_place() -> None:
    never = asyncio.Event()

    async def innermost() -> None:
        await never.wait()

    async def outermost() -> None:
        await innermost()

    waiting = [asyncio.create_task(outermost(), name=f"waits {number}") for number in range(7)]
    await asyncio.sleep(0)
    try:
        found = [place for place in await _only("tasks") if place["names"][0].startswith("waits")]
    finally:
        for task in waiting:
            task.cancel()
    (place,) = found
    assert place["count"] == 7
    assert place["names"] == [f"waits {number}" for number in range(5)]
    functions = [line.rpartition(".")[2] for line in place["stack"]]
    assert functions == ["outermost", "innermost", "wait"]
    assert __file__ in place["stack"][0]


async def test_a_thread_is_shown_with_its_stack() -> None:
    goes_on = threading.Event()

    def waits_for_a_word() -> None:
        goes_on.wait(30)

    thread = threading.Thread(target=waits_for_a_word, name="listener", daemon=True)
    thread.start()
    try:
        (found,) = [one for one in await _only("threads") if one["name"] == "listener"]
    finally:
        goes_on.set()
        thread.join()
    assert any(line.endswith("waits_for_a_word") for line in found["stack"])


async def test_memory_is_what_the_process_has() -> None:
    memory = await _only("memory")
    assert 10 << 20 < memory["resident_bytes"] <= memory["virtual_bytes"]
    assert memory["resident_bytes"] <= memory["peak_resident_bytes"] * 1.1
    assert len(memory["collector"]["generations"]) == 3


async def test_each_worker_that_answers_has_an_entry() -> None:
    meeting = f"debug-{os.getpid()}"
    async with open_siblings(Place(0, 3, meeting)) as first, open_siblings(Place(1, 3, meeting)) as second:
        second.answer("debug slots", lambda: b'{"process": 7, "slots": ["b"]}')
        told = await _page("/slots", siblings=first, slots=lambda: ["a"])
    # The third one is not there.
    assert told == {
        "workers": [
            {"worker": 0, "process": os.getpid(), "slots": ["a"]},
            {"worker": 1, "process": 7, "slots": ["b"]},
        ]
    }


async def test_a_page_that_breaks_down_is_an_error_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> object:
        raise RuntimeError("no")

    assert (await _page("/slots", slots=broken))["message"] == "internal server error"
    assert "GET /debug/{page} failed" in caplog.text
    assert (await _only("memory", slots=broken))["resident_bytes"]
