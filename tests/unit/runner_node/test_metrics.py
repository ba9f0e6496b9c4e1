import re

import pytest

from runner_node import metrics
from runner_node.calls import of_fn, of_route
from runner_node.job import route_job
from shared_models.app import App
from shared_models.call import Call
from shared_models.fn import Fn
from shared_models.route import Route
from shared_models.telemetry import exposition


@pytest.fixture(autouse=True)
def known(monkeypatch):
    series = {}
    monkeypatch.setattr(metrics, "_known", series)
    return series


def exposed(name):
    return dict(re.findall(rf"^{name}(\{{.*\}})? (\S+)$", exposition().decode(), re.MULTILINE))


def test_counts_are_told_by_app_and_path():
    series = metrics.series_of("a", "/p")
    series.calls += 2
    series.done += 1
    assert metrics.series_of("a", "/p") is series
    labels = '{fn_appname="a",fn_path="/p"}'
    assert exposed("fn_calls") == {labels: "2.0"}
    assert exposed("fn_container_done_total") == {labels: "1.0"}
    assert "# TYPE fn_calls untyped\n" in exposition().decode()


def test_seconds_fall_into_buckets_that_add_up():
    spent = metrics.series_of("a", "/p").busy
    for seconds in (0.0005, 0.002, 0.003, 1000.0):
        spent.add(seconds)
    labels = '{fn_appname="a",fn_path="/p"}'
    assert exposed("fn_container_busy_total") == {labels: "4.0"}
    assert exposed("fn_container_busy_duration_seconds_sum") == {labels: "1000.0055"}
    buckets = exposed("fn_container_busy_duration_seconds_bucket")
    counts = {re.search(r'le="(.*?)"', labels)[1]: count for labels, count in buckets.items()}
    assert (counts["0.001"], counts["0.003"], counts["300.0"], counts["+Inf"]) == ("1.0", "3.0", "3.0", "4.0")


def test_there_are_not_more_series_than_can_be_kept(known, monkeypatch):
    monkeypatch.setattr(metrics, "MAX_SERIES", 3)
    first = metrics.series_of("a", "/1")
    for number in range(2, 20):
        metrics.series_of("a", f"/{number}")
    assert len(known) == 4
    assert metrics.series_of("a", "/1") is first
    assert metrics.series_of("a", "/19") is metrics.series_of("b", "/20") is known["other", "other"]


def test_functions_are_named_by_name_and_routes_by_path(known):
    app = App(id="A", name="app")
    of_fn(Fn(id="F", app_id="A", name="hello"), app)
    target = of_route(Route(path="/r"), app, "sync", "default")
    assert set(known) == {("app", "hello"), ("app", "/r")}
    # The target of one cold call counts for its route.
    assert route_job(Call(id="C"), target, [], b"").target.series is target.series


def test_what_becomes_of_results_and_leases_is_told():
    for name in ("results_refused_total", "results_dropped_total", "leases_lost_total", "spool_bytes"):
        assert len(exposed(f"fn_runner_{name}")) == 1
