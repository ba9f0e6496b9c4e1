"""A database that stops answering takes its API node out of service, and nothing else of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.engine.packages import Missing, missing
from tests.servers.postgres import Postgres
from tests.servers.server import running
from tests.system.nodes import cluster

pytestmark = pytest.mark.system
LIMIT = 90.0
STORES = "datastore: ", "log store: ", "queue: "


async def _probed(http: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with http.get(url) as answer:
        return answer.status, (await answer.json()).get("message", "")


def _names_all(probed: tuple[int, str]) -> bool:
    return all(store in probed[1] for store in STORES)


async def test_an_api_node_whose_database_is_away_is_not_ready_says_which_and_comes_back(
    tmp_path: Path,
) -> None:
    try:
        with running(Postgres) as postgres:
            stores = {"FN_DB_URL": postgres.url, "FN_MQ_URL": postgres.url}
            async with (
                cluster(tmp_path, {}, stores) as nodes,
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(LIMIT)) as http,
            ):
                ready, alive = f"{nodes.api.url}/readyz", f"{nodes.api.url}/healthz"
                assert await _probed(http, ready) == (200, "")
                postgres.pause()
                async with asyncio.timeout(LIMIT):
                    # One look may have asked one store before the pause and another after it.
                    while not _names_all(probed := await _probed(http, ready)):
                        await asyncio.sleep(0.1)
                assert probed[0] == 503
                assert str(postgres.port) not in probed[1]
                assert (await _probed(http, alive))[0] == 200
                postgres.resume()
                async with asyncio.timeout(LIMIT):
                    while await _probed(http, ready) != (200, ""):
                        await asyncio.sleep(0.1)
    except Missing as exc:
        missing(f"NO POSTGRESQL: {exc}")
