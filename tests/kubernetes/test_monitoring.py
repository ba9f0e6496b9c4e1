"""The component for the Prometheus operator finds the pods, and the port of their metrics."""

from __future__ import annotations

from tests.kubernetes.rendered import composed


def test_each_monitor_finds_the_pods_of_one_workload_and_their_admin_port() -> None:
    made = composed("engine-sidecar", "monitoring")
    monitors = made.of("PodMonitor")
    assert monitors.keys() == made.workloads.keys()
    for name, monitor in monitors.items():
        workload = made.workloads[name]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= workload.labels.items()
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] == "admin"
        assert "admin" in workload.ports


def test_nodes_have_the_job_that_alerts_and_scalers_ask_for() -> None:
    made = composed("engine-sidecar", "monitoring", "scale-runners-keda")
    jobs = {
        rule["replacement"]
        for monitor in made.of("PodMonitor").values()
        for rule in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]
    }
    assert jobs == {"fn-hybrid"}
    queries = [
        trigger["metadata"]["query"]
        for trigger in made.of("ScaledObject")["fn-hybrid-runner"]["spec"]["triggers"]
    ]
    assert all('job="fn-hybrid"' in query for query in queries)
