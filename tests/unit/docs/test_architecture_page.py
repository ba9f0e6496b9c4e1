"""The rooms of docs/architecture.md are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ["api_node", "deploy", "hybrid_client", "runner_node", "services", "shared_models"]


def _room(package: str) -> str:
    page = (ROOT / "docs" / "architecture.md").read_text()
    found = re.search(rf"^    {package}/.*\n(?:      .*\n)*", page, re.MULTILINE)
    assert found, f"{package} is not on the page"
    return found[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_of_a_room_is_on_the_page(package: str) -> None:
    room = _room(package)
    modules = {path.stem for path in (ROOT / package).glob("*.py") if path.stem != "__init__"}
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    # Each room has its settings.
    missing = {name for name in (modules | folders) - {"settings"} if not re.search(rf"\b{name}\b", room)}
    assert not missing


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_on_the_page_is_in_its_room(package: str) -> None:
    named = set(re.findall(r"\b(\w+\.py)\b", _room(package)))
    there = {path.name for path in (ROOT / package).rglob("*.py")}
    assert named <= there
