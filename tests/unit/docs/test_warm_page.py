"""docs/warm.md names tests, metrics, settings and annotations that there are."""

from __future__ import annotations

import re
from pathlib import Path

from deploy.settings import NODE_TYPES, declared
from shared_models import async_policy

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "warm.md").read_text()


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 10
    assert named - set(re.findall(r"def (test_\w+)\(", written)) == set()


def test_settings_annotations_and_metrics_are_those_of_the_code() -> None:
    settings = {name for kind in NODE_TYPES for name in declared(kind)} | {"FN_WORKERS"}
    assert set(re.findall(r"`(FN_\w+)", PAGE)) <= settings
    assert set(re.findall(r"(fn\.hybrid/[\w/-]+)", PAGE)) == {
        async_policy.WARM_MIN,
        async_policy.MAX_CONCURRENCY,
    }
    code = "\n".join(path.read_text() for path in (ROOT / "runner_node").rglob("*.py"))
    # Names that are put together where they are told.
    code += '"fn_container_start" "fn_runner_image_pull_bytes" "fn_runner_image_pull_layers"'
    for metric in re.findall(r"`(fn_\w+)`", PAGE):
        assert f'"{re.sub("(_total|_duration_seconds)$", "", metric)}"' in code or f'"{metric}"' in code, (
            metric
        )
