"""The debug pages of a node's admin port: what it is doing right now, as JSON.

Each page has an entry for every worker process that answers in time, ``{"workers": [{"worker": 0, "process":
71, ...}]}``. Who may ask is decided by who reaches the port.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from aiohttp import web

from shared_models import errors, wire
from shared_models.answering import DEBUG_PATH
from shared_models.answers import json_response
from shared_models.workers import Siblings

Page = Callable[[], object]
"""What one worker says: anything that can be written as JSON."""
NAMES = 5
"""Of tasks that wait in one place, as many are named."""
DEPTH = 50
"""Frames of a stack at most, the innermost ones."""


class Debug:
    """``/debug/{page}``: tasks, threads, memory, and the *pages* of whoever wires the node."""

    def __init__(self, siblings: Siblings | None, pages: Mapping[str, Page]) -> None:
        self._siblings = siblings
        self._pages: dict[str, Page] = {"memory": memory, "tasks": tasks, "threads": threads, **pages}
        if siblings:
            for name in self._pages:
                siblings.answer(f"debug {name}", partial(self._own, name))

    def routes(self) -> list[web.RouteDef]:
        """The list of pages, and each of them."""
        return [
            web.get("/debug", self._list, allow_head=False),
            web.get(DEBUG_PATH, self._show, allow_head=False),
        ]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        return json_response({"pages": [f"/debug/{name}" for name in sorted(self._pages)]})

    async def _show(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["page"]
        if name not in self._pages:
            raise errors.NotFound(f"There is no debug page {name}: GET /debug lists them")
        told = await self._siblings.ask(f"debug {name}") if self._siblings else [(0, self._own(name))]
        workers = [{"worker": number, **msgspec.json.decode(text)} for number, text in told]
        return json_response({"workers": workers})

    def _own(self, name: str) -> bytes:
        return wire.encode({"process": os.getpid(), name: self._pages[name]()})


def tasks() -> object:
    """Tasks of the running event loop by where they wait, most of them first."""
    places: dict[tuple[str, ...], list[str]] = {}
    for task in asyncio.all_tasks():
        places.setdefault(_where(task), []).append(task.get_name())
    ordered = sorted(places.items(), key=lambda place: -len(place[1]))
    return [
        {"count": len(names), "names": sorted(names)[:NAMES], "stack": list(stack)}
        for stack, names in ordered
    ]


def threads() -> object:
    """Threads of this process and their stacks, the innermost frame last."""
    frames = sys._current_frames()
    return [
        {
            "name": thread.name,
            "daemon": thread.daemon,
            "stack": _stack(frames[thread.ident]) if thread.ident in frames else [],
        }
        for thread in threading.enumerate()
    ]


def memory() -> object:
    """Bytes that the process has, and what the collector of cycles counts, by generation."""
    page = resource.getpagesize()
    size, resident = (int(pages) * page for pages in Path("/proc/self/statm").read_text().split()[:2])
    return {
        "resident_bytes": resident,
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "virtual_bytes": size,
        "collector": {
            "objects": gc.get_count(),
            "thresholds": gc.get_threshold(),
            "frozen": gc.get_freeze_count(),
            "generations": gc.get_stats(),
        },
    }


def _where(task: asyncio.Task[Any]) -> tuple[str, ...]:
    """Where *task* waits, through all that it awaits, the innermost place last."""
    return tuple(
        _place(frame.f_code.co_filename, line, frame.f_code.co_qualname) for frame, line in _awaited(task)
    )[-DEPTH:]


def _awaited(task: asyncio.Task[Any]) -> Iterator[tuple[FrameType, int]]:
    # Task.get_stack() has only the outermost frame of a task that waits.
    waiting: Any = task.get_coro()
    while waiting is not None:
        for kind in ("cr", "ag", "gi"):
            if (frame := getattr(waiting, f"{kind}_frame", None)) is not None:
                yield frame, frame.f_lineno
                waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
                break
        else:
            return


def _stack(frame: FrameType) -> list[str]:
    found = traceback.extract_stack(frame)[-DEPTH:]
    return [_place(one.filename, one.lineno or 0, one.name) for one in found]


def _place(file: str, line: int, function: str) -> str:
    return f"{file}:{line} {function}"
