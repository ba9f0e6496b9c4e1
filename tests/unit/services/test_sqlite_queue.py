"""The embedded queue: what survives, who may share it, what a commit costs."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.queue import messages, open_queue, sqlite
from shared_models.call import Call, LeaseKey
from shared_models.errors import Invalid, QueueUnavailable
from shared_models.ids import new_id
from shared_models.interfaces import MessageQueue

VERSION_1 = """
    CREATE TABLE messages (
        place    INTEGER PRIMARY KEY AUTOINCREMENT,
        id       TEXT NOT NULL UNIQUE,
        fn_id    TEXT NOT NULL,
        priority INTEGER NOT NULL,
        pushed   REAL NOT NULL,
        free_at  REAL NOT NULL,
        attempt  INTEGER NOT NULL,
        token    TEXT NOT NULL,
        call     BLOB NOT NULL,
        payload  BLOB NOT NULL
    );
    CREATE INDEX messages_in_order ON messages (priority DESC, place, free_at);
    CREATE INDEX messages_in_time ON messages (free_at);
    CREATE INDEX messages_by_fn ON messages (fn_id, free_at);
    PRAGMA user_version=1;
"""

PUSHER = """
import asyncio, sys
from services.queue import open_queue
from shared_models.call import Call
from shared_models.ids import new_id

async def main(url):
    async with open_queue(url) as queue:
        async def push_on():
            while True:
                call = Call(id=new_id(), fn_id="fn", payload=b"x" * 1000)
                await queue.push(call)
                print(call.id, flush=True)
        await asyncio.gather(*[push_on() for _ in range(4)])

