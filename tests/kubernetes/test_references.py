"""What the manifests name is there: Secrets, volumes, ports, labels, metrics."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import yaml

from runner_node import room_metrics
from services import metrics as api_metrics
from tests.kubernetes.rendered import ALL, KUBERNETES, ROOT, Manifests, composed, manifests, overlay, render

every_rendering = pytest.mark.parametrize("names", ALL, ids="+".join)

OPERATORS_SECRETS = {
    "fn-hybrid-stores",
    "fn-hybrid-runner-token",
    "fn-hybrid-api-tokens",
    "fn-hybrid-api-tls",
    "fn-hybrid-runner-tls",
    "fn-hybrid-registry",
    "fn-hybrid-app-shop",
    "fn-hybrid-engine-client",
    "fn-hybrid-engine-server",
}
"""Those that docs/kubernetes.md tells operators to make."""


def named(found: Manifests, kind: str, key: str) -> Iterator[str]:
    """Names of objects that pods ask for: *kind* as volumes, *key* in the environment."""
    for workload in found.workloads.values():
        for volume in workload.volumes.values():
            if kind in volume:
                yield volume[kind].get("secretName") or volume[kind].get("name") or volume[kind]["claimName"]
        for container in workload.containers:
            for source in container.body.get("envFrom", []):
                if key in source:
                    yield source[key]["name"]


@every_rendering
def test_every_config_map_and_claim_that_a_pod_names_is_there(names: tuple[str, ...]) -> None:
    found = manifests(names)
    assert set(named(found, "configMap", "configMapRef")) <= found.of("ConfigMap").keys()
    assert set(named(found, "persistentVolumeClaim", "")) <= found.of("PersistentVolumeClaim").keys()


@every_rendering
def test_every_secret_is_there_or_one_that_operators_make(names: tuple[str, ...]) -> None:
    found = manifests(names)
    assert set(named(found, "secret", "secretRef")) <= found.of("Secret").keys() | OPERATORS_SECRETS


def test_only_the_overlay_for_development_has_secrets_in_it() -> None:
    assert {names[0] for names in ALL if manifests(names).of("Secret")} == {"dev"}


@every_rendering
def test_every_mount_is_of_a_volume_of_the_pod_and_every_volume_is_mounted(names: tuple[str, ...]) -> None:
    for workload in manifests(names).workloads.values():
        mounted = {mount["name"] for one in workload.containers for mount in one.mounts}
        assert mounted == workload.volumes.keys(), workload.name
        for one in workload.containers:
            paths = [mount["mountPath"] for mount in one.mounts]
            assert len(paths) == len(set(paths)), f"{workload.name}, {one.name}"


@every_rendering
def test_every_account_is_there_and_has_no_token(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for workload in found.workloads.values():
        account = found.of("ServiceAccount")[workload.pod["serviceAccountName"]]
        assert account["automountServiceAccountToken"] is False
        assert workload.pod["automountServiceAccountToken"] is False


@every_rendering
def test_every_probe_asks_a_port_that_its_container_names(names: tuple[str, ...]) -> None:
    for workload in manifests(names).workloads.values():
        for container in workload.containers:
            for probe in container.probes.values():
                if "httpGet" in probe:
                    assert probe["httpGet"]["port"] in container.ports, container.name


@every_rendering
def test_the_ports_of_containers_are_those_that_nodes_listen_on(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for workload in found.workloads.values():
        for container in workload.containers:
            if container.body["command"] != ["fn-node"] or container.first:
                continue
            environ = found.environ(container, {})
            variables = {"http": "FN_PORT", "admin": "FN_ADMIN_PORT", "runner-api": "FN_RUNNER_API_PORT"}
            heard = {
                name: int(environ[variable]) for name, variable in variables.items() if variable in environ
            }
            assert container.ports == heard
            scraped = workload.body["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
            assert int(scraped) == container.ports["admin"]


@every_rendering
def test_every_service_leads_to_pods_and_to_a_port_of_theirs(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for name, service in found.of("Service").items():
        chosen = service["spec"]["selector"].items()
        pods = [one for one in found.workloads.values() if chosen <= one.labels.items()]
        assert len(pods) == 1, name
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= pods[0].ports.keys(), name


@every_rendering
def test_selectors_budgets_and_spreads_are_of_the_pods_that_they_are_for(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for workload in found.workloads.values():
        assert workload.body["spec"]["selector"]["matchLabels"].items() <= workload.labels.items()
        for spread in workload.pod.get("topologySpreadConstraints", []):
            assert spread["labelSelector"]["matchLabels"].items() <= workload.labels.items()
        if workload.kind == "StatefulSet":
            assert found.of("Service")[workload.body["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"
    for name, budget in found.of("PodDisruptionBudget").items():
        chosen = budget["spec"]["selector"]["matchLabels"].items()
        assert [one.name for one in found.workloads.values() if chosen <= one.labels.items()] == [name]


@every_rendering
def test_what_is_scaled_is_there_and_has_no_number_of_its_own(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in found.of(kind).values():
            target = scaler["spec"]["scaleTargetRef"]
            workload = found.workloads[target["name"]]
            assert (workload.kind, workload.body["apiVersion"]) == (target["kind"], target["apiVersion"])
            assert "replicas" not in workload.body["spec"]


@every_rendering
def test_nothing_runs_into_a_service_called_fn(names: tuple[str, ...]) -> None:
    found = manifests(names)
    assert {one.pod["enableServiceLinks"] for one in found.workloads.values()} == {False}
    assert "fn" not in found.of("Service")


@every_rendering
def test_images_are_pinned_and_ours_have_the_version_of_the_project(names: tuple[str, ...]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for workload in manifests(names).workloads.values():
        for container in workload.containers:
            image, _, tag = container.body["image"].partition(":")
            assert re.fullmatch(r"\d+\.\d+\.\d+(-\w+)?", tag), container.body["image"]
            if image != "docker":
                assert (image, tag) == (workload.name, version)


def test_versions_of_images_are_where_images_are_named_and_nowhere_else() -> None:
    tags: dict[str, set[str]] = {}
    for path in KUBERNETES.rglob("kustomization.yaml"):
        for image in yaml.safe_load(path.read_text()).get("images", []):
            tags.setdefault(image["name"], set()).add(image["newTag"])
    assert {name: len(some) for name, some in tags.items()} == {
        "fn-hybrid-api": 1,
        "fn-hybrid-runner": 1,
        "docker": 1,
    }
    for path in KUBERNETES.rglob("*.yaml"):
        assert not re.search(r"image: \S+:", path.read_text()), path


def test_an_overlay_changes_images_in_one_place(tmp_path: Path) -> None:
    kustomization: dict[str, list[Any]] = {
        "resources": [os.path.relpath(KUBERNETES / "overlays" / "production", tmp_path.resolve())],
        "images": [
            {"name": name, "newName": f"registry.example.com/{name}", "newTag": "1.2.3"}
            for name in ("fn-hybrid-api", "fn-hybrid-runner", "docker")
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    images = {one.body["image"] for pod in render(tmp_path).workloads.values() for one in pod.containers}
    assert images == {f"registry.example.com/{one['name']}:1.2.3" for one in kustomization["images"]}


def exposed() -> set[str]:
    """The names of metrics as /metrics has them, on either type of node."""
    assert room_metrics.REGISTRY is api_metrics.REGISTRY
    text = prometheus_client.generate_latest(api_metrics.REGISTRY).decode()
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


def test_what_the_scalers_ask_prometheus_for_is_what_nodes_expose() -> None:
    scaled = overlay("keda").of("ScaledObject")["fn-hybrid-runner"]["spec"]
    queries = " ".join(trigger["metadata"]["query"] for trigger in scaled["triggers"])
    asked = set(re.findall(r"\bfn_\w+", queries))
    autoscaler = composed("engine-sidecar", "scale-runners-hpa").of("HorizontalPodAutoscaler")
    for metric in autoscaler["fn-hybrid-runner"]["spec"]["metrics"]:
        asked.add(metric[metric["type"].lower()]["metric"]["name"])
    assert {"fn_async_oldest_seconds", "fn_runner_calls", "fn_runner_memory_bytes"} <= asked <= exposed()


def test_the_scaled_object_is_one_that_keda_takes() -> None:
    """Its definition is not here to check against; these are the rules that it has."""
    scaled = overlay("keda").of("ScaledObject")["fn-hybrid-runner"]
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    spec = scaled["spec"]
    assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
    assert len({trigger["name"] for trigger in spec["triggers"]}) == len(spec["triggers"]) >= 2
    for trigger in spec["triggers"]:
        assert trigger.keys() == {"type", "name", "metricType", "metadata"}
        assert (trigger["type"], trigger["metricType"] in ("Value", "AverageValue")) == ("prometheus", True)
        metadata = trigger["metadata"]
        assert metadata.keys() == {"serverAddress", "query", "threshold"}
        assert all(isinstance(value, str) for value in metadata.values()), "KEDA takes strings only"
        assert float(metadata["threshold"]) > 0
        assert metadata["query"].endswith("or vector(0)"), "no series is no error"
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    plain = composed("engine-sidecar", "scale-runners-hpa").of("HorizontalPodAutoscaler")["fn-hybrid-runner"]
    assert behavior == plain["spec"]["behavior"]


def test_the_secrets_that_operators_make_are_on_the_page_and_in_use() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    used = {name for names in ALL for name in named(manifests(names), "secret", "secretRef")}
    assert used >= OPERATORS_SECRETS
    assert {name for name in OPERATORS_SECRETS if f"`{name}`" not in page} == set()


def test_every_component_and_overlay_is_on_the_page() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    shared = {"engine-config"}
    for kind in ("components", "overlays"):
        names = {path.name for path in (KUBERNETES / kind).iterdir()} - shared
        assert {name for name in names if f"`{name}`" not in page} == set()
