"""docs/coming-from-fn.md tells every difference that is meant, and every setting of Fn that has no effect."""

from __future__ import annotations

import json
import re
from pathlib import Path

from deploy.unknown import NOT_BUILT

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "coming-from-fn.md").read_text()
_SEE_ABOVE = "as above"


def test_the_differences_are_those_of_the_recordings() -> None:
    scenarios = json.loads((ROOT / "tests" / "wire" / "differences.json").read_text())
    reasons = {step["reason"] for steps in scenarios.values() for step in steps.values()}
    part = PAGE.split("## What differs\n")[1].split("\n## ")[0]
    told = set(re.findall(r"^- (.+)\.$", part, re.MULTILINE))
    assert told == {reason for reason in reasons if not reason.startswith(_SEE_ABOVE)}


def test_settings_without_effect_are_those_that_nodes_warn_of() -> None:
    part = PAGE.split("## Settings without effect\n")[1].split("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", part, re.MULTILINE))
    assert {f"FN_{name}": why for name, why in told.items()} == NOT_BUILT
