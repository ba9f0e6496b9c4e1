"""The benchmarks run: quick cases from the command line to the page that they leave behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.profile import page, stacks_of
from benchmarks.report import machine
from tests.engine.packages import Missing, missing, need

ROOT = Path(__file__).parents[2]
CASES = ROOT / "benchmarks" / "cases"
LIMIT = 120.0

pytestmark = pytest.mark.system


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_a_quick_run_leaves_a_table_figures_and_curves(tmp_path: Path) -> None:
    try:
        need("wrk", "wrk")
    except Missing as exc:
        missing(str(exc))
    done = bench("sync", "idle_runner", "--quick", "--callers", "1", "4", "--into", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    rows = found["cases"]["sync"]["rows"]
    assert [row["callers"] for row in rows] == [1, 4]
    assert all(row["per_second"] > 0 and row["cpu_us"] > 0 and row["bare_per_second"] > 0 for row in rows)
    assert all(row["errors"] == 0 and row["containers"] >= 1 for row in rows)
    assert [row["missing"] for row in found["cases"]["idle_runner"]["rows"]] == [0, 0]
    assert {"cores", "memory_gb", "kernel", "python", "commit", "date"} <= found["machine"].keys()
    page = (tmp_path / "README.md").read_text()
    assert found["machine"]["commit"] in page
    assert re.search(r"^- (met|\*\*missed\*\*): overhead at p50", page, re.MULTILINE)
    for picture in re.findall(r"\]\((\S+\.svg)\)", page):
        assert ElementTree.parse(tmp_path / picture).getroot().tag.endswith("svg")


def test_a_profile_tells_rooms_and_functions_apart() -> None:
    lib = "/x/lib/python3.11"
    stacks = stacks_of(
        f"run ({lib}/asyncio/runners.py:118);begin (/src/runner_node/run.py:7) 6\n"
        f"run ({lib}/asyncio/runners.py:118);begin (/src/runner_node/run.py:9) 1\n"
        f"run ({lib}/asyncio/runners.py:118);write ({lib}/site-packages/aiohttp/web.py:3) 2\n"
        f"run ({lib}/asyncio/runners.py:118) 1\n"
    )
    text = "\n".join(page(machine(), stacks, {"per_second": 5000.0, "cpu_us": 200.0}, "sync"))
    assert "| runner_node | 70.0% | 140.0 |" in text
    assert "| aiohttp | 20.0% | 40.0 |" in text
    assert "| `runner_node/run.py: begin` | 70.0% | 70.0% |" in text
    assert "| `asyncio/runners.py: run` | 10.0% | 100.0% |" in text


def test_every_case_is_run_and_an_unknown_one_is_named() -> None:
    done = bench("no-such-case")
    assert done.returncode == 2
    assert "no such case: no-such-case" in done.stderr
    listed = bench("--help").stdout
    cases = [path.stem for path in CASES.glob("*.py")]
    assert cases
    assert [name for name in cases if name not in listed] == []
