"""Our containers keep to Kubernetes' pod security standard "restricted"; what cannot is named here."""

from __future__ import annotations

import pytest

from tests.kubernetes.rendered import ALL, Container, Manifests, Object, Workload, manifests

every_rendering = pytest.mark.parametrize("names", ALL, ids="+".join)

ENGINE = "engine"
"""The only container that may be privileged."""
RESTRICTED_VOLUMES = {
    "configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
OF_THE_MACHINE = {
    "engine-sidecar": set[str](),
    "engine-host-socket": {"/var/run/docker.sock", "/var/run/fn-iofs"},
    "engine-remote": {"/var/run/fn-iofs"},
}
"""Paths of the machine that are mounted, by the engine that is chosen."""


def ours(found: Manifests) -> list[tuple[Workload, Container]]:
    return [(pod, one) for pod in found.workloads.values() for one in pod.containers if one.name != ENGINE]


def in_force(pod: Workload, container: Container, name: str) -> object:
    """What the container says of its security, else what its pod says."""
    own: Object = container.body.get("securityContext", {})
    return own.get(name, pod.pod.get("securityContext", {}).get(name))


@every_rendering
def test_our_containers_are_restricted(names: tuple[str, ...]) -> None:
    for pod, container in ours(manifests(names)):
        context = container.body["securityContext"]
        assert not context.get("privileged")
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert in_force(pod, container, "runAsNonRoot") is True
        assert in_force(pod, container, "seccompProfile") == {"type": "RuntimeDefault"}
        assert context["readOnlyRootFilesystem"] is True


@every_rendering
def test_our_containers_run_as_the_user_of_the_images(names: tuple[str, ...]) -> None:
    for pod, container in ours(manifests(names)):
        assert in_force(pod, container, "runAsUser") == in_force(pod, container, "runAsGroup") == 65532


@every_rendering
def test_no_pod_shares_namespaces_or_ports_of_its_machine(names: tuple[str, ...]) -> None:
    for pod in manifests(names).workloads.values():
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & pod.pod.keys()
        ports = [port for container in pod.containers for port in container.body.get("ports", [])]
        assert not any("hostPort" in port for port in ports)


@every_rendering
def test_folders_of_the_machine_are_mounted_only_where_its_engine_or_one_beside_is_used(
    names: tuple[str, ...],
) -> None:
    found = manifests(names)
    engine = next((one for one in OF_THE_MACHINE if one in names), "engine-sidecar")
    engine = {"host-socket": "engine-host-socket", "remote-engine": "engine-remote"}.get(names[0], engine)
    paths = set()
    for pod in found.workloads.values():
        for volume in pod.pod.get("volumes", []):
            kinds = volume.keys() - {"name"}
            if "hostPath" in volume:
                paths.add(volume["hostPath"]["path"])
                assert volume["hostPath"]["type"] in ("Socket", "Directory"), "nothing is made there as root"
            else:
                assert kinds <= RESTRICTED_VOLUMES
    assert paths == OF_THE_MACHINE[engine]


@every_rendering
def test_only_the_engine_is_privileged_and_api_pods_have_none(names: tuple[str, ...]) -> None:
    found = manifests(names)
    privileged = {
        (pod.name, one.name)
        for pod in found.workloads.values()
        for one in pod.containers
        if one.body["securityContext"].get("privileged")
    }
    assert privileged <= {("fn-hybrid-runner", ENGINE), ("fn-hybrid-engine", ENGINE)}
    assert len(privileged) <= 1


@every_rendering
def test_every_container_has_requests_and_a_limit_of_memory(names: tuple[str, ...]) -> None:
    for pod in manifests(names).workloads.values():
        for container in pod.containers:
            assert container.body["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container.body["resources"]["limits"]


@every_rendering
def test_secrets_are_mounted_to_be_read_only(names: tuple[str, ...]) -> None:
    for pod in manifests(names).workloads.values():
        for container in pod.containers:
            for mount in container.mounts:
                if "secret" in pod.volumes[mount["name"]]:
                    assert mount["readOnly"] is True


@every_rendering
def test_the_engine_is_there_before_the_runner_and_until_it_has_ended(names: tuple[str, ...]) -> None:
    runner = manifests(names).workloads["fn-hybrid-runner"]
    for container in runner.containers:
        if container.name == ENGINE:
            # Kubernetes waits for the startup probe of such an init container, and stops it after the others.
            assert container.first
            assert container.stays
            assert "exec" in container.probes["startupProbe"]
