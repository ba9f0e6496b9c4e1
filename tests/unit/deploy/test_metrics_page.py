from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploy import metrics_page
from shared_models import telemetry

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_of_metrics_is_fresh() -> None:
    """When this fails: make docs."""
    assert PAGE.read_text() == metrics_page.markdown()


def test_the_page_has_each_metric_that_a_process_can_expose_and_no_other() -> None:
    rows = {row.name: row for row in metrics_page.rows()}
    exposed = set()
    for family in text_string_to_metric_families(telemetry.exposition().decode()):
        counter = family.type == "counter" and f"{family.name}_total" in rows
        name = f"{family.name}_total" if counter else family.name
        exposed.add(name)
        assert rows[name].type == ("untyped" if family.type == "unknown" else family.type), name
        own = set(rows[name].labels) | {"le"}
        assert all(set(sample.labels) <= own for sample in family.samples), name
    assert exposed == set(rows)


def test_each_metric_says_what_it_means() -> None:
    for row in metrics_page.rows():
        assert row.meaning[:1].isupper(), row.name
        assert "|" not in row.meaning, row.name
        assert row.name.startswith("fn_"), row.name
