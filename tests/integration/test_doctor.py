"""``fn-node doctor``: what it finds, on real servers."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.live_api import live_api
from tests.servers.mariadb import MariaDB
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.servers.server import Server


def doctor(folder: Path, kind: str, **environ: str) -> tuple[int, str]:
    """Exit code and all that it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FN_")}
    done = subprocess.run(
        [sys.executable, "-m", "deploy", "doctor", kind],
        cwd=folder, env={**env, **environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_node_with_nothing_but_defaults_is_well(tmp_path: Path) -> None:
    code, said = doctor(tmp_path, "full", FN_DRIVER="process")
    assert code == 0, said
    assert "each call is synced to disk before its 202" in said
    assert not list(tmp_path.glob("data/*.db")), "a look makes no database"


@pytest.mark.parametrize(
    ("server", "says"),
    [("redis_server", "Redis"), ("postgres", "the server"), ("mariadb", "the server")],
)
def test_the_durability_of_a_queue_server_is_read_and_told(
    request: pytest.FixtureRequest, tmp_path: Path, server: str, says: str
) -> None:
    """The servers of the tests are made fast, not durable: each is warned of, with the setting's name."""
    url = str(request.getfixturevalue(server).url)
    code, said = doctor(tmp_path, "api", FN_MQ_URL=url)
    [line] = re.findall(r"warning durability of the queue: (.*)", said)
    assert says in line
    assert re.search(r"-> set (appendonly|appendfsync|synchronous_commit|fsync|innodb_flush\w+) to", said)
    assert code == 0
    assert "secret" not in said


@pytest.mark.parametrize("kind", [Redis, Postgres, MariaDB])
def test_a_queue_server_that_syncs_each_write_is_well(
    own_server: Callable[..., Server], tmp_path: Path, kind: type[Server]
) -> None:
    code, said = doctor(tmp_path, "api", FN_MQ_URL=own_server(kind, True).url)
    assert re.search(r"^ok +durability of the queue", said, re.MULTILINE), said
    assert code == 0


def test_what_cannot_be_reached_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    code, said = doctor(tmp_path, "api", FN_DB_URL=f"postgres://fn:hush@127.0.0.1:{free_port()}/fn")
    assert code == 1
    assert "refuses connections: is it running?" in said
    assert "-> start it, or correct its URL" in said
    assert "hush" not in said


@pytest.mark.parametrize("variable", ["FN_DB_URL", "FN_MQ_URL"])
def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path, variable: str) -> None:
    (tmp_path / "file").touch()
    for folder in ("/proc/none", f"{tmp_path}/file"):
        code, said = doctor(tmp_path, "api", **{variable: f"sqlite:///{folder}/fn.db"})
        assert code == 1, said
        assert f"({variable}): {folder}/fn.db cannot be made: " in said


def test_an_engine_that_is_away_is_an_error_with_the_name_of_its_variable(tmp_path: Path) -> None:
    code, said = doctor(tmp_path, "full", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert (code, "-> start the engine, or set DOCKER_HOST to it" in said) == (1, True), said


def test_results_in_memory_alone_are_warned_of(tmp_path: Path) -> None:
    code, said = doctor(tmp_path, "full", FN_DRIVER="process", FN_SPOOL_PATH="none")
    assert (code, "spool (FN_SPOOL_PATH): is switched off" in said) == (0, True), said


def test_an_api_node_that_would_send_callers_to_itself_is_warned_of_that(tmp_path: Path) -> None:
    words = "warning settings: FN_PUBLIC_LB_URL is not set"
    code, said = doctor(tmp_path, "api")
    assert (code, words in said) == (0, True), said
    code, said = doctor(tmp_path, "api", FN_PUBLIC_LB_URL="http://127.0.0.1:8081")
    assert (code, words in said) == (0, False), said


def test_a_queue_in_memory_is_warned_of(tmp_path: Path) -> None:
    code, said = doctor(tmp_path, "api", FN_MQ_URL="memory://")
    assert (code, "queued calls are lost when the node ends" in said) == (0, True)


async def test_a_runner_learns_whether_its_api_node_takes_it(tmp_path: Path) -> None:
    async with live_api(tmp_path, runner_auth="token", runner_tokens=("right",)) as api:
        for token, code, words in (
            ("right", 0, "answers, and takes this node for a runner"),
            ("wrong", 1, "set FN_RUNNER_TOKEN to the API node's"),
        ):
            found, said = await asyncio.to_thread(
                doctor, tmp_path, "runner", FN_RUNNER_API_URL=api.base_url, FN_RUNNER_TOKEN=token,
                FN_DRIVER="process",
            )  # fmt: skip
            assert (found, words in said) == (code, True), said
            assert ("agrees with this machine's" in said) == (code == 0)
