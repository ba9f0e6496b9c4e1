"""Prometheus scrapes real nodes; every question of dashboards and alerts has an answer there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from tests.grafana.test_dashboards import expressions, metrics_of, rules
from tests.servers.prometheus import Prometheus
from tests.servers.server import running
from tests.system.nodes import ROOT, Cluster, ask, cluster

pytestmark = pytest.mark.system
LIMIT = 90.0
EMPTY = {
    "fn_async_dead_total": "no call was given up",
    "fn_async_fenced_total": "no lease was lost",
    "fn_async_retried_total": "no attempt was repeated",
    "fn_rate_limited_total": "no app has a rate",
    "fn_removed_total": "nothing is old enough",
    "fn_otlp_failed_total": "there is no receiver",
    "fn_tls_certificate_ends_seconds": "the nodes speak no TLS",
}
"""Metrics that have no series until something happens, and why it has not."""


def plain(expression: str) -> str:
    """With what Grafana puts in for its variables."""
    return re.sub(r"\$(job|instance|app)\b", ".*", expression.replace("$__rate_interval", "30s"))


def may_be_empty(expression: str) -> bool:
    return bool(metrics_of(expression) & EMPTY.keys())


async def traffic(http: aiohttp.ClientSession, nodes: Cluster, runner: str) -> str:
    """Sync, detached and failing calls, the first of them cold; the function that can be called again."""
    app = await ask(http, "POST", f"{nodes.api.url}/v2/apps", json={"name": "watched"})
    ids = [
        (await ask(http, "POST", f"{nodes.api.url}/v2/fns",
                   json={"name": image, "app_id": app["id"], "image": image}))["id"]
        for image in ("hello", "missing")
    ]  # fmt: skip
    for _ in range(3):
        await ask(http, "POST", f"{runner}/invoke/{ids[0]}", json={"name": "x"})
    async with http.post(f"{runner}/invoke/{ids[1]}", json={}) as answer:
        assert answer.status >= 400
    headers = {"Fn-Invoke-Type": "detached"}
    await ask(http, "POST", f"{runner}/invoke/{ids[0]}", json={"name": "x"}, headers=headers)
    return str(ids[0])


async def until_none(found: Callable[[], list[str]], meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Returns when *found* finds none; *meanwhile* is done before each look."""
    deadline = asyncio.get_running_loop().time() + LIMIT
    while faults := await asyncio.to_thread(found):
        assert asyncio.get_running_loop().time() < deadline, "without series:\n" + "\n".join(faults)
        await asyncio.sleep(1)
        await meanwhile()


async def test_every_panel_and_alert_finds_its_series_on_nodes_with_traffic(tmp_path: Path) -> None:
    environ = {"FN_DRIVER": "process", "FN_PROCESS_IMAGES": str(ROOT / "examples"),
               "FN_MAX_TOTAL_MEMORY_BYTES": str(1 << 30)}  # fmt: skip
    async with cluster(tmp_path, environ) as nodes, aiohttp.ClientSession() as http:
        runner = nodes.runner("runner")
        await runner.start()
        jobs = {"fn-api": nodes.api.port, "fn-runner": runner.port}
        with running(Prometheus, jobs) as server:
            prometheus = cast("Prometheus", server)

            def unseen() -> list[str]:
                return [job for job in jobs if not prometheus.ask(f'fn_node_ready{{job="{job}"}} == 1')]

            await until_none(unseen, lambda: ask(http, "GET", f"{runner.url}/version"))
            fn_id = await traffic(http, nodes, runner.url)
            asked = [plain(one) for one in expressions()]

            def silent() -> list[str]:
                panels = [one for one in asked if not prometheus.ask(one) and not may_be_empty(one)]
                named = {name for rule in rules() for name in metrics_of(rule["expr"])} - EMPTY.keys()
                return panels + [name for name in named if not prometheus.ask(name)]

            await until_none(silent, lambda: ask(http, "POST", f"{runner.url}/invoke/{fn_id}", json={}))
            for rule in rules():
                prometheus.ask(rule["expr"])  # raises where it cannot be read
