"""Both tiers with tokens: functions that tell what they saw, called in every way that there is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from hybrid_client.client import ClientSettings, open_data_access
from runner_node.agent import running_agent
from runner_node.drivers.fake import FakeDriver, open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour, Request
from runner_node.guard import Guard, GuardSettings
from runner_node.invoke import invoke_routes
from runner_node.quick import quick_path
from runner_node.settings import AgentSettings
from services.identity.opening import open_identity
from services.identity.settings import IdentitySettings
from services.identity.tokens import digest
from shared_models.app import App
from shared_models.call import Call
from shared_models.fast_path import Exchange, Pending
from shared_models.fn import Fn
from shared_models.http_settings import HTTPSettings
from shared_models.invoke_policy import INVOKE_AUTH
from shared_models.route import Route
from shared_models.trigger import HTTP, Trigger
from shared_models.web import serving
from tests.integration.live_api import LiveAPI, live_api
from tests.servers.issuer import Issuer
from tests.unit.shared_models.test_invoke_policy import notes

WAYS = ["invoke", "fast", "detached", "trigger", "route", "async route"]
PRIVATE = {INVOKE_AUTH: notes(auth="token")[INVOKE_AUTH]}
TOKENS = {
    "root": "role: admin",
    "dev": "role: developer, apps: [shop]",
    "caller": "role: invoker, apps: [shop]",
    "everywhere": "role: invoker, apps: '*'",
    "viewer": "role: viewer, apps: '*'",
    "other": "role: invoker, apps: [bank]",
    "late": "role: invoker, apps: '*', expires: 2020-01-01",
}
"""Those of the file: each is called as its owner."""
MAY = ["root", "dev", "caller", "everywhere"]
MAY_NOT = ["viewer", "other"]
UNKNOWN = ["", "late", "eve"]


@dataclass
class Told:
    """An answer of a runner node."""

    status: int
    body: bytes
    headers: Any

    @property
    def message(self) -> str:
        """Of an error, in either API's shape."""
        body = json.loads(self.body)
        return str(body.get("message") or body["error"]["message"])


@dataclass
class Scene:
    """The function f of the app shop, its trigger and routes; *seen*: what came to it."""

    api: LiveAPI
    driver: FakeDriver
    ordinary: str
    fast: str
    http: aiohttp.ClientSession
    fn: Fn
    app: App
    seen: list[str]
    queued: list[Call]
    taken: list[str] = field(default_factory=list)
    """Paths that the fast path took."""

    async def call(self, way: str, authorization: str = "", **headers: str) -> Told:
        """One call, as a client with that header makes it."""
        given = {"Authorization": authorization} if authorization else {}
        detached = {"Fn-Invoke-Type": "detached"} if way == "detached" else {}
        address = {
            "trigger": "/t/shop/t", "route": "/r/shop/sync", "async route": "/r/shop/async",
        }.get(way, f"/invoke/{self.fn.id}")  # fmt: skip
        base = self.fast if way == "fast" else self.ordinary
        async with self.http.post(
            base + address, data=b"x", headers={**given, **detached, **headers}
        ) as answer:
            return Told(answer.status, await answer.read(), answer.headers)

    async def until_seen(self, number: int) -> None:
        """Returns when functions have seen so many calls."""
        async with asyncio.timeout(60):
            while len(self.seen) < number:
                await asyncio.sleep(0.005)

    async def known(self) -> None:
        """From now on the fast path takes calls of the function, if the guard lets it."""
        for base in (self.ordinary, self.fast):
            async with self.http.post(
                f"{base}/invoke/{self.fn.id}", headers={"Authorization": "Bearer root"}
            ):
                pass


@asynccontextmanager
async def guarded(
    folder: Path,
    *,
    tokens: bool = True,
    issuer: Issuer | None = None,
    of_app: Any = None,
    of_fn: Any = None,
    http: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Scene]:
    """*of_app* and *of_fn* are annotations (routes have those of functions); *settings* are the guard's."""
    seen: list[str] = []
    queued: list[Call] = []

    def tells(request: Request) -> Answer:
        seen.append(json.dumps([dict(request.headers), request.body.decode()]))
        return Answer(body=b"done")

    def says(piece: bytes) -> bytes:
        if piece:
            seen.append(piece.decode())
        return b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone" if piece else b""

    def listening(data: Any) -> Any:
        enqueue = data.enqueue

        async def enqueued(call: Call) -> str:
            queued.append(call)
            return str(await enqueue(call))

        data.enqueue = enqueued
        return data

    path = folder / "tokens"
    path.write_text(
        "".join(f"- {{name: {n}, sha256: '{digest(n).hex()}', {more}}}\n" for n, more in TOKENS.items())
    )
    identity_settings = IdentitySettings(
        tokens_path=str(path) if tokens else "",
        issuer=issuer.url if issuer else "",
        audience=("fn",) if issuer else (),
        ask_every=0.0,
    )
    served = HTTPSettings(**{"port": 0, "host": "127.0.0.1", "drain": 5.0, **(http or {})})
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        identity = await enter(open_identity(identity_settings))
        runners = {"runner_auth": "token", "runner_tokens": ("secret",)}
        api = await enter(live_api(folder, data=listening, authenticator=identity, **runners))
        app, fn = await _deployed(api, of_app or {}, of_fn or {})
        client = ClientSettings(api_urls=(api.base_url,), token="secret")
        data = await enter(open_data_access(client))
        driver = await enter(open_fake({"some/image:1": Behaviour(function=tells, stdio=says)}))
        agent = await enter(running_agent(data, driver, AgentSettings(spool_path=""), "node-1"))
        guard = Guard(identity, GuardSettings(**settings))
        routes, path_of = invoke_routes(agent, guard), quick_path(agent, guard)
        taken: list[str] = []

        def counting(exchange: Exchange) -> Pending | None:
            pending = path_of(exchange)
            if pending:
                taken.append(exchange.path)
            return pending

        ordinary = await enter(serving(routes, served, node_type="runner"))
        fast = await enter(serving(routes, served, node_type="runner", fast_path=counting))
        http_client = await enter(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)))
        yield Scene(
            api, driver, f"http://127.0.0.1:{ordinary}", f"http://127.0.0.1:{fast}", http_client, fn, app,
            seen, queued, taken,
        )  # fmt: skip
        agent.stopping()


async def _deployed(api: LiveAPI, of_app: Any, of_fn: Any) -> tuple[App, Fn]:
    store = api.stores.datastore
    app = await store.insert_app(App(name="shop", annotations=of_app))
    fn = await store.insert_fn(Fn(name="f", app_id=app.id, image="some/image:1", annotations=of_fn))
    await store.insert_trigger(Trigger(name="t", app_id=app.id, fn_id=fn.id, type=HTTP, source="/t"))
    for path, type_ in (("/sync", "sync"), ("/async", "async")):
        await store.insert_route(
            Route(
                app_id=app.id, path=path, image="some/image:1", format="http", type=type_, annotations=of_fn
            )
        )
    return app, fn
