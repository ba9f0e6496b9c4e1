"""What every fault is made on, and is told of."""

from __future__ import annotations

import random
from dataclasses import dataclass

import aiohttp

from tests.system.faults.book import Book
from tests.system.faults.world import World


@dataclass(frozen=True, slots=True)
class Ground:
    """*rng* decides what a fault leaves open: how late an answer is, which API node is asked."""

    world: World
    book: Book
    http: aiohttp.ClientSession
    rng: random.Random