asyncio.run(main(sys.argv[1]))
"""


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder}/queue.db"


async def test_what_a_push_has_answered_survives_a_kill(tmp_path: Path) -> None:
    pusher = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUSHER, url_in(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert pusher.stdout is not None
    answered = [(await pusher.stdout.readline()).decode().strip() for _ in range(200)]
    pusher.send_signal(signal.SIGKILL)
    rest = (await pusher.communicate())[0].decode()
    answered += rest[: rest.rfind("\n") + 1].split()
    async with open_queue(url_in(tmp_path)) as queue:
        assert await queue.holds(answered) == set(answered)
        taken = await queue.reserve(len(answered), 0, 30)
        assert {len(one.call.payload) for one in taken} == {1000}


async def test_leases_survive_a_restart(tmp_path: Path) -> None:
    async with open_queue(url_in(tmp_path)) as queue:
        for _ in range(2):
            await queue.push(Call(id=new_id()))
        [leased] = await queue.reserve(1, 0, 30)
    async with open_queue(url_in(tmp_path)) as queue:
        [other] = await queue.reserve(5, 0, 30)
        assert other.call.id != leased.call.id
        assert await queue.extend([leased.key], 30) == []


async def test_nodes_that_share_a_file_see_each_others_calls(tmp_path: Path) -> None:
    async with open_queue(url_in(tmp_path)) as one, open_queue(url_in(tmp_path)) as other:
        waiter = asyncio.create_task(other.reserve(1, 10, 30))
        call = Call(id=new_id())
        await one.push(call)
        assert [leased.call.id for leased in await waiter] == [call.id]
        await asyncio.gather(*[queue.push(Call(id=new_id())) for queue in (one, other) for _ in range(50)])
        taken = await asyncio.gather(*[queue.reserve(7, 0, 30) for queue in (one, other) for _ in range(10)])
        ids = [leased.call.id for some in taken for leased in some]
        assert len(ids) == len(set(ids)) == 100


async def test_concurrent_pushes_share_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = []
    commit = sqlite._commit
    monkeypatch.setattr(
        sqlite, "_commit", lambda db, operations: commits.append(len(operations)) or commit(db, operations)
    )
    async with open_queue(url_in(tmp_path)) as queue:
        await asyncio.gather(*[queue.push(Call(id=new_id())) for _ in range(100)])
    assert sum(commits) == 100
    assert len(commits) <= 3


async def answer(queue: MessageQueue, statement: str) -> list[Any]:
    """What the connection that the queue itself uses answers."""
    assert isinstance(queue, sqlite.SQLiteQueue)
    return await queue._read(lambda db: db.execute(statement).fetchall())


async def test_every_commit_of_the_queue_is_synced(tmp_path: Path) -> None:
    async with open_queue(url_in(tmp_path)) as queue:
        assert await answer(queue, "PRAGMA synchronous") == [(2,)]
        assert await answer(queue, "PRAGMA journal_mode") == [("wal",)]


async def test_looks_and_counts_read_indexes_and_none_of_the_calls(tmp_path: Path) -> None:
    ran: list[str] = []
    async with open_queue(url_in(tmp_path)) as queue:
        assert isinstance(queue, sqlite.SQLiteQueue)
        await queue._read(lambda db: db.set_trace_callback(ran.append))
        await queue.push(Call(id=new_id(), fn_id="full"))
        await queue.push(Call(id=new_id(), fn_id="a"))
        assert len(await queue.reserve(5, 0, 30, ["full", "busy"])) == 1
        assert await queue.reserve(5, 0, 30, ["full", "busy"]) == []
        await queue.depth("full")
        await queue.depths()
        asked = [one for one in ran if one.startswith("SELECT") and "WHERE place IN" not in one]
        assert len(asked) == 9, "two pushes, two looks of two statements, the first places, and two counts"
        for statement in asked:
            plan = str(await answer(queue, f"EXPLAIN QUERY PLAN {statement}"))
            assert "USING COVERING INDEX" in plan, statement
            assert "TEMP B-TREE" not in plan, statement


async def test_a_page_of_what_nobody_holds_is_a_range_of_an_index(tmp_path: Path) -> None:
    ran: list[str] = []
    async with open_queue(url_in(tmp_path)) as queue:
        assert isinstance(queue, sqlite.SQLiteQueue)
        for _ in range(4):
            await queue.push(Call(id=new_id(), fn_id="full"))
        await queue._read(lambda db: db.set_trace_callback(ran.append))
        first = await queue.waiting("full", "", 2)
        assert len(await queue.waiting("full", first[-1].place, 9)) == 2
        await queue.reserve_named([first[0].call.id], 30)
        asked = [one for one in ran if one.startswith("SELECT") and "WHERE place IN" not in one]
        assert len(asked) == 3
        for statement in asked:
            plan = str(await answer(queue, f"EXPLAIN QUERY PLAN {statement}"))
            assert "SEARCH messages USING" in plan, statement
            assert "TEMP B-TREE" not in plan, statement
        page = str(await answer(queue, f"EXPLAIN QUERY PLAN {asked[1]}"))
        assert "messages_by_fn (fn_id=? AND (free_at,token,pushed)>(?,?,?))" in page, page


def of_version_1(path: Path, calls: list[Call]) -> None:
    """A file as version 1 left it, with *calls* pushed to it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(VERSION_1)
        for call in calls:
            messages.push(db, messages.row(call, 1_800_000_000.0))
        db.execute("UPDATE messages SET token = 't', attempt = 1, free_at = 9e9 WHERE place = 1")


