"""The load: sync and detached calls at a steady rate."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Coroutine
from contextlib import suppress

import aiohttp

from tests.system.faults.book import Accepted, Sync
from tests.system.faults.watcher import LOOK, Watcher
from tests.system.faults.world import CALL_TIMEOUT
from tests.system.nodes import Node, ask

PATIENCE = aiohttp.ClientTimeout(total=90, sock_connect=2)
"""Longer than any wait that a node allows: who waits for so long would wait for ever."""
RECOVERY = 60.0
"""Seconds after the end of a fault within which its place must be as good as new."""
BUSY = (429, 503)
"""What a client may be told whose request is right: try again."""
ANNOTATIONS: dict[str, dict[str, object]] = {
    "work": {},
    "poison": {},
    "flaky": {"fn.hybrid/async/retry-on": "error"},
    "mute": {"fn.hybrid/async/max-attempts": 2},
    "missing": {"fn.hybrid/async/max-attempts": 2},
}
"""The functions of the driver: most have the same code, and each has what it does wrong to itself."""
IMAGES = {"mute": "mute", "missing": "no-such-image"}


class Clients:
    """*rate*: detached calls per second, half as many sync ones. Some ask for a post to *callback_url*."""

    def __init__(self, watcher: Watcher, seed: int, rate: float, callback_url: str) -> None:
        self.http, self.book, self._world = watcher.http, watcher.book, watcher.world
        self._rng = random.Random(seed)
        self._pause = 1.0 / rate
        self._callback_url = callback_url
        self._watcher = watcher
        self._under_way: set[asyncio.Task[object]] = set()
        self._unexpected: list[Exception] = []

    async def deploy(self) -> None:
        """The functions, on all of which everybody agrees from here on."""
        api = self._world.apis[0].url
        app = await ask(self.http, "POST", f"{api}/v2/apps", json={"name": "faults"})
        for name, given in ANNOTATIONS.items():
            fn = {
                "name": name, "app_id": app["id"], "image": IMAGES.get(name, "work"), "memory": 128,
                "timeout": CALL_TIMEOUT, "annotations": given,
                "config": {"LEDGER": str(self._world.ledger)},
            }  # fmt: skip
            self.book.functions[name] = (await ask(self.http, "POST", f"{api}/v2/fns", json=fn))["id"]

    async def steady(self) -> None:
        """For ever; calls that are under way when it is cancelled go on: see ``finish``."""
        number = 0
        while True:
            await asyncio.sleep(self._pause * self._rng.uniform(0.5, 1.5))
            number += 1
            self._spawn(self.some_call())
            if number % 2:
                self._spawn(self.sync())

    async def finish(self) -> None:
        """Returns when every client has its answer; raises what a client did not expect."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        if self._unexpected:
            raise ExceptionGroup("clients broke down", self._unexpected)

    def _spawn(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._unexpected.append(error)

    # -- calls ---------------------------------------------------------------------------------

    async def some_call(self) -> None:
        """A detached call of a random sort, sent again where its key allows that."""
        rng = self._rng
        headers: dict[str, str] = {}
        seconds = rng.choice((0.01, 0.05, 0.1, 0.3, 1.5))
        body: dict[str, object] = {"type": "detached", "do": "work", "seconds": seconds}
        name, sort = "work", rng.random()
        if sort < 0.15:
            headers["Fn-Priority"] = str(rng.randint(0, 2))
        elif sort < 0.3:
            headers["Fn-Delay"] = str(rng.randint(1, 3))
        elif sort < 0.5:
            headers["Fn-Idempotency-Key"] = f"key-{uuid.UUID(int=rng.getrandbits(128))}"
        elif sort < 0.6:
            name, body = "flaky", {**body, "do": "fail", "until": rng.randint(1, 5)}
        if rng.random() < 0.2:
            headers["Fn-Callback-Url"] = self._callback_url
        if "Fn-Idempotency-Key" not in headers:
            await self.send(name, body, headers)
            return
        # At once from two places, as a client does that has given up waiting; then until there is an answer.
        await asyncio.gather(*(self.send(name, body, headers) for _ in range(rng.randint(1, 3))))
        for _ in range(20):
            if await self.send(name, body, headers):
                break
            await asyncio.sleep(0.5)

    async def poison(self, sort: str) -> None:
        """Calls that go wrong in their function's way, and innocent ones behind them."""
        name = sort if sort in IMAGES else "poison"
        do = "work" if sort in IMAGES else sort
        for number in range(4):
            body = {"type": "detached", "do": do if number % 2 == 0 else "work", "seconds": 0.05}
            await self.send(name, body, {})

    async def send(
        self, name: str, body: dict[str, object], headers: dict[str, str], at: Node | None = None
    ) -> str:
        """The id of an accepted call; empty for one that was not, or where nobody knows."""
        runner = at or self._rng.choice(self._world.runners)
        url = f"{runner.url}/invoke/{self.book.functions[name]}"
        try:
            async with self.http.post(
                url, json=body, headers={"Fn-Invoke-Type": "detached", **headers}, timeout=PATIENCE
            ) as answer:
                if answer.status != 202:
                    said = "" if answer.status in BUSY else f": {await answer.text()}"
                    self.book.refusals[f"{answer.status}{said}"] += 1
                    return ""
                call_id = str((await answer.json())["call_id"])
        except TimeoutError:
            self.book.refusals["no answer in time"] += 1
            return ""
        except aiohttp.ClientError:
            self.book.refusals["connection"] += 1
            return ""
        self.book.accept(
            Accepted(
                call_id, name, str(body["do"]), time.time(),
                key=headers.get("Fn-Idempotency-Key", ""),
                priority=int(headers.get("Fn-Priority", "0")),
                until=int(str(body.get("until", 0))),
                callback="Fn-Callback-Url" in headers,
            )
        )  # fmt: skip
        return call_id

    async def sync(self) -> None:
        """One sync call to some runner."""
        runner = self._rng.choice(self._world.runners)
        url = f"{runner.url}/invoke/{self.book.functions['work']}"
        body = {"type": "sync", "do": "work", "seconds": self._rng.choice((0.0, 0.02, 0.2))}
        began = time.monotonic()
        status, call_id = 0, ""
        try:
            async with self.http.post(url, json=body, timeout=PATIENCE) as answer:
                await answer.read()
                status, call_id = answer.status, answer.headers.get("Fn-Call-Id", "")
        except TimeoutError as exc:
            status = 0 if isinstance(exc, aiohttp.ConnectionTimeoutError) else -1
        except aiohttp.ClientError:
            status = 0
        self.book.sync.append(Sync(status, time.monotonic() - began, call_id))

    async def cancel(self, call_id: str) -> None:
        """Asks for the end of a call."""
        call = self.book.accepted[call_id]
        url = f"{self._watcher.some_api()}/v2/fns/{self.book.functions[call.fn]}/calls/{call_id}"
        call.cancel = "unclear"
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self.http.delete(url, timeout=LOOK) as answer:
                await answer.read()
                if answer.status == 405:
                    self.book.unused.add("cancel: API nodes know no DELETE of a call")
                if answer.status < 500:
                    call.cancel = "heard" if answer.status < 300 else ""

    async def probe(self, what: str, runner: Node | None) -> None:
        """Notes how long after the end of a fault a call is accepted, and ends."""
        began = time.monotonic()
        body: dict[str, object] = {"type": "detached", "do": "work", "seconds": 0}
        try:
            async with asyncio.timeout(RECOVERY):
                # Before what has piled up: that is not what is measured.
                while not (call_id := await self.send("work", body, {"Fn-Priority": "2"}, runner)):
                    await asyncio.sleep(0.1)
                accepted = time.monotonic() - began
                while call_id not in self.book.finals:
                    await asyncio.sleep(0.1)
                    await self._watcher.look(call_id)
        except TimeoutError:
            self.book.unrecovered.append(f"{what}: no call was accepted and ended within {RECOVERY:g} s")
            return
        self.book.recoveries.append((what, accepted, time.monotonic() - began))
