"""Both tiers as processes that report to an OTLP receiver, while it is there and while it is not."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.servers.collector import Collector, running_collector
from tests.servers.ports import free_port
from tests.system.faults.world import FUNCTIONS
from tests.system.nodes import Cluster, Node, ask, cluster

pytestmark = pytest.mark.system

LIMIT = 60.0
TRACE, CLIENT = f"{0xABC:032x}", f"{0xDEF:016x}"
SAMPLED = {"traceparent": f"00-{TRACE}-{CLIENT}-01"}


def settings(folder: Path, url: str, **more: str) -> tuple[dict[str, str], dict[str, str]]:
    """Of a runner node of two workers, and of the API node."""
    telemetry = {"FN_OTLP_URL": url, "FN_TRACE_SHARE": "0", "FN_OTLP_EVERY_SECS": "1", **more}
    stores = {
        "FN_DB_URL": f"sqlite:///{folder / 'data' / 'fn.db'}",
        "FN_MQ_URL": f"sqlite:///{folder / 'data' / 'queue.db'}",
    }
    runner = {"FN_WORKERS": "2", "FN_DRIVER": "process", "FN_PROCESS_IMAGES": str(FUNCTIONS)}
    return {**runner, "FN_MAX_TOTAL_MEMORY_BYTES": str(1 << 30), **telemetry}, {**stores, **telemetry}


async def deployed(nodes: Cluster, http: aiohttp.ClientSession) -> tuple[Node, str]:
    """A started runner node, and the id of a function."""
    url = nodes.api.url
    app = await ask(http, "POST", f"{url}/v2/apps", json={"name": "shop"})
    body: dict[str, object] = {"name": "f", "app_id": app["id"], "image": "work"}
    body["config"] = {"LEDGER": str(nodes.folder / "ledger")}
    fn = await ask(http, "POST", f"{url}/v2/fns", json=body)
    runner = nodes.runner("runner")
    await runner.start()
    return runner, str(fn["id"])


async def call(http: aiohttp.ClientSession, runner: Node, fn_id: str, kind: str, **headers: str) -> Any:
    url = f"{runner.url}/invoke/{fn_id}"
    said = {**headers, "Fn-Invoke-Type": kind}
    async with http.post(url, data=json.dumps({"type": kind, "do": "work"}), headers=said) as answer:
        assert answer.status in (200, 202), await answer.text()
        return await answer.read()


async def test_a_call_is_one_trace_over_processes_and_each_says_who_it_is(tmp_path: Path) -> None:
    async with running_collector() as collector, aiohttp.ClientSession() as http:
        runner_environ, api_environ = settings(tmp_path, collector.url)
        async with cluster(tmp_path, runner_environ, api_environ) as nodes:
            runner, fn_id = await deployed(nodes, http)
            await call(http, runner, fn_id, "detached", **SAMPLED)
            asked = "POST /v1/runner/enqueue"
            spans = await collector.trace_of(TRACE, "fn.enqueue", asked, "fn.call", "fn.run", "fn.finish")
            assert spans["fn.enqueue"].parent == CLIENT
            assert spans[asked].parent == spans["fn.call"].parent == spans["fn.enqueue"].id
            assert spans[asked].resource["service.name"] == "fn-api"
            assert spans[asked].resource["service.instance.id"] == "api"
            assert spans["fn.call"].resource["service.name"] == "fn-runner"
            assert spans["fn.call"].resource["service.instance.id"] in (
                f"runner-{os.getpid()}",
                f"runner-{os.getpid()}+1",
            )
            assert spans["fn.call"].resource["service.version"]
            wanted = {"fn_async_accepted_total", "fn_completed", "fn_loop_lag_seconds"}
            wanted |= {"fn_store_duration_seconds", "fn_client_requests_total", "fn_runner_memory_bytes"}
            await collector.until(lambda: wanted <= set(collector.metrics))


async def test_what_a_node_has_not_sent_is_sent_when_it_stops(tmp_path: Path) -> None:
    async with running_collector() as collector, aiohttp.ClientSession() as http:
        runner_environ, api_environ = settings(tmp_path, collector.url, FN_OTLP_EVERY_SECS="3600")
        async with cluster(tmp_path, runner_environ, api_environ) as nodes:
            runner, fn_id = await deployed(nodes, http)
            await call(http, runner, fn_id, "sync", **SAMPLED)
            assert await runner.stop() == 0
            assert {"fn.call", "fn.run"} <= _names(collector)
            assert "fn_completed" in collector.metrics


def _names(collector: Collector) -> set[str]:
    return {span.name for span in collector.spans if span.trace == TRACE}


async def test_nodes_serve_and_stop_while_nobody_takes_their_reports(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    async with aiohttp.ClientSession() as http:
        runner_environ, api_environ = settings(tmp_path, away, FN_TRACE_SHARE="1")
        async with cluster(tmp_path, runner_environ, api_environ) as nodes:
            runner, fn_id = await deployed(nodes, http)
            until = time.monotonic() + LIMIT
            calls = 0
            while "FN_OTLP_URL" not in await asyncio.to_thread(runner.log.read_text):
                await call(http, runner, fn_id, "sync")
                calls += 1
                assert time.monotonic() < until, nodes.logs()
            assert calls > 1
            assert await runner.stop() == 0
            log = runner.log.read_text()
            assert "Traceback" not in log
            assert log.count("FN_OTLP_URL") <= 2, log  # each worker says so once a minute
