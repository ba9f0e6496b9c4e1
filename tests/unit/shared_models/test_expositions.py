"""One page of metrics from those of several workers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from shared_models.expositions import joined


def page(calls: int, label: str) -> bytes:
    registry = CollectorRegistry()
    counter = Counter("calls", "Calls, all of them", ("fn",), registry=registry)
    counter.labels(label).inc(calls)
    Gauge("memory", "Bytes", registry=registry).set(calls * 1000)
    Histogram("wait", "Seconds", ("fn",), buckets=(1, 2), registry=registry).labels(label).observe(calls)
    return generate_latest(registry)


def test_every_sample_says_whose_it_is_and_every_family_is_named_once() -> None:
    text = joined([(0, page(1, "a")), (3, page(2, 'b {"} \\ \n c'))]).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families.keys() == {"calls", "memory", "wait"}
    assert text.count("# HELP") == text.count("# TYPE") == 3
    assert [(dict(one.labels), one.value) for one in families["calls"].samples] == [
        ({"worker": "0", "fn": "a"}, 1.0),
        ({"worker": "3", "fn": 'b {"} \\ \n c'}, 2.0),
    ]
    assert [(dict(one.labels), one.value) for one in families["memory"].samples] == [
        ({"worker": "0"}, 1000.0),
        ({"worker": "3"}, 2000.0),
    ]
    assert families["memory"].documentation == "Bytes"
    assert families["wait"].type == "histogram"
    assert len(families["wait"].samples) == 2 * 5


def test_a_family_that_only_one_worker_has_is_there() -> None:
    text = joined([(0, b""), (1, b"# HELP a A thing\n# TYPE a gauge\na 1.0\n")])
    assert text == b'# HELP a A thing\n# TYPE a gauge\na{worker="1"} 1.0\n'
    assert joined([]) == b""
