"""Work that may hang: one thread is lost to it, and nobody waits for it."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import threading

import pytest

from shared_models import aside
from shared_models.aside import Aside

LIMIT = 30.0


async def test_what_the_work_answers_or_raises_is_what_its_caller_gets() -> None:
    def broken() -> None:
        raise ValueError("a bug")

    one = Aside("look")
    async with asyncio.timeout(LIMIT):
        assert await one.do(threading.current_thread) is not threading.current_thread()
        with pytest.raises(ValueError, match="a bug"):
            await one.do(broken)


async def test_one_thread_at_a_time_is_away_and_who_waits_for_it_waits_no_longer_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aside, "PATIENCE", 0.1)
    one, back = Aside("this look"), threading.Event()

    def hangs() -> None:
        assert back.wait(LIMIT)

    async with asyncio.timeout(LIMIT):
        asked = await asyncio.gather(*(one.do(hangs) for _ in range(3)), return_exceptions=True)
        assert [(type(each), getattr(each, "errno", 0)) for each in asked] == [
            (TimeoutError, errno.ETIMEDOUT)
        ] * 3
        assert [thread.name for thread in threading.enumerate()].count("this look") == 1
        back.set()
        monkeypatch.setattr(aside, "PATIENCE", LIMIT)
        assert await one.do(lambda: "back") == "back"


async def test_a_system_without_threads_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(OSError, match="can't start new thread"):
        await Aside("look").do(lambda: None)


def test_a_process_ends_while_its_thread_hangs() -> None:
    script = """
import asyncio, threading
from shared_models import aside
aside.PATIENCE = 0.1

async def main():
    try:
        await aside.Aside("look").do(threading.Event().wait)
    except OSError as exc:
        print(exc.strerror)

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=LIMIT, check=True
    )
    assert ended.stdout == "no answer within 0.1 s\n"
