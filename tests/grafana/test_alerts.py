"""Prometheus takes the alerts, and each of them fires when it should and only then."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.engine.packages import need
from tests.grafana.test_dashboards import ALERTS, rules

CASES = Path(__file__).parent / "alerts_test.yml"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = need("promtool", "prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", str(ALERTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_on_its_fault_and_is_quiet_otherwise() -> None:
    done = promtool("test", "rules", str(CASES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_is_without_both_cases() -> None:
    cases = {case["name"] for case in yaml.safe_load(CASES.read_text())["tests"]}
    assert cases == {f"{rule['alert']} {what}" for rule in rules() for what in ("fires", "is quiet")}


def test_a_threshold_that_is_changed_is_noticed(tmp_path: Path) -> None:
    changed = ALERTS.read_text().replace(
        "max(fn_async_oldest_seconds) > 600", "max(fn_async_oldest_seconds) > 800"
    )
    assert changed != ALERTS.read_text()
    (tmp_path / "alerts.yml").write_text(changed)
    cases = yaml.safe_load(CASES.read_text())
    cases["rule_files"] = ["alerts.yml"]
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(cases))
    done = promtool("test", "rules", str(tmp_path / "cases.yml"))
    assert done.returncode != 0
    assert "FnQueueOldest" in done.stdout + done.stderr


def test_each_alert_says_how_bad_it_is_and_where_to_read_on() -> None:
    page = (ALERTS.parents[2] / "docs" / "telemetry.md").read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description", "runbook_url"} <= rule["annotations"].keys()
        assert f"`{rule['alert']}`" in page
