"""Settings in the manifests are ones that nodes know, and fit each other and the limits of the pods."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from deploy.__main__ import main
from deploy.runners import examine
from deploy.settings import APINode, RunnerNode, Settings, declared, in_force, read_all
from tests.kubernetes.rendered import ALL, Container, Manifests, Object, Workload, manifests

every_rendering = pytest.mark.parametrize("names", ALL, ids="+".join)

SECRETS = {
    "fn-hybrid-stores": {
        "FN_DB_URL": "postgres://fn:secret@postgres.stores/fn",
        "FN_MQ_URL": "redis://redis.stores/0",
        "FN_LOGSTORE_URL": "s3://KEY:SECRET@s3.example.com/eu-west-1/fn-calls",
    },
    "fn-hybrid-runner-token": {"FN_RUNNER_TOKEN": "secret"},
}
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def bytes_of(text: str) -> int:
    """Kubernetes' quantities with binary units."""
    return int(text[:-2]) * UNITS[text[-2:]]


def nodes(found: Manifests) -> Iterator[tuple[Workload, Container]]:
    """The containers that run fn-node for good."""
    for workload in found.workloads.values():
        for container in workload.containers:
            if container.body["command"] == ["fn-node"] and not container.first:
                yield workload, container


def environ_of(found: Manifests, container: Container) -> dict[str, str]:
    environ = found.environ(container, SECRETS)
    fields = {one["name"] for one in container.body.get("env", []) if "valueFrom" in one}
    return environ | dict.fromkeys(fields, "fn-hybrid-pod-0")


