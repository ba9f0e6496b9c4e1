"""Who reaches which port, by the NetworkPolicies of every rendering."""

from __future__ import annotations

import pytest

from tests.kubernetes.policies import Outside, Pod, may_connect, pod_of
from tests.kubernetes.rendered import ALL, Manifests, Object, manifests

every_rendering = pytest.mark.parametrize("names", ALL, ids="+".join)

HTTP, ADMIN, RUNNER_API = 8080, 8081, 8082
STRANGER = Pod({"app": "shop"}, namespace="shop")
NEIGHBOUR = Pod({"app": "anything"})
"""In the namespace of fn-hybrid, and no part of it."""
CLIENT = Pod({"app": "ingress"}, namespace="ingress", namespace_labels={"fn.hybrid/clients": "true"})
PROMETHEUS = Pod({"app.kubernetes.io/name": "prometheus"}, namespace="monitoring")
DNS = Pod({"k8s-app": "kube-dns"}, namespace="kube-system")
POSTGRES = Pod({"app": "postgres"}, namespace="stores", namespace_labels={"fn.hybrid/stores": "true"})
METADATA = Outside("169.254.169.254")
KUBERNETES_API = Outside("10.96.0.1")
INTERNET = (Outside("203.0.113.7"), Outside("2001:db8::7"))
PRIVATE = tuple(
    map(Outside, ("10.0.0.5", "172.20.0.5", "192.168.1.5", "100.64.0.5", "127.0.0.1", "fd00::5", "fe80::5"))
)


def api(found: Manifests) -> Pod:
    return pod_of(found.workloads["fn-hybrid-api"])


def runner(found: Manifests) -> Pod:
    return pod_of(found.workloads["fn-hybrid-runner"])


def of_functions(found: Manifests) -> Pod:
    """The pod whose address functions have: that of their engine."""
    return pod_of(found.workloads["fn-hybrid-engine"]) if has_engines(found) else runner(found)


def has_engines(found: Manifests) -> bool:
    return "fn-hybrid-engine" in found.workloads


@every_rendering
def test_only_runners_reach_the_port_for_runners(names: tuple[str, ...]) -> None:
    found = manifests(names)
    assert may_connect(found, runner(found), api(found), RUNNER_API)
    others = [STRANGER, NEIGHBOUR, CLIENT, PROMETHEUS, POSTGRES, api(found), *INTERNET]
    assert [one for one in others if may_connect(found, one, api(found), RUNNER_API)] == []


