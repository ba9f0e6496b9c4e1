"""Settings and metrics that pages name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy import metrics_page
from deploy.settings import NODE_TYPES, declared

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

SETTING = re.compile(r"\bFN_[A-Z0-9_]*[A-Z0-9]\b(?!_?\*)")
METRIC = re.compile(r"`(fn_[a-z0-9_]+)[`{]")
OF_OTHERS = {"FN_TOKEN", "FN_API_URL", "FN_ID", *(f"FN_TEST_{name}" for name in (
    "POSTGRES_URL", "MARIADB_URL", "REDIS_URL", "S3_URL", "DOCKER_HOST",
))}  # fmt: skip
"""Of the ``fn`` command, of what functions see, and of the tests."""
FIELDS = {"fn_id", "fn_role"}
"""Of JSON and of tokens, which are no metrics."""


def name(page: Path) -> str:
    return page.name


@pytest.fixture(scope="module")
def settings() -> set[str]:
    return OF_OTHERS.union(*(declared(kind) for kind in NODE_TYPES))


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    return FIELDS | {row.name for row in metrics_page.rows()}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_names_only_settings_that_are_there(page: Path, settings: set[str]) -> None:
    assert set(SETTING.findall(page.read_text())) <= settings


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_names_only_metrics_that_are_there(page: Path, metrics: set[str]) -> None:
    assert set(METRIC.findall(page.read_text())) <= metrics


def test_names_are_seen_where_pages_have_them(settings: set[str], metrics: set[str]) -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    assert len(settings & set(SETTING.findall(text))) > 30
    assert len(metrics & set(METRIC.findall(text))) > 20
