from __future__ import annotations

from pathlib import Path

from deploy import config
from deploy.settings import NODE_TYPES, declared

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_of_settings_is_fresh() -> None:
    """When this fails: make docs."""
    assert PAGE.read_text() == config.markdown()


def test_the_page_has_every_variable_once() -> None:
    text = config.markdown()
    for kind in NODE_TYPES:
        for name in declared(kind):
            assert text.count(f"| `{name}` |") == 1, name
