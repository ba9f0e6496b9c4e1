"""docs/threat-model.md: each defence names tests that there are, and what is not defended says what to do."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()
DEFENCES, NOT_DEFENDED = "## Threats and defences", "## What is not defended"


def rows(part: str) -> list[list[str]]:
    """The cells of the tables in *part*, without their heads."""
    lines = [line for line in part.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    heads = {number - 1 for number, line in enumerate(lines) if line.startswith("|---")}
    return [row for number, row in enumerate(cells) if number not in heads and number - 1 not in heads]


def defences() -> list[list[str]]:
    return rows(PAGE[PAGE.index(DEFENCES) : PAGE.index(NOT_DEFENDED)])


def test_every_defence_names_a_test() -> None:
    assert len(defences()) > 30
    for row in defences():
        assert len(row) == 3, row
        assert re.fullmatch(r"`test_\w+`(, `test_\w+`)*", row[2]), row


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    there: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there.update(re.findall(r"def (test_\w+)\(", path.read_text()))
    assert named - there == set()


def test_what_is_not_defended_says_what_to_do() -> None:
    found = rows(PAGE[PAGE.index(NOT_DEFENDED) :])
    assert len(found) > 10
    assert all(len(row) == 2 and row[1].endswith(".") for row in found)
