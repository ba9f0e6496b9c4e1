"""docs/guarantees.md names tests, metrics, settings, annotations and reasons that there are."""

from __future__ import annotations

import re
from pathlib import Path

from deploy.settings import NODE_TYPES, declared
from shared_models import async_policy
from shared_models.call import Reason

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", written))
    assert len(named) > 15
    assert named - there == set()


def test_every_sentence_of_the_guarantee_names_a_test() -> None:
    tables = [line for line in PAGE.splitlines() if line.startswith("| ") and "shown by" not in line]
    promises = [line for line in tables if line.count("|") in (3, 4) and "`test_" in line]
    assert len(promises) == 28


def test_settings_annotations_metrics_and_reasons_are_those_of_the_code() -> None:
    settings = {name for kind in NODE_TYPES for name in declared(kind)}
    assert set(re.findall(r"`(FN_\w+)", PAGE)) <= settings
    keys = {value for value in vars(async_policy).values() if str(value).startswith("fn.hybrid/")}
    assert set(re.findall(r"(fn\.hybrid/[\w/-]+)", PAGE)) <= keys
    code = "\n".join(path.read_text() for path in (ROOT / "services").glob("*.py"))
    code += "\n".join(path.read_text() for path in (ROOT / "runner_node").glob("*.py"))
    for metric in re.findall(r"`(fn_(?:async|runner)_\w+)`", PAGE):
        assert f'"{metric.removesuffix("_total")}"' in code, metric
    table = PAGE[PAGE.index("| `reason` |") : PAGE.index("## What people can do")]
    assert set(re.findall(r"`(\w+)`", table)) - {"reason"} == set(Reason)
