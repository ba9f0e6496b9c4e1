"""What a run was and what it showed, as a page of markdown."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.system.faults.evidence import Evidence
from tests.system.faults.rules import Verdict
from tests.system.faults.schedule import Fault

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Result:
    """A run: what was done, what is known, what it means. *settled*: seconds from the last fault to rest."""

    seed: int
    seconds: float
    faults: Sequence[Fault]
    evidence: Evidence
    verdicts: Sequence[Verdict]
    settled: float

    @property
    def broken(self) -> list[str]:
        """The first few cases of each rule that is broken."""
        return [f"{verdict.rule}: {case}" for verdict in self.verdicts for case in verdict.broken[:_SHOWN]]

    def markdown(self) -> str:
        """The report."""
        parts = (self._what(), self._rules(), self._counts(), self._recovery(), self._plan())
        return "\n\n".join(("# Faults: the last long run", *parts))

    def _what(self) -> str:
        again = f"make faults MINUTES={self.seconds / 60:g} SEED={self.seed}"
        return (
            "Two API nodes, three runner nodes, Redis and PostgreSQL as processes, proxies between them,\n"
            "and a steady load, while the schedule below is carried out. `make faults MINUTES=30` makes\n"
            f"this page, `{again}` repeats its schedule.\n\n"
            f"Seed {self.seed}, {self.seconds / 60:.1f} minutes of faults, {len(self.faults)} faults.\n"
            f"All calls had ended {self.settled:.0f} s after the last fault."
        )

    def _rules(self) -> str:
        lines = ["## Rules", "", "| rule | cases | broken |", "|---|---|---|"]
        lines += [f"| {one.rule} | {one.cases} | {len(one.broken)} |" for one in self.verdicts]
        if self.broken:
            lines += ["", *(f"- {case}" for case in self.broken)]
        return "\n".join(lines)

    def _counts(self) -> str:
        evidence, book = self.evidence, self.evidence.book
        ends = Counter(" ".join((final.status, final.reason)).strip() for final in book.finals.values())
        attempts = Counter(final.attempt for final in book.finals.values())
        sync = Counter(str(one.status) if one.status > 0 else "connection" for one in book.sync)
        runs = sum(len(runs) for runs in evidence.runs.values())
        rows = [
            ("detached calls accepted", len(book.accepted)),
            ("their ends", _counted(ends)),
            ("their attempts", _counted(attempts)),
            ("sends refused or without an answer", _counted(book.refusals)),
            (
                "answers to idempotency keys",
                f"{sum(map(len, book.by_key.values()))} to {len(book.by_key)} keys",
            ),
            ("callbacks taken", sum(map(len, book.callbacks.values()))),
            ("sync calls", _counted(sync)),
            ("runs in the functions' ledger", runs),
            ("records of calls whose answer got lost", len(evidence.unknown)),
            ("nodes that ended by themselves", _counted(Counter(evidence.exits)) or "none"),
            ("faults that could not be made", "; ".join(sorted(book.unused)) or "none"),
        ]
        return "\n".join(
            ["## Counts", "", "| what | how many |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows)]
        )

    def _recovery(self) -> str:
        lines = [
            "## Recovery",
            "",
            "From the end of a fault until a call is accepted at its place, and until that call is over.",
            "",
            "| fault | times | accepted, median | accepted, longest | ended, median | ended, longest |",
            "|---|---|---|---|---|---|",
        ]
        for kind in sorted({kind for kind, _, _ in self.evidence.book.recoveries}):
            found = [one for one in self.evidence.book.recoveries if one[0] == kind]
            columns = [[one[1] for one in found], [one[2] for one in found]]
            numbers = [
                f"{value:.1f}" for times in columns for value in (statistics.median(times), max(times))
            ]
            lines.append(f"| {kind} | {len(found)} | " + " | ".join(numbers) + " |")
        return "\n".join(lines)

    def _plan(self) -> str:
        return "\n".join(["## Schedule", "", "```", *map(str, self.faults), "```"]) + "\n"


def _counted(counts: Counter[str] | Counter[int]) -> str:
    return ", ".join(f"{key}: {count}" for key, count in sorted(counts.items(), key=lambda one: str(one[0])))
