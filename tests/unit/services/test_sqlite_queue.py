"""The embedded queue: what survives, who may share it, what a commit costs."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from services.queue import messages, open_queue, sqlite
from shared_models.call import Call, LeaseKey
from shared_models.errors import Invalid, QueueUnavailable
from shared_models.ids import new_id

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


async def test_commits_are_synced(tmp_path: Path) -> None:
    db = sqlite._open(str(tmp_path / "queue.db"))
    try:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        db.close()


async def test_taking_calls_follows_the_order_of_an_index(tmp_path: Path) -> None:
    db = sqlite._open(str(tmp_path / "queue.db"))
    try:
        plan = db.execute(
            "EXPLAIN QUERY PLAN SELECT place FROM messages INDEXED BY messages_in_order "
            "WHERE free_at <= 1 ORDER BY priority DESC, place LIMIT 5"
        ).fetchall()
    finally:
        db.close()
    assert "TEMP B-TREE" not in str(plan)


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
            queue.delete([LeaseKey(call.id, "t")]),
            queue.holds([call.id]),
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


def test_the_schema_has_a_version() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        messages.make_table(db)
        messages.make_table(db)
        assert db.execute("PRAGMA user_version").fetchone() == (messages.VERSION,)
    finally:
        db.close()
