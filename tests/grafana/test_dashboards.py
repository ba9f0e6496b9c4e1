"""The dashboards are what the generator makes, fit Grafana, and name metrics that there are."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from deploy.dashboards import FOLDER, RULES, kubernetes_rules, pages
from tests.system.nodes import ROOT

ALERTS = ROOT / "deploy" / "grafana" / "alerts.yml"
METRIC = re.compile(r"\bfn_[a-z_]+(?=[{\[)<>= ])")
LABELS = {"fn_appname", "fn_path"}
BOARDS: dict[str, dict[str, Any]] = {name: json.loads(page) for name, page in pages().items()}
each = pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))


def expressions() -> list[str]:
    """Of all panels."""
    return [
        target["expr"]
        for board in BOARDS.values()
        for panel in board["panels"]
        for target in panel["targets"]
    ]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def metrics_of(expression: str) -> set[str]:
    return set(METRIC.findall(expression)) - LABELS


def known() -> set[str]:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(fn_\w+)` \| (\w+)", page, re.MULTILINE)
    parts = {
        f"{name}_{part}" for name, kind in rows if kind == "histogram" for part in ("bucket", "sum", "count")
    }
    return {name for name, _ in rows} | parts


def test_the_files_are_those_that_make_dashboards_makes() -> None:
    kept = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert kept == pages(), "run make dashboards"


def test_the_rules_of_kubernetes_are_the_alerts() -> None:
    assert RULES.read_text() == kubernetes_rules(), "run make dashboards"
    assert yaml.safe_load(RULES.read_text())["spec"] == yaml.safe_load(ALERTS.read_text())


def test_every_metric_of_panels_and_alerts_is_one_that_nodes_have() -> None:
    named = {
        name for one in [*expressions(), *(rule["expr"] for rule in rules())] for name in metrics_of(one)
    }
    assert len(named) > 40
    assert named <= known()


@each
def test_panels_have_ids_of_their_own_units_words_and_a_data_source_that_is_chosen(
    board: dict[str, Any],
) -> None:
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] == "timeseries"
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@each
def test_no_panel_lies_on_another_or_beyond_the_edge(board: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, two in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
            or one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
        )  # fmt: skip
        assert apart, (one, two)


@each
def test_every_variable_of_an_expression_can_be_chosen(board: dict[str, Any]) -> None:
    names = {variable["name"] for variable in board["templating"]["list"]}
    assert {"datasource", "job", "instance"} <= names
    for panel in board["panels"]:
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"} <= names


def test_pages_and_sections_that_panels_and_alerts_name_are_there() -> None:
    said = [panel["description"] for board in BOARDS.values() for panel in board["panels"]]
    said += [rule["annotations"]["runbook_url"] for rule in rules()]
    links = {link for text in said for link in re.findall(r"docs/([\w-]+\.md)(?:#([\w-]+))?", text)}
    assert len(links) > 10
    for page, anchor in links:
        heads = re.findall(r"^#+ (.+)$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
        assert not anchor or anchor in {
            re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads
        }
