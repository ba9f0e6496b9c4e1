"""The whole URL table of an API node."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from api_node.apps import Apps
from api_node.apps_v1 import AppsV1
from api_node.auth import RunnerAuth
from api_node.calls import Calls
from api_node.calls_v1 import CallsV1
from api_node.dead_letters import DeadLetterAPI
from api_node.endpoints import Endpoints, Network, networks, public_url
from api_node.fns import Fns
from api_node.gate import Gate
from api_node.queue import Queue
from api_node.routes_v1 import RoutesV1
from api_node.runner_api import RunnerAPI
from api_node.runners import Runners
from api_node.scopes import Scopes
from api_node.swagger import swagger_routes
from api_node.triggers import Triggers
from shared_models.access import Authenticator
from shared_models.call_interfaces import CallControl, DeadLetters
from shared_models.env import env, one_of, port, words
from shared_models.interfaces import DataAccess, Datastore, LogStore, MessageQueue
from shared_models.web import Apart

ANY, SOME = "(?s:.*)", "(?s:.+)"
"""What is left of a path, with line feeds that it may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class APISettings:
    """What an API node says of the runner tier, and whom it takes for a runner."""

    public_lb_url: str = env(
        "FN_PUBLIC_LB_URL",
        "",
        "Public address of the runner tier, shown in replies as where to invoke",
        parse=public_url,
    )
    trusted_proxies: tuple[Network, ...] = env(
        "FN_TRUSTED_PROXIES",
        (),
        "Networks of proxies whose X-Forwarded-Proto is believed where FN_PUBLIC_LB_URL is empty, such as "
        "10.0.0.0/8, separated by commas",
        parse=networks,
    )
    runner_tokens: tuple[str, ...] = env(
        "FN_RUNNER_TOKEN",
        (),
        "Token that runner nodes show to API nodes; an API node takes several, separated by commas",
        parse=words,
        secret=True,
    )
    runner_auth: str = env(
        "FN_RUNNER_AUTH",
        "token",
        "How runner nodes prove who they are: token; mtls: by a certificate of FN_NODE_CERT_AUTHORITY, and "
        "by the token where FN_RUNNER_TOKEN is set; or none for everybody",
        parse=one_of("token", "mtls", "none"),
    )
    needs_stores: bool = env(
        "FN_READY_NEEDS_STORES",
        True,
        "Whether /readyz says 503 while datastore, log store or queue do not answer: docs/architecture.md",
    )
    runner_api_port: int | None = env(
        "FN_RUNNER_API_PORT",
        None,
        "Port for runner nodes alone (/v1/runner/), which then are served on no other one; 0 lets the system "
        "choose, empty: they are served on FN_PORT",
        parse=port,
    )


class Stores(Protocol):
    """The backing services of an API node."""

    @property
    def datastore(self) -> Datastore: ...
    @property
    def logstore(self) -> LogStore: ...
    @property
    def queue(self) -> MessageQueue: ...
    @property
    def dead_letters(self) -> DeadLetters: ...


