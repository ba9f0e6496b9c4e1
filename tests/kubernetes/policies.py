"""What NetworkPolicies allow, as Kubernetes defines it: who reaches which port of whom."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.kubernetes.rendered import Manifests, Object, Workload


@dataclass(frozen=True)
class Pod:
    """One end of a connection. *ports* by name are those that it listens on."""

    labels: Mapping[str, str]
    namespace: str = "fn-hybrid"
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    address: str = "10.244.1.17"


@dataclass(frozen=True)
class Outside:
    """An end that is no pod."""

    address: str


def pod_of(workload: Workload) -> Pod:
    """A pod of *workload*."""
    return Pod(workload.labels, ports=workload.ports)


def may_connect(
    found: Manifests, source: Pod | Outside, target: Pod | Outside, port: int, protocol: str = "TCP"
) -> bool:
    """Whether both ends let a connection be made; an end that no policy is about lets everything."""
    policies = list(found.of("NetworkPolicy").values())
    leaves = not isinstance(source, Pod) or _side(policies, source, target, target, port, protocol, "Egress")
    enters = not isinstance(target, Pod) or _side(policies, target, source, target, port, protocol, "Ingress")
    return leaves and enters


def _side(
    policies: list[Object],
    here: Pod,
    there: Pod | Outside,
    listener: Pod | Outside,
    port: int,
    protocol: str,
    direction: str,
) -> bool:
    about = [one for one in policies if _is_about(one, here, direction)]
    if not about:
        return True
    peers, rules = ("to", "egress") if direction == "Egress" else ("from", "ingress")
    return any(
        _port_fits(rule, listener, port, protocol) and _peer_fits(rule.get(peers), there, policy)
        for policy in about
        for rule in policy["spec"].get(rules, [])
    )


def _is_about(policy: Object, pod: Pod, direction: str) -> bool:
    spec = policy["spec"]
    same = policy["metadata"].get("namespace", "fn-hybrid") == pod.namespace
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return same and direction in types and _selects(spec["podSelector"], pod.labels)


def _port_fits(rule: Object, listener: Pod | Outside, port: int, protocol: str) -> bool:
    if not rule.get("ports"):
        return True
    return any(
        one.get("protocol", "TCP") == protocol and port in _numbers(one, listener) for one in rule["ports"]
    )


def _numbers(port: Object, listener: Pod | Outside) -> Iterator[int]:
    named = port.get("port")
    if named is None:
        yield from range(1, 65536)
    elif isinstance(named, int):
        yield from range(named, port.get("endPort", named) + 1)
    elif isinstance(listener, Pod) and named in listener.ports:
        yield listener.ports[named]


def _peer_fits(peers: list[Object] | None, there: Pod | Outside, policy: Object) -> bool:
    if not peers:
        return True
    return any(_one_peer_fits(peer, there, policy) for peer in peers)


def _one_peer_fits(peer: Object, there: Pod | Outside, policy: Object) -> bool:
    if "ipBlock" in peer:
        return _in_block(peer["ipBlock"], there.address)
    if not isinstance(there, Pod):
        return False
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": there.namespace, **there.namespace_labels}
        namespace = _selects(peer["namespaceSelector"], labels)
    else:
        namespace = there.namespace == policy["metadata"].get("namespace", "fn-hybrid")
    return namespace and _selects(peer.get("podSelector", {}), there.labels)


def _in_block(block: Object, address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if ip not in ipaddress.ip_network(block["cidr"]):
        return False
    return not any(ip in ipaddress.ip_network(one) for one in block.get("except", []))


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    return all(_fits(one, labels) for one in selector.get("matchExpressions", []))


def _fits(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise AssertionError(f"no operator of Kubernetes: {expression}")
