"""What cases have in common: options, rows, goals, medians."""

from __future__ import annotations

import itertools
import operator
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

Row = dict[str, Any]
"""One line of a case's table: names and figures, the unit in each name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """*seconds*: of each run. *rounds*: how often each is repeated, in turns. *folder*: for whatever is made.

    *callers*: instead of those of the case. *quick*: only whether it works at all.
    """

    folder: Path
    seconds: int = 2
    rounds: int = 3
    callers: tuple[int, ...] = ()
    quick: bool = False

    def of(self, full: Sequence[Any], quick: Sequence[Any]) -> Sequence[Any]:
        """*full*, or so much of it as a quick run does."""
        return quick if self.quick else full

    def own_folder(self, name: str) -> Path:
        """A new folder."""
        made = self.folder / f"{name}{sum(1 for _ in self.folder.iterdir())}"
        made.mkdir()
        return made


class Case(Protocol):
    """A module of ``benchmarks.cases``."""

    TITLE: str
    GOALS: Sequence[Goal]

    @staticmethod
    def run(options: Options) -> list[Row]:
        """Raises Missing when something that it needs is not here."""

    @staticmethod
    def charts(rows: Sequence[Row]) -> Mapping[str, str]:
        """Pictures as SVG, by file name."""


@dataclass(frozen=True, slots=True)
class Goal:
    """*figure* is *least* at least, or *most* at most, in each row that has all of *where*."""

    text: str
    figure: str
    least: float | None = None
    most: float | None = None
    where: Mapping[str, Callable[[Any], bool] | object] = field(default_factory=dict)

    def check(self, rows: Sequence[Row]) -> Iterator[tuple[Row, float, bool]]:
        """The rows that it is about, what they have, and whether that will do."""
        for row in rows:
            if self.figure not in row or not all(_has(row, name, wish) for name, wish in self.where.items()):
                continue
            value = float(row[self.figure])
            good = (self.least is None or operator.ge(value, self.least)) and (
                self.most is None or operator.le(value, self.most)
            )
            yield row, value, good


def _has(row: Row, name: str, wish: object) -> bool:
    return name in row and (bool(wish(row[name])) if callable(wish) else row[name] == wish)


def label(row: Row) -> str:
    """What a row is about: its names and numbers before the first figure."""
    parts = itertools.takewhile(lambda item: not isinstance(item[1], float), row.items())
    return ", ".join(f"{name} {value}" for name, value in list(parts)[:2])


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure by itself; errors are added up."""
    return {
        name: sum(each[name] for each in rounds)
        if name == "errors"
        else statistics.median(each[name] for each in rounds)
        for name in rounds[0]
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that *share* of *values* do not exceed; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