def api_routes(
    stores: Stores,
    data: DataAccess,
    control: CallControl,
    settings: APISettings,
    authenticator: Authenticator | None = None,
) -> list[web.RouteDef]:
    """Every path of an API node, with what it needs; those that every node has come with ``serving``.

    Without an *authenticator* anybody may do anything.
    """
    endpoints = Endpoints(settings.public_lb_url, settings.trusted_proxies)
    apps, calls = Apps(stores.datastore), Calls(stores.logstore, stores.datastore, control)
    queue, letters = Queue(stores.queue, control), DeadLetterAPI(stores.dead_letters, control)
    fns, triggers = Fns(stores.datastore, endpoints), Triggers(stores.datastore, endpoints)
    v1_apps, v1_routes = AppsV1(stores.datastore), RoutesV1(stores.datastore)
    v1_calls = CallsV1(stores.datastore, stores.logstore)
    runners, runner = Runners(stores.datastore), RunnerAPI(data)
    how = settings.runner_auth
    guard = RunnerAuth(settings.runner_tokens, everybody=how == "none", certified=how == "mtls")
    get, app, slashes = _get, "/v1/apps/{app:[^/]*}", _with_slashes
    gate, of = Gate(authenticator, guard), Scopes(stores.datastore, stores.dead_letters)
    reads, changes, own = gate.reads, gate.changes, None
    return [
        web.post("/v2/apps", changes(apps.create, own)),
        get("/v2/apps", reads(apps.list, own)),
        get("/v2/apps/{app_id}", reads(apps.get, of.app)),
        web.put("/v2/apps/{app_id}", changes(apps.update, of.app)),
        web.delete("/v2/apps/{app_id}", changes(apps.remove, of.app)),
        web.post("/v2/fns", changes(fns.create, own)),
        get("/v2/fns", reads(fns.list, of.asked_app)),
        get("/v2/fns/{fn_id}", reads(fns.get, of.fn)),
        web.put("/v2/fns/{fn_id}", changes(fns.update, of.fn)),
        web.delete("/v2/fns/{fn_id}", changes(fns.remove, of.fn)),
        get("/v2/fns/{fn_id}/calls", reads(calls.list, of.fn)),
        web.delete("/v2/fns/{fn_id}/calls", changes(calls.remove, of.fn)),
        get("/v2/fns/{fn_id}/calls/{call_id}", reads(calls.get, of.fn)),
        web.delete("/v2/fns/{fn_id}/calls/{call_id}", changes(calls.cancel, of.fn)),
        get("/v2/fns/{fn_id}/calls/{call_id}/log", reads(calls.log, of.fn)),
        get("/v2/fns/{fn_id}/calls/{call_id}/result", reads(calls.result, of.fn)),
        web.post("/v2/triggers", changes(triggers.create, own)),
        get("/v2/triggers", reads(triggers.list, of.asked_app)),
        get("/v2/triggers/{trigger_id}", reads(triggers.get, of.trigger)),
        web.put("/v2/triggers/{trigger_id}", changes(triggers.update, of.trigger)),
        web.delete("/v2/triggers/{trigger_id}", changes(triggers.remove, of.trigger)),
        get("/v2/runners", reads(runners.list, of.every)),
        get("/v2/runners/{runner_id}", reads(runners.get, of.every)),
        web.put("/v2/runners/{runner_id}", gate.operates(runners.update, of.every)),
        get("/v2/queue", reads(queue.list, of.asked_fn)),
        web.delete("/v2/queue", changes(queue.cancel, of.asked_fn)),
        get("/v2/dead-letters", reads(letters.list, of.asked_fn)),
        web.delete("/v2/dead-letters", changes(letters.purge, of.asked_fn)),
        web.post("/v2/dead-letters/redrive", changes(letters.redrive_all, of.asked_fn)),
        get("/v2/dead-letters/{call_id}", reads(letters.get, of.letter)),
        web.delete("/v2/dead-letters/{call_id}", changes(letters.remove, of.letter)),
        web.post("/v2/dead-letters/{call_id}/redrive", changes(letters.redrive, of.letter)),
        web.post("/v1/apps", changes(v1_apps.create, own)),
        get("/v1/apps", reads(v1_apps.list, own)),
        get("/v1/apps/{app}", slashes(gate.reads_as_runner(v1_apps.get, of.named))),
        web.patch("/v1/apps/{app}", slashes(changes(v1_apps.update, of.named))),
        web.delete("/v1/apps/{app}", slashes(changes(v1_apps.remove, of.named))),
        web.post(f"{app}/routes", changes(v1_routes.create, of.named)),
        get(f"{app}/routes", reads(v1_routes.list, of.named)),
        get(f"{app}/routes/{{path:{SOME}}}", reads(v1_routes.get, of.named)),
        web.put(f"{app}/routes/{{path:{ANY}}}", changes(v1_routes.put, of.named)),
        web.patch(f"{app}/routes/{{path:{ANY}}}", changes(v1_routes.update, of.named)),
        web.delete(f"{app}/routes/{{path:{ANY}}}", changes(v1_routes.remove, of.named)),
        get(f"{app}/calls", reads(v1_calls.list, of.named)),
        get(f"{app}/calls/{{call}}", reads(v1_calls.get, of.named)),
        get(f"{app}/calls/{{call}}/log", reads(v1_calls.log, of.named)),
        get(f"{app}/calls/{{call}}/result", reads(v1_calls.result, of.named)),
        *swagger_routes(),
        # What Fn 0.3.484's runner nodes ask for besides an app by its name.
        get("/v1/runner/apps/{app_id}", guard(runner.app)),
        get(f"/v1/runner/apps/{{app_id}}/routes/{{path:{ANY}}}", guard(runner.route)),
        web.put("/v1/runner/async", guard(runner.enqueue_for_fn)),
        get("/v1/runner/async", guard(runner.dequeue_one)),
        web.post("/v1/runner/start", guard(runner.start)),
        web.post("/v1/runner/starts", guard(runner.starts)),
        web.post("/v1/runner/finish", guard(runner.finish)),
        # What ours ask for besides.
        get("/v1/runner/fns/{fn_id}", guard(runner.fn)),
        get("/v1/runner/triggers", guard(runner.trigger)),
        web.post("/v1/runner/enqueue", guard(runner.enqueue)),
        get("/v1/runner/dequeue", guard(runner.dequeue)),
        web.post("/v1/runner/extend", guard(runner.extend)),
        web.post("/v1/runner/release", guard(runner.release)),
        get("/v1/runner/wanted", guard(runner.wanted)),
        web.post("/v1/runner/heartbeat", guard(runner.heartbeat)),
    ]


def by_port(routes: Sequence[web.RouteDef], settings: APISettings) -> tuple[list[web.RouteDef], Apart | None]:
    """*routes* of FN_PORT, and those of runner nodes, where these have a port of their own."""
    if settings.runner_api_port is None:
        return list(routes), None
    public = [route for route in routes if not route.path.startswith("/v1/runner/")]
    of_runners = [route for route in routes if route not in public]
    shared = [route for route in public if (route.method, route.path) == ("GET", "/v1/apps/{app}")]
    return public, Apart([*of_runners, *shared], settings.runner_api_port)


def _get(path: str, handler: Handler) -> web.RouteDef:
    # Fn answers HEAD with 405 where it knows GET.
    return web.get(path, handler, allow_head=False)


def _with_slashes(handler: Handler) -> Handler:
    """*handler* of an app by name; where the name has an escaped slash, what that path stands for.

    The v1 API takes an escaped slash for a slash, and no app has one in its name.
    """

    @functools.wraps(handler)
    async def handle(request: web.Request) -> web.StreamResponse:
        if "/" not in request.match_info["app"]:
            return await handler(request)
        path = re.sub("%2f", "/", request.rel_url.raw_path, flags=re.IGNORECASE)
        meant = request.clone(rel_url=request.rel_url.with_path(path, encoded=True, keep_query=True))
        found = await request.app.router.resolve(meant)
        if found.http_exception is not None:
            raise found.http_exception
        request.match_info.clear()
        request.match_info.update(found)
        return await found.handler(request)

    return handle
