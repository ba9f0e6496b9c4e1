"""Every overlay, and every combination of components, is what Kubernetes takes."""

from __future__ import annotations

import json

import kubernetes_validate
import pytest

from tests.kubernetes.rendered import ALL, Object, manifests

VERSIONS = ("1.29.0", "1.31.0", "1.37.0")
"""The oldest that has sidecars by default, one in the middle, and the newest whose schemas there are."""
NOT_OF_KUBERNETES = {"ScaledObject", "PodMonitor", "PrometheusRule"}

_good: set[str] = set()


def check(one: Object) -> None:
    """Objects that are the same in many renderings are looked at once."""
    text = json.dumps(one, sort_keys=True)
    if text in _good:
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.ValidationError as exc:
            where = "/".join(map(str, exc.path))
            pytest.fail(f"{one['kind']} {one['metadata']['name']}, {version}: {where}: {exc.message}")
    _good.add(text)


@pytest.mark.parametrize("names", ALL, ids="+".join)
def test_all_objects_keep_to_the_schemas_of_kubernetes_strictly(names: tuple[str, ...]) -> None:
    for one in manifests(names).objects:
        if one["kind"] not in NOT_OF_KUBERNETES:
            check(one)


def test_what_is_no_field_of_kubernetes_is_noticed() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [], "port": 1},
    }
    with pytest.raises(pytest.fail.Exception, match="port"):
        check(pod)


@pytest.mark.parametrize("names", ALL, ids="+".join)
def test_no_two_objects_have_one_name(names: tuple[str, ...]) -> None:
    known = [(one["kind"], one["metadata"]["name"]) for one in manifests(names).objects]
    assert len(known) == len(set(known))
