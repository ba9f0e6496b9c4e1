"""Tasks beside a block, and openers that have one: whoever leaves them may be cancelled as well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trustme

from services import janitor, readiness
from services.queue import server_clock
from services.retention import RetentionSettings
from services.stores import StoreSettings, open_stores
from shared_models import background, tls
from shared_models.background import beside, ended
from shared_models.tls_settings import TLSSettings

LIMIT = 30.0


class Stubborn:
    """Work that is cancelled and ends when it may."""

    def __init__(self) -> None:
        self.began, self.cancelled, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
            await self.may_end.wait()


async def test_work_runs_while_the_block_does_and_has_ended_behind_it() -> None:
    work = Stubborn()
    work.may_end.set()
    async with asyncio.timeout(LIMIT):
        async with beside(work.run(), "work"):
            await work.began.wait()
            assert not work.cancelled.is_set()
    assert work.cancelled.is_set()


async def test_who_leaves_the_block_and_is_cancelled_then_learns_of_it() -> None:
    work = Stubborn()

    async def leave() -> None:
        async with beside(work.run(), "work"):
            await work.began.wait()

    leaving = asyncio.create_task(leave())
    async with asyncio.timeout(LIMIT):
        await work.cancelled.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        work.may_end.set()
        await asyncio.sleep(0)


def _memory(tmp_path: Path) -> StoreSettings:
    return StoreSettings(
        datastore_url=f"sqlite:///{tmp_path}/fn.db", queue_url="memory://", logstore_url="none"
    )


@asynccontextmanager
async def a_clock(tmp_path: Path) -> AsyncIterator[None]:
    async def seconds() -> float:
        return 0.0

    async with server_clock.running_clock(seconds):
        yield


@asynccontextmanager
async def readiness_of_stores(tmp_path: Path) -> AsyncIterator[None]:
    async with open_stores(_memory(tmp_path)) as stores, readiness.watching(stores):
        yield


@asynccontextmanager
async def a_janitor(tmp_path: Path) -> AsyncIterator[None]:
    async with open_stores(_memory(tmp_path)) as stores, janitor.running_janitor(stores, RetentionSettings()):
        yield


@asynccontextmanager
async def files_of_tls(tmp_path: Path) -> AsyncIterator[None]:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    async with tls.open_tls(TLSSettings(authority=str(authority))):
        yield


@pytest.mark.parametrize(
    ("opener", "work_of"),
    [
        (a_clock, "services.queue.server_clock._keep"),
        (readiness_of_stores, "services.readiness._for_ever"),
        (a_janitor, "services.janitor._clean_forever"),
        (files_of_tls, "shared_models.tls._look"),
    ],
)
async def test_an_opener_that_is_cancelled_at_its_end_does_not_swallow_it(
    opener: Callable[[Path], AbstractAsyncContextManager[None]],
    work_of: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    work = Stubborn()
    monkeypatch.setattr(work_of, lambda *_: work.run())

    async def leave() -> None:
        async with opener(tmp_path):
            await work.began.wait()

    leaving = asyncio.create_task(leave())
    async with asyncio.timeout(LIMIT):
        await work.cancelled.wait()
        leaving.cancel()
        work.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await leaving


async def test_work_that_breaks_down_is_told_of_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise ValueError("a bug")

    async with beside(broken(), "the work"):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (line,) = caplog.records
        assert (line.message, str(line.exc_info and line.exc_info[1])) == ("the work broke down", "a bug")


async def test_tasks_that_do_not_end_are_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "ENDS", 0.05)
    work = Stubborn()
    task = asyncio.create_task(work.run(), name="the work")
    async with asyncio.timeout(LIMIT):
        await work.began.wait()
        await ended(task)
        assert "the work does not end within 0.05 s and is left behind" in caplog.text
        work.may_end.set()
        await asyncio.wait({task})


async def test_no_tasks_have_ended() -> None:
    await ended()
