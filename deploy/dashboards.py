"""Dashboards for Grafana, made from the panels: ``python -m deploy.dashboards``, ``make dashboards``."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from deploy.panels import Dashboard, Panel
from deploy.panels_below import DASHBOARDS

FOLDER = Path(__file__).parent / "grafana" / "dashboards"
ALERTS = FOLDER.parent / "alerts.yml"
RULES = FOLDER.parents[1] / "kubernetes" / "components" / "monitoring" / "rules.yaml"
SCHEMA = 41
"""Of Grafana 12; older ones read it, newer ones bring it up to date."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
NODES = 'job=~"$job", instance=~"$instance"'
"""What NODES in an expression stands for: the nodes that were chosen."""
_WIDE = 24
_HEIGHT = 8


def pages() -> dict[str, str]:
    """JSON of each dashboard by the name of its file."""
    return {f"{one.name}.json": json.dumps(_dashboard(one), indent=1) + "\n" for one in DASHBOARDS}


def _dashboard(one: Dashboard) -> dict[str, Any]:
    names = ["datasource", "job", "instance", *(["app"] if one.apps else [])]
    return {
        "uid": f"fn-hybrid-{one.name}",
        "title": f"fn-hybrid: {one.title}",
        "description": one.about,
        "tags": ["fn-hybrid"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_VARIABLES[name] for name in names]},
        "links": [
            {
                "type": "dashboards", "title": "fn-hybrid", "tags": ["fn-hybrid"], "asDropdown": True,
                "includeVars": True, "keepTime": True,
            },
        ],
        "annotations": {"list": []},
        "panels": _placed(one.panels),
    }  # fmt: skip


def _placed(panels: tuple[Panel, ...]) -> list[dict[str, Any]]:
    """Left to right, a new line where one does not fit; all of a line are equally high."""
    made: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > _WIDE:
            x, y = 0, y + _HEIGHT
        made.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": _HEIGHT}))
        x += panel.width
    return made


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom: dict[str, Any] = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"}
    if panel.stacked:
        custom |= {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 40}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + index), "datasource": SOURCE, "legendFormat": legend,
                "expr": expr.replace("NODES", NODES), "range": True, "editorMode": "code",
            }
            for index, (expr, legend) in enumerate(panel.queries)
        ],
    }  # fmt: skip


def _labels(name: str, label: str, query: str) -> dict[str, Any]:
    """A variable of all values of a label, several of which may be chosen."""
    return {
        "type": "query", "name": name, "label": label, "datasource": SOURCE, "definition": query,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": True,
        "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


_VARIABLES: dict[str, dict[str, Any]] = {
    "datasource": {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"},
    "job": _labels("job", "Job", "label_values(fn_http_connections, job)"),
    "instance": _labels("instance", "Node", 'label_values(fn_http_connections{job=~"$job"}, instance)'),
    "app": _labels("app", "App", "label_values(fn_calls, fn_appname)"),
}


def write(folder: Path) -> None:
    """All of them into *folder*."""
    for name, page in pages().items():
        (folder / name).write_text(page)


def kubernetes_rules() -> str:
    """The alerts as an object of the Prometheus operator."""
    head = (
        "# Made by make dashboards from deploy/grafana/alerts.yml.\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: fn-hybrid\n"
        "  labels:\n    app.kubernetes.io/part-of: fn-hybrid\nspec:\n"
    )
    return head + textwrap.indent(ALERTS.read_text(), "  ")


if __name__ == "__main__":
    RULES.write_text(kubernetes_rules())
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
