"""The command ``fn-node``: runs a node until a signal stops it, or shows settings, checks, migrates.

Exit codes: 0 stopped as asked, 1 could not start, broke down or is behind, 2 bad settings or command line.
Settings are read from ``os.environ`` here and nowhere else.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import logging
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from deploy import config, logs
from deploy.causes import explain, first
from deploy.command_line import parser
from deploy.settings import Settings, read_all, redact
from shared_models.env import InvalidSettings
from shared_models.errors import FnError
from shared_models.workers import ALONE, Place

log = logging.getLogger("deploy.node")

_YOUNG = 20_000
"""Objects after which Python looks for cycles among those that are new."""

STOPS = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a node."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; answers the exit code."""
    try:
        code = _main(arguments)
        sys.stdout.flush()
        return code
    except InvalidSettings as exc:
        for problem in exc.problems:
            _complain(problem)
        return 2
    except BrokenPipeError:
        # Its reader, such as head, has enough. What Python would still flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _main(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    command = "version" if options.version else options.command or ""
    if command == "version":
        print(f"fn-hybrid {importlib.metadata.version('fn-hybrid')} (Python {platform.python_version()})")
        return 0
    if command == "config" and options.markdown:
        print(config.markdown(), end="")
        return 0
    if alone := {"metrics": _metrics, "migrate": _migrate, "token": _token, "copy": _copy}.get(command):
        return alone(options)
    node_type = (options.type or "") if command in ("config", "doctor", "probe") else command
    settings, warnings = read_all(os.environ, node_type)
    if command == "config":
        print(config.table(settings))
        print(config.extensions(settings.node.extensions))
        for warning in warnings:
            print(f"\nwarning: {warning}", file=sys.stderr)
        return 0
    if command == "doctor":
        # Imported only now: see _run.
        from deploy import doctor

        return doctor.run(settings, warnings)
    if command == "probe":
        from deploy import probe

        return probe.run(settings, ready=options.ready)
    return _run(settings, warnings)


def _metrics(options: argparse.Namespace) -> int:
    # Imported only now: it imports every room.
    from deploy import metrics_page

    print(metrics_page.markdown() if options.markdown else metrics_page.table() + "\n", end="")
    return 0


def _told(work: Callable[[], int | None], file: str = "") -> int:
    """The exit code of *work*, which fails with one line; *file* is what it reads or writes."""
    try:
        return work() or 0
    except BrokenPipeError:
        raise
    except ValueError as exc:
        _complain(str(exc))
        return 2
    except FnError as exc:
        _complain(exc.explained)
    except OSError as exc:
        _complain(f"{file or exc.filename}: {exc.strerror}")
    return 1


def _token(options: argparse.Namespace) -> int:
    # Imported only now: nodes have no use for it.
    from deploy import token

    wish = token.Wish(name=options.name, role=options.role, apps=options.app, days=options.days)
    return _told(lambda: token.run(wish, options.file), options.file)


def _copy(options: argparse.Namespace) -> int:
    # Imported only now: nodes have no use for it.
    from deploy import copy

    def work() -> int:
        order = copy.Order(
            source=options.source,
            target=options.target,
            apps=tuple(options.app),
            check=options.check,
            overwrite=options.overwrite,
            ids=options.ids,
            token=os.environ.get("FN_TOKEN", ""),
        )
        return copy.run(order)

    return _told(work, f"--map {options.ids}")


def _migrate(options: argparse.Namespace) -> int:
    # Imported only now: see _run.
    from deploy.migrate import Order, run

    order = Order(check=options.check, sql=options.sql, to=options.to, yes=options.yes)
    return _told(lambda: run(os.environ, order))


def _run(settings: Settings, warnings: Sequence[str]) -> int:
    logs.set_up(settings.log)
    for warning in warnings:
        log.warning("%s", warning)
    if settings.node.workers == 1:
        return _work(settings)
    from deploy import supervisor, workers

    def work(settings: Settings, place: Place, ready: Callable[[], None]) -> int:
        logs.set_up(settings.log, worker=place.number)
        return _work(settings, place, ready, (supervisor.STOP,), supervisor.BEAT)

    try:
        return workers.supervise(settings, work)
    except OSError as exc:
        _complain(explain(exc, settings))
        return 1


def _work(
    settings: Settings,
    place: Place = ALONE,
    ready: Callable[[], None] = lambda: None,
    stops: Sequence[signal.Signals] = STOPS,
    beat: float | None = None,
) -> int:
    # Imported only now: "fn-node config" needs no server libraries.
    import uvloop

    from deploy.nodes import node

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(serve(node(settings, place), ready, stops, beat))
    except (Exception, asyncio.CancelledError) as exc:
        cause = first(exc)
        log.debug("the node broke down", exc_info=exc)
        _complain(explain(cause, settings))
        # A setting that only its room can read, such as the parameters of a URL.
        return 2 if isinstance(cause, ValueError) else 1
    return 0


async def serve(
    node: AbstractAsyncContextManager[int],
    ready: Callable[[], None] = lambda: None,
    stops: Sequence[signal.Signals] = STOPS,
    beat: float | None = None,
) -> None:
    """Runs *node* until one of *stops*, which also end a start; a second one ends the process at once.

    *ready* is called once it serves, and every *beat* seconds from then on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    starting = True

    def on_signal() -> None:
        stop.set()
        if starting and running:
            running.cancel()
        for number in stops:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in stops:
        loop.add_signal_handler(number, on_signal)
    try:
        async with node:
            starting = False
            _spare_the_collector()
            ready()
            while not await _set_within(stop, beat):
                ready()
            log.info("stopping: what runs may end, a second signal ends everything at once")
    except asyncio.CancelledError:
        # The start was waiting for a store, or was still on its way.
        if not (starting and stop.is_set()):
            raise
    log.info("stopped")


async def _set_within(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _spare_the_collector() -> None:
    """What a started node consists of stays: the collector of cycles need not look through it for ever.

    A call leaves no cycles, only many objects; with Python's own threshold they cost a run every few calls.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])


def _complain(problem: str) -> None:
    print(f"fn-node: {redact(' '.join(problem.split()))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