@every_rendering
def test_clients_reach_the_public_ports_and_no_other(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for pod in (api(found), runner(found)):
        assert may_connect(found, CLIENT, pod, HTTP)
        assert not may_connect(found, CLIENT, pod, ADMIN)
        for other in (STRANGER, NEIGHBOUR, *INTERNET):
            assert not may_connect(found, other, pod, HTTP)
            assert not may_connect(found, other, pod, ADMIN)


@every_rendering
def test_prometheus_reaches_the_admin_port_and_no_other(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for pod in (api(found), runner(found)):
        open_to = [port for port in (HTTP, ADMIN, RUNNER_API) if may_connect(found, PROMETHEUS, pod, port)]
        assert open_to == [ADMIN]
    lookalike = Pod(PROMETHEUS.labels, namespace="shop")
    assert not may_connect(found, lookalike, api(found), ADMIN)


@every_rendering
def test_runners_reach_names_and_the_api_and_no_store(names: tuple[str, ...]) -> None:
    found = manifests(names)
    here = runner(found)
    assert may_connect(found, here, DNS, 53, "UDP")
    assert may_connect(found, here, DNS, 53)
    for port in (5432, 6379, 443):
        assert not may_connect(found, here, POSTGRES, port)
    assert not may_connect(found, here, api(found), HTTP)
    assert not may_connect(found, here, api(found), ADMIN)
    assert not may_connect(found, here, here, ADMIN)


@every_rendering
def test_api_nodes_reach_stores_and_receivers_of_callbacks(names: tuple[str, ...]) -> None:
    found = manifests(names)
    here = api(found)
    assert may_connect(found, here, POSTGRES, 5432)
    assert may_connect(found, here, DNS, 53, "UDP")
    for one in INTERNET:
        assert may_connect(found, here, one, 443)
        assert not may_connect(found, here, one, 22)
    assert not may_connect(found, here, runner(found), HTTP)


@every_rendering
def test_nobody_reaches_metadata_private_networks_or_the_api_of_kubernetes(names: tuple[str, ...]) -> None:
    found = manifests(names)
    for pod in (api(found), runner(found), of_functions(found)):
        for target in (METADATA, KUBERNETES_API, *PRIVATE):
            for port in (80, 443, 6443, 10250):
                assert not may_connect(found, pod, target, port), target


@every_rendering
def test_functions_reach_the_internet_and_neither_stores_nor_public_ports_of_nodes(
    names: tuple[str, ...],
) -> None:
    found = manifests(names)
    here = of_functions(found)
    for one in INTERNET:
        assert may_connect(found, here, one, 443)
    for target in (POSTGRES, STRANGER, NEIGHBOUR):
        assert not may_connect(found, here, target, HTTP)
    for pod in (api(found), runner(found)):
        assert not may_connect(found, here, pod, HTTP)
        assert not may_connect(found, here, pod, ADMIN)


@every_rendering
def test_only_an_engine_in_a_pod_of_its_own_keeps_functions_from_the_port_for_runners_by_policy(
    names: tuple[str, ...],
) -> None:
    """Beside its runner it has the runner's rights, and its firewall alone parts them."""
    found = manifests(names)
    assert may_connect(found, of_functions(found), api(found), RUNNER_API) is not has_engines(found)


@every_rendering
def test_only_runners_reach_an_engine_in_a_pod_of_its_own(names: tuple[str, ...]) -> None:
    found = manifests(names)
    if has_engines(found):
        engine = of_functions(found)
        port = engine.ports["engine"]
        assert may_connect(found, runner(found), engine, port)
        others = [STRANGER, NEIGHBOUR, CLIENT, PROMETHEUS, api(found), engine, *INTERNET]
        assert [one for one in others if may_connect(found, one, engine, port)] == []
        assert not may_connect(found, runner(found), INTERNET[0], 443)


@every_rendering
def test_every_pod_of_ours_is_closed_unless_a_policy_opens_it(names: tuple[str, ...]) -> None:
    found = manifests(names)
    (closed,) = [
        one for one in found.of("NetworkPolicy").values() if one["metadata"]["name"] == "fn-hybrid-deny"
    ]
    assert closed["spec"].keys() == {"podSelector", "policyTypes"}
    for workload in found.workloads.values():
        assert closed["spec"]["podSelector"]["matchLabels"].items() <= workload.labels.items()


# -- the evaluator itself ----------------------------------------------------------------------


def policy(**spec: object) -> Manifests:
    one: Object = {"kind": "NetworkPolicy", "metadata": {"name": "x", "namespace": "fn-hybrid"}, "spec": spec}
    return Manifests([one])


def test_a_pod_that_no_policy_is_about_is_open() -> None:
    assert may_connect(policy(podSelector={"matchLabels": {"a": "b"}}), STRANGER, NEIGHBOUR, 1)


def test_a_rule_without_peers_or_ports_is_for_all() -> None:
    assert may_connect(policy(podSelector={}, ingress=[{}]), STRANGER, NEIGHBOUR, 1)
    assert not may_connect(policy(podSelector={}, policyTypes=["Ingress"]), STRANGER, NEIGHBOUR, 1)


def test_a_selector_of_pods_alone_means_those_of_the_policys_namespace() -> None:
    found = policy(podSelector={}, ingress=[{"from": [{"podSelector": {}}]}])
    assert may_connect(found, NEIGHBOUR, NEIGHBOUR, 1)
    assert not may_connect(found, STRANGER, NEIGHBOUR, 1)


def test_two_selectors_in_one_peer_must_both_fit_and_in_two_peers_either() -> None:
    both = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "shop"}}}
    either = [{"podSelector": {"matchLabels": {"app": "none"}}}, {"namespaceSelector": {}}]
    for peers, expected in ([both], False), (either, True):
        found = policy(podSelector={}, ingress=[{"from": peers}])
        assert may_connect(found, CLIENT, NEIGHBOUR, 1) is expected


def test_blocks_have_exceptions_and_ports_have_names_and_ranges() -> None:
    block = {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}}
    found = policy(
        podSelector={}, ingress=[{"from": [block], "ports": [{"port": "web"}, {"port": 90, "endPort": 92}]}]
    )
    target = Pod({}, ports={"web": 80})
    reached = [port for port in range(75, 100) if may_connect(found, Outside("203.0.113.1"), target, port)]
    assert reached == [80, 90, 91, 92]
    assert not may_connect(found, Outside("203.0.113.200"), target, 80)


def test_expressions_of_labels_are_understood() -> None:
    for operator, values, expected in (
        ("In", ["anything"], True),
        ("NotIn", ["anything"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ):
        selector = {"matchExpressions": [{"key": "app", "operator": operator, "values": values}]}
        closed = policy(podSelector=selector, policyTypes=["Ingress"])
        assert may_connect(closed, STRANGER, NEIGHBOUR, 1) is not expected
