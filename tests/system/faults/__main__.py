"""``python -m tests.system.faults --minutes 30 --seed 1 --into docs/faults-report.md``: the long run."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path

from tests.system.faults.driver import run
from tests.system.faults.report import Result
from tests.system.faults.schedule import KINDS


def main() -> int:
    """Answers 1 when a rule is broken; the nodes' logs are kept then."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long faults are made (30)")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule; a new one unless given")
    parser.add_argument("--rate", type=float, default=6.0, help="detached calls per second (6)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of faults, by commas (all)")
    parser.add_argument("--into", type=Path, default=None, help="file for the report")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="fn-faults-"))
    folder.chmod(0o755)
    kinds = options.kinds.split(",")
    work = run(folder, seed, options.minutes * 60, kinds=kinds, rate=options.rate)
    result = asyncio.run(_until_stopped(work))
    report = result.markdown()
    if options.into:
        options.into.write_text(report)
    print(report)
    if result.broken:
        print(f"broken; logs and ledger are in {folder}", file=sys.stderr)
    return 1 if result.broken else 0


async def _until_stopped(running: Coroutine[None, None, Result]) -> Result:
    """SIGTERM ends the run as Ctrl-C does: nothing is left behind."""
    task = asyncio.ensure_future(running)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


if __name__ == "__main__":
    sys.exit(main())
