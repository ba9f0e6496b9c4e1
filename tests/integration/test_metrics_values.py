"""What both tiers count, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import subprocess
from shutil import which

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hybrid_client.client import ClientSettings, open_data_access
from runner_node import metrics
from services.timing import timed
from shared_models import errors, telemetry
from tests.integration.test_hybrid_tiers import ended, shout, two_tiers
from tests.servers.ports import free_port


def values(name):
    """Samples of a name: value by labels."""
    families = text_string_to_metric_families(telemetry.exposition().decode())
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


async def test_a_runner_shows_what_it_has_and_what_it_asks_while_it_is_there(tmp_path):
    async with two_tiers(tmp_path) as (api, runner):
        timed(api.stores)
        fn = await api.fn()
        asked = values("fn_client_requests_total").get((("outcome", "answered"),), 0.0)
        async with runner.post(f"/invoke/{fn.id}", data=b"a") as answer:
            assert answer.status == 200
        async with runner.post(f"/invoke/{fn.id}", headers={"Fn-Invoke-Type": "detached"}) as answer:
            await ended(api, fn, answer.headers["Fn-Call-Id"])
        memory = values("fn_runner_memory_bytes")
        assert 0 < memory[(("part", "free"),)] < memory[(("part", "all"),)]
        assert values("fn_runner_cpu_mcpus")[(("part", "all"),)] > 0
        assert values("fn_runner_containers")[(("state", "idle"),)] == 1
        assert values("fn_runner_calls") == {(("state", "running"),): 0.0, (("state", "waiting"),): 0.0}
        assert values("fn_client_requests_total")[(("outcome", "answered"),)] > asked
        assert values("fn_client_request_duration_seconds_count")[()] > 0
        assert values("fn_http_connections")[()] >= 2
        assert values("fn_http_requests_in_flight")[()] >= 1  # a long poll for queued calls
        pushed = (("store", "queue"), ("verb", "push"))
        assert values("fn_store_duration_seconds_count")[pushed] == 1
        assert values("fn_store_duration_seconds_sum")[pushed] > 0
    assert values("fn_runner_memory_bytes") == {}


async def test_an_api_node_that_is_away_is_counted_as_failures_and_repetitions():
    failed = values("fn_client_requests_total").get((("outcome", "failed"),), 0.0)
    repeated = values("fn_client_repetitions_total")[()]
    away = ClientSettings(api_urls=(f"http://127.0.0.1:{free_port()}",), max_attempts=3, first_pause=0.01)
    async with open_data_access(away) as data:
        with pytest.raises(errors.APINodeUnavailable):
            await data.app_id("a")
    assert values("fn_client_requests_total")[(("outcome", "failed"),)] == failed + 3
    assert values("fn_client_repetitions_total")[()] == repeated + 2


async def test_a_flood_of_functions_makes_no_flood_of_series(tmp_path):
    before = dict(metrics._known)
    try:
        for number in range(metrics.MAX_SERIES + 500):
            metrics.series_of(f"flood-{number}", f"/{number}").calls += 1
        assert len(values("fn_calls")) <= metrics.MAX_SERIES + 1
        other = tuple(sorted(zip(metrics.LABELS, (metrics.OTHER,) * 2, strict=True)))
        assert values("fn_calls")[other] >= 500
    finally:
        metrics._known.clear()
        metrics._known.update(before)


@pytest.mark.skipif(which("promtool") is None, reason="promtool is not installed")
async def test_promtool_can_read_the_page(tmp_path):
    async with two_tiers(tmp_path, shout) as (api, runner):
        fn = await api.fn()
        async with runner.post(f"/invoke/{fn.id}", data=b"a") as answer:
            assert answer.status == 200
        command, page = ["promtool", "check", "metrics"], telemetry.exposition()
        done = await asyncio.to_thread(subprocess.run, command, input=page, capture_output=True, check=False)
        # Its exit code 3 is advice on names, many of which are Fn's.
        assert done.returncode in (0, 3), done.stderr.decode()