@functools.cache
def mounted() -> str:
    """A folder with what is in the Secrets that pods mount below /etc/fn."""
    folder = Path(tempfile.mkdtemp(prefix="fn-mounted-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    authority = trustme.CA()
    own = authority.issue_cert("fn-hybrid-api", "fn-hybrid-api-runner")
    for place, names in (("tls", "tls.crt tls.key ca.crt"), ("engine", "cert.pem key.pem ca.pem")):
        (folder / place).mkdir()
        certificate, key, trusted = names.split()
        own.cert_chain_pems[0].write_to_path(str(folder / place / certificate))
        own.private_key_pem.write_to_path(str(folder / place / key))
        authority.cert_pem.write_to_path(str(folder / place / trusted))
    (folder / "secrets" / "shop").mkdir(parents=True)
    (folder / "registry").mkdir()
    (folder / "registry" / ".dockerconfigjson").write_text('{"auths": {}}')
    (folder / "tokens").mkdir()
    assert main(["token", "--name", "ops", "--role", "admin", "--file", f"{folder}/tokens/tokens.yaml"]) == 0
    return str(folder)


def settings(found: Manifests, container: Container) -> tuple[Settings, list[str]]:
    environ = {
        name: value.replace("/etc/fn", mounted()) for name, value in environ_of(found, container).items()
    }
    return read_all(environ, container.body["args"][0])


@every_rendering
def test_every_variable_is_one_that_its_node_reads(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for workload, container in nodes(found):
        known = declared(container.body["args"][0]).keys()
        unknown = environ_of(found, container).keys() - known
        assert not unknown, f"{workload.name}: {unknown}"


@every_rendering
def test_no_variable_is_set_that_reads_as_one_of_a_node_and_is_of_something_else(
    names: tuple[str, ...],
) -> None:
    for workload in manifests(names).workloads.values():
        for container in workload.containers:
            if container.body["command"] != ["fn-node"]:
                assert not [one for one in container.body["env"] if one["name"].startswith("FN_")]


@every_rendering
def test_nodes_take_their_settings_and_warn_of_nothing_else(names: tuple[str, ...]) -> None:
    """The address of an installation is its own: nodes say that it is missing until an overlay names it."""
    found = manifests(names)
    for _, container in nodes(found):
        read, warnings = settings(found, container)
        open_to_all = not in_force({"x": read.identity}).get("FN_API_TOKENS")
        nowhere = container.body["args"][0] == "api" and names != ("dev",)
        assert [one.partition(" is not set")[0] for one in warnings if "FN_PUBLIC_LB_URL" in one] == [
            "FN_PUBLIC_LB_URL"
        ] * nowhere
        assert len(warnings) <= open_to_all + nowhere, warnings


@every_rendering
def test_pods_have_names_that_stay_and_listen_to_everybody(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for _, container in nodes(found):
        env: dict[str, Object] = {one["name"]: one for one in container.body["env"]}
        assert env["FN_NODE_ID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert "FN_HOST" not in environ_of(found, container)


@every_rendering
def test_runners_ask_the_port_of_the_api_that_is_theirs(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for workload, container in nodes(found):
        if workload.name == "fn-hybrid-runner":
            url = environ_of(found, container)["FN_RUNNER_API_URL"]
            scheme, _, address = url.partition("://")
            name, _, port = address.partition(":")
            service = found.of("Service")[name]["spec"]["ports"][0]
            assert (service["port"], service["targetPort"]) == (int(port), "runner-api")
            secure = container.probes["readinessProbe"]["httpGet"].get("scheme") == "HTTPS"
            assert (scheme == "https") == secure == ("FN_NODE_CERT" in environ_of(found, container))


@every_rendering
def test_what_functions_may_use_fits_into_the_limits_of_their_engine(names: tuple[str, ...]) -> None:
    found = manifests(names)
    runner = found.workloads["fn-hybrid-runner"]
    values = environ_of(found, runner.container("runner"))
    memory, cpus = int(values["FN_MAX_TOTAL_MEMORY_BYTES"]), int(values["FN_MAX_TOTAL_CPU_MCPUS"])
    assert memory > 0
    assert cpus > 0
    engines = [one for all_ in found.workloads.values() for one in all_.containers if one.name == "engine"]
    for engine in engines:
        limits = engine.body["resources"]["limits"]
        assert memory <= bytes_of(limits["memory"]) - (1 << 30), "dockerd and its caches need some"
        assert cpus <= int(limits["cpu"]) * 1000


@every_rendering
def test_bodies_that_a_node_may_hold_fit_into_its_memory(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for _, container in nodes(found):
        values = environ_of(found, container)
        held = int(values["FN_HTTP_MAX_BODIES_BYTES"]) + int(values.get("FN_MAX_WAITING_BYTES", "0"))
        assert held <= bytes_of(container.body["resources"]["limits"]["memory"]) // 2


@every_rendering
def test_the_spool_fits_on_its_volume_and_outlives_the_pod(names: tuple[str, ...]) -> None:
    found = manifests(names)
    runner = found.workloads["fn-hybrid-runner"]
    container = runner.container("runner")
    values = environ_of(found, container)
    paths = {mount["mountPath"]: mount["name"] for mount in container.mounts}
    claim = runner.volumes[paths[values["FN_SPOOL_PATH"]]]["spec"]
    assert int(values["FN_MAX_SPOOL_SIZE_BYTES"]) < bytes_of(claim["resources"]["requests"]["storage"])


@every_rendering
def test_images_are_removed_before_they_fill_the_disk_of_their_engine(names: tuple[str, ...]) -> None:
    """A pod whose emptyDir is full is thrown out: pulls need room above the mark, and functions some, too."""
    found = manifests(names)
    values = environ_of(found, found.workloads["fn-hybrid-runner"].container("runner"))
    mark = int(values.get("FN_IMAGE_CLEAN_MAX_SIZE", "0"))
    engines = [
        (workload, one)
        for workload in found.workloads.values()
        for one in workload.containers
        if one.name == "engine"
    ]
    assert bool(mark) == bool(engines), "an engine of the machine's is cleaned by whoever looks after that"
    for workload, engine in engines:
        name = next(one["name"] for one in engine.mounts if one["mountPath"] == "/var/lib/engine")
        volume = workload.volumes[name]
        size = volume.get("emptyDir", {}).get("sizeLimit")
        size = bytes_of(size or volume["spec"]["resources"]["requests"]["storage"])
        assert size // 2 <= mark <= size * 2 // 3


@every_rendering
def test_what_a_runner_pulled_is_known_when_its_pod_is_made_anew(names: tuple[str, ...]) -> None:
    found = manifests(names)
    runner = found.workloads["fn-hybrid-runner"]
    container = runner.container("runner")
    folder = Path(environ_of(found, container)["FN_IMAGE_RECORD_PATH"])
    (mount,) = [one for one in container.mounts if Path(one["mountPath"]) in folder.parents]
    assert runner.volumes[mount["name"]]["spec"]["accessModes"] == ["ReadWriteOnce"]


@every_rendering
def test_runner_and_engine_see_one_folder_of_sockets_under_one_path(names: tuple[str, ...]) -> None:
    found = manifests(names)
    runner = found.workloads["fn-hybrid-runner"]
    path = environ_of(found, runner.container("runner"))["FN_IOFS_PATH"]
    folders = []
    for workload in found.workloads.values():
        for container in workload.containers:
            if container.name in ("runner", "engine"):
                mount = next(one for one in container.mounts if one["mountPath"] == path)
                volume = workload.volumes[mount["name"]]
                folders.append(volume.get("hostPath", {}).get("path") or f"pod of {workload.name}")
    assert len(set(folders)) == 1


@every_rendering
def test_every_pod_gets_the_time_that_its_stop_may_take(names: tuple[str, ...]) -> None:
    """docs/operating.md, "Stop and drain": not ready and requests, or detached calls beside; a rest."""
    found = manifests(names)
    for workload, container in nodes(found):
        values = in_force(
            {
                field: getattr(settings(found, container)[0], field)
                for field in settings(found, container)[0].__slots__
            }
        )
        requests = values["FN_HTTP_NOT_READY_SECS"] + values["FN_HTTP_DRAIN"]
        stop = max(requests, values.get("FN_DRAIN_SECS", 0.0))
        before = container.body.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        rest = workload.pod["terminationGracePeriodSeconds"] - before - stop
        assert 20 <= rest <= 90, f"{workload.name}: {rest} s beside {stop} s"


@every_rendering
def test_a_runner_that_stops_lets_the_longest_function_end(names: tuple[str, ...]) -> None:
    found = manifests(names)
    settings_of_runner, _ = settings(found, found.workloads["fn-hybrid-runner"].container("runner"))
    assert isinstance(settings_of_runner, RunnerNode)
    cut = [finding.about for finding in examine(settings_of_runner.http, settings_of_runner.agent)]
    # The overlay to look at gives the cluster of a laptop back soon.
    assert len(cut) == (2 if names == ("dev",) else 0), cut


@every_rendering
def test_records_and_logs_are_not_kept_for_ever(names: tuple[str, ...]) -> None:
    found = manifests(names)
    kept, _ = settings(found, found.workloads["fn-hybrid-api"].container("api"))
    assert isinstance(kept, APINode)
    assert 0 < kept.retention.logs < kept.retention.calls == 30 * 86400


@every_rendering
def test_a_stop_is_noticed_by_balancers_while_the_node_still_serves(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for _, container in nodes(found):
        probe = container.probes["readinessProbe"]
        noticed = probe["periodSeconds"] * probe["failureThreshold"]
        production = names != ("dev",)
        serves_on = float(environ_of(found, container)["FN_HTTP_NOT_READY_SECS"])
        assert serves_on >= (noticed + 5 if production else 2)