def schema_in(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        version = db.execute("PRAGMA user_version").fetchone()[0]
    return {("version", str(version)), *((name, " ".join(sql.split())) for name, sql in rows)}


async def test_a_file_of_version_1_is_taken_over_with_its_calls(tmp_path: Path) -> None:
    calls = [Call(id=new_id(), fn_id=fn_id, payload=b"\0\xff") for fn_id in ("full", "full", "a")]
    of_version_1(tmp_path / "queue.db", calls)
    clock = partial(float, 1_800_000_010)
    for _ in range(2):
        async with open_queue(url_in(tmp_path), clock=clock) as queue:
            assert list((await queue.find([call.id for call in calls])).values()) == [
                msgspec.structs.replace(calls[0], attempt=1),
                *calls[1:],
            ]
            assert await queue.extend([LeaseKey(calls[0].id, "t")], 30) == []
            [leased] = await queue.reserve(5, 0, 30, ["full"])
            assert leased.call.id == calls[2].id
            await queue.release([leased.key])
    async with open_queue(f"sqlite:///{tmp_path}/new.db"):
        pass
    assert schema_in(tmp_path / "queue.db") == schema_in(tmp_path / "new.db")


async def test_a_node_of_version_1_goes_on_with_a_file_that_is_taken_over(tmp_path: Path) -> None:
    of_version_1(tmp_path / "queue.db", [Call(id=new_id())])
    with closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as old:
        asked = (
            "SELECT place FROM messages INDEXED BY messages_in_order "
            "WHERE free_at <= ? ORDER BY priority DESC, place LIMIT 5"
        )
        assert old.execute(asked, (9e9,)).fetchall() == [(1,)]
        async with open_queue(url_in(tmp_path)):
            assert old.execute(asked, (9e9,)).fetchall() == [(1,)]
            assert messages.push(old, messages.row(Call(id=new_id()), 0.0))


async def test_nodes_that_take_over_a_file_at_once_all_open_it(tmp_path: Path) -> None:
    calls = [Call(id=new_id()) for _ in range(500)]
    of_version_1(tmp_path / "queue.db", calls)
    async with AsyncExitStack() as stack:
        opening = [stack.enter_async_context(open_queue(url_in(tmp_path))) for _ in range(4)]
        for queue in await asyncio.gather(*opening):
            assert len(await queue.holds([call.id for call in calls])) == 500


async def test_a_queue_that_is_newer_than_we_know_is_refused(tmp_path: Path) -> None:
    async with open_queue(url_in(tmp_path)):
        pass
    with sqlite3.connect(tmp_path / "queue.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(QueueUnavailable, match=r"99.*newer version"):
        async with open_queue(url_in(tmp_path)):
            pass


@pytest.mark.parametrize("path", ["file/queue.db", "folder", "garbage.db"])
async def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage.db").write_bytes(b"not a database " * 100)
    with pytest.raises(QueueUnavailable, match=str(tmp_path)) as raised:
        async with open_queue(f"sqlite:///{tmp_path}/{path}"):
            pass
    assert "\n" not in raised.value.message


async def test_a_database_that_fails_is_an_unavailable_queue(tmp_path: Path) -> None:
    async with open_queue(url_in(tmp_path)) as queue:
        with sqlite3.connect(tmp_path / "queue.db") as db:
            db.execute("DROP TABLE messages")
        db.close()
        call = Call(id=new_id())
        for asked in (
            queue.push(call),
            queue.reserve(1, 0, 30),
            queue.extend([LeaseKey(call.id, "t")], 30),
            queue.release([LeaseKey(call.id, "t")]),
            queue.requeue([LeaseKey(call.id, "t")], 0),
            queue.delete([LeaseKey(call.id, "t")]),
            queue.holds([call.id]),
            queue.find([call.id]),
            queue.depth("fn"),
            queue.depths(),
        ):
            with pytest.raises(QueueUnavailable):
                await asked


async def test_text_that_is_not_unicode_is_refused_without_harm_to_others(tmp_path: Path) -> None:
    async with open_queue(url_in(tmp_path)) as queue:
        good = Call(id=new_id())
        outcomes = await asyncio.gather(
            queue.push(Call(id=new_id(), url="\udc80")),
            queue.extend([LeaseKey("\udc80", "t")], 30),
            queue.push(good),
            return_exceptions=True,
        )
        assert [type(one) for one in outcomes[:2]] == [Invalid, Invalid]
        assert outcomes[2] is True
        with pytest.raises(Invalid):
            await queue.holds(["\udc80"])


async def test_a_call_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    async with open_queue(url_in(tmp_path)) as queue:
        bad, good = Call(id=new_id()), Call(id=new_id())
        for call in (bad, good):
            await queue.push(call)
        with sqlite3.connect(tmp_path / "queue.db") as db:
            db.execute("UPDATE messages SET call = '{' WHERE id = ?", (bad.id,))
        db.close()
        assert [one.call.id for one in await queue.reserve(5, 1, 30)] == [good.id]
        assert await queue.holds([bad.id]) == {bad.id}
        assert await queue.find([bad.id, good.id]) == {good.id: msgspec.structs.replace(good, attempt=1)}


async def test_calls_that_cannot_be_read_hide_none_behind_them(tmp_path: Path) -> None:
    async with open_queue(url_in(tmp_path)) as queue:
        for _ in range(5):
            await queue.push(Call(id=new_id()))
        with closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as db:
            db.execute("UPDATE messages SET call = '{'")
        good = Call(id=new_id())
        await queue.push(good)
        assert [one.call.id for one in await queue.reserve(2, 0, 30)] == [good.id]
