"""All that is known at the end: the clients' book, the functions' ledger, and what the API says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from services.queue import open_queue
from tests.system.faults import ledger
from tests.system.faults.book import Book
from tests.system.faults.ledger import Run
from tests.system.faults.world import World
from tests.system.nodes import ask_again


@dataclass(slots=True)
class Evidence:
    """*records*: of all functions, by id, from one API node; *again*: the same from the other, afterwards."""

    book: Book
    runs: dict[str, list[Run]] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    again: dict[str, dict[str, Any]] = field(default_factory=dict)
    listed: list[str] = field(default_factory=list)
    """Ids as listings name them, each as often as it comes."""
    dead: set[str] | None = None
    """Calls that are dead letters; None where API nodes know none."""
    queued: int = 0
    """Calls that the queue has, waiting or leased."""
    shown: list[dict[str, Any]] = field(default_factory=list)
    """What API nodes show of the queue."""
    logs: dict[str, str] = field(default_factory=dict)
    exits: list[str] = field(default_factory=list)

    @property
    def unknown(self) -> set[str]:
        """Detached calls that are recorded and whose answer never reached a client."""
        detached = {call_id for call_id, record in self.records.items() if record["type"] != "sync"}
        return detached - self.book.accepted.keys()


async def gather(http: aiohttp.ClientSession, world: World, book: Book) -> Evidence:
    """Reads everything, once the system has come to rest."""
    evidence = Evidence(book, logs=world.logs(), exits=list(world.exits))
    evidence.runs = ledger.read(world.ledger)
    for api, records in zip(world.apis, (evidence.records, evidence.again), strict=True):
        for fn_id in book.functions.values():
            async for record in pages(http, f"{api.url}/v2/fns/{fn_id}/calls"):
                records[record["id"]] = record
                if records is evidence.records:
                    evidence.listed.append(record["id"])
    for call_id, record in (evidence.records | evidence.again).items():
        if call_id in book.accepted:
            book.see(call_id, record)
    evidence.dead = await _dead(http, world.apis[0].url)
    evidence.queued = await queued(world)
    for api in world.apis:
        evidence.shown += (await ask_again(http, f"{api.url}/v2/queue"))["items"]
    return evidence


async def pages(http: aiohttp.ClientSession, url: str) -> AsyncIterator[dict[str, Any]]:
    """The items of a listing, all pages of it."""
    cursor = ""
    while True:
        page = await ask_again(http, url, params={"per_page": "100", "cursor": cursor})
        for item in page["items"] or []:
            yield item
        cursor = page.get("next_cursor", "")
        if not cursor:
            return


async def queued(world: World) -> int:
    """Calls in the queue, asked past all nodes and proxies."""
    async with open_queue(world.servers["redis"].url) as queue:
        return sum(depth.queued + depth.leased for depth in await queue.depths())


async def _dead(http: aiohttp.ClientSession, api: str) -> set[str] | None:
    async with http.get(f"{api}/v2/dead-letters") as answer:
        if answer.status in (404, 405):
            return None
    return {letter["id"] async for letter in pages(http, f"{api}/v2/dead-letters")}
