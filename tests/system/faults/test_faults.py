"""No accepted call is lost: real nodes under load, while everything that may break does."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.engine.packages import Missing, missing
from tests.system.faults.driver import run

pytestmark = pytest.mark.system

SECONDS = 75.0


async def test_every_rule_of_the_guarantee_holds_whatever_breaks(
    tmp_path: Path, temporary_folder: None
) -> None:
    seed = int(os.environ.get("FN_FAULTS_SEED") or random.SystemRandom().randrange(1 << 32))
    try:
        result = await run(tmp_path, seed, SECONDS)
    except Missing as exc:
        missing(f"NO SERVERS TO BREAK: {exc}")
    report = result.markdown()
    print(report)
    assert not result.broken, report
    assert all(verdict.cases for verdict in result.verdicts), report
