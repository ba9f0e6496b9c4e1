"""Every management route, asked by every role: who may, who may not, and nobody learns what is not theirs."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from yarl import URL

from api_node.app import APISettings, api_routes
from hybrid_client.client import ClientSettings, open_data_access
from services.identity.opening import open_identity
from services.identity.settings import IdentitySettings
from services.identity.tokens import digest
from shared_models.access import MAY, Action, Authenticator, Principal, Role
from shared_models.app import App
from shared_models.async_policy import KEEP_RESULT
from shared_models.call import Finished
from shared_models.call_interfaces import DeadLetter
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.route import Route
from shared_models.runner import RunnerReport
from shared_models.trigger import HTTP, Trigger
from tests.integration.live_api import LiveAPI, call_of, live_api

RUNNER = "runner-token"
SCOPED = [role for role in Role if role != Role.ADMIN]
OPEN = ("/swagger/", "/v1/runner/", "/r/")


def tokens() -> str:
    """Each role for all apps, and for the app shop: the tokens are called ROLE and ROLE-shop."""
    lines = []
    for role in Role:
        lines.append(f"- {{name: {role}, sha256: '{digest(role).hex()}', role: {role}, apps: '*'}}")
        if role != Role.ADMIN:
            name = f"{role}-shop"
            lines.append(
                f"- {{name: {name}, sha256: '{digest(name).hex()}', role: {role}, apps: [shop, new, gone]}}"
            )
    return "\n".join(lines)


class Scene:
    """A node with the apps shop and bank, which have the same things in them; *ids* of both, and of none."""

    def __init__(self, api: LiveAPI) -> None:
        self.api = api
        missing = {name: new_id() for name in ("app_id", "fn_id", "trigger_id", "call_id", "letter", "call")}
        self.ids = {"none": {**missing, "app": "nowhere", "path": "hello", "runner_id": "r"}}

    async def fill(self) -> None:
        """Makes whatever routes are about."""
        store = self.api.stores.datastore
        await store.put_runner(RunnerReport(id="r", capacity_memory=1 << 30, capacity_cpus=4000))
        for name in ("shop", "bank"):
            app = await store.insert_app(App(name=name))
            fn = await store.insert_fn(Fn(name="f", app_id=app.id, image="some/image:1"))
            trigger = await store.insert_trigger(
                Trigger(name="t", app_id=app.id, fn_id=fn.id, type=HTTP, source="/t")
            )
            await store.insert_route(Route(app_id=app.id, path="/hello", image="some/image:1"))
            call, letter = call_of(fn), call_of(fn)
            await self.api.data.enqueue(call)
            await self.api.stores.dead_letters.put([DeadLetter(call=letter)])
            self.ids[name] = {
                "app_id": app.id, "fn_id": fn.id, "trigger_id": trigger.id, "call_id": call.id,
                "letter": letter.id, "app": name, "call": call.id, "path": "hello", "runner_id": "r",
            }  # fmt: skip

    async def ask(self, token: str, method: str, path: str, **more: Any) -> Told:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.api.client.request(method, path, headers=headers, **more) as answer:
            is_json = await answer.read() and answer.content_type == "application/json"
            body = await answer.json() if is_json else {}
            return Told(answer.status, body, answer.headers.get("WWW-Authenticate", ""))

    async def try_row(self, token: str, method: str, path: str, whose: str, query: str = "") -> Told:
        """The answer to a request for a row of the table, about what the app *whose* has."""
        ids = self.ids[whose]
        if path.startswith("/v2/dead-letters/"):
            ids = {**ids, "call_id": ids["letter"]}
        url = _PARAMETER.sub(lambda found: ids[found[1]], path)
        if path in ("/v2/fns", "/v2/triggers") and method == "GET":
            url += f"?app_id={ids['app_id']}"
        if path in ("/v2/queue", "/v2/dead-letters", "/v2/dead-letters/redrive"):
            url += f"?fn_id={ids['fn_id']}"
        if query:
            url += f"?{query}"
        body = _body(method, path, ids)
        return await self.ask(token, method, url, **({} if body is None else {"json": body}))


_PARAMETER = re.compile(r"\{(\w+)(?::(?:\[\^/\]\*|\(\?s:\.[*+]\)))?\}")


@dataclass(frozen=True)
class Told:
    """An answer."""

    status: int
    body: dict[str, Any]
    challenge: str

    @property
    def words(self) -> str:
        """The message of an error, in either API's shape."""
        return str(self.body.get("message") or self.body.get("error", {}).get("message"))


def _body(method: str, path: str, ids: dict[str, str]) -> object:
    name = "new" if ids["app"] == "shop" else f"new-{ids['app']}"
    bodies: dict[tuple[str, str], object] = {
        ("POST", "/v2/apps"): {"name": name},
        ("POST", "/v1/apps"): {"app": {"name": name}},
        ("PATCH", "/v1/apps/{app}"): {"app": {"config": {"A": "b"}}},
        ("POST", "/v2/fns"): {"name": "new", "app_id": ids["app_id"], "image": "i"},
        ("POST", "/v2/triggers"): {
            "name": "new", "app_id": ids["app_id"], "fn_id": ids["fn_id"], "type": "http", "source": "/new",
        },
        ("PUT", "/v2/runners/{runner_id}"): {"state": "active"},
    }  # fmt: skip
    if (method, path) in bodies:
        return bodies[method, path]
    if "/routes" in path and method in ("POST", "PUT", "PATCH"):
        return {"route": {"image": "i", **({"path": "/new"} if method == "POST" else {})}}
    return {} if method == "PUT" else None


@asynccontextmanager
async def scene(folder: Path, **settings: Any) -> AsyncIterator[Scene]:
    path = folder / "tokens"
    path.write_text(tokens())
    async with open_identity(IdentitySettings(tokens_path=str(path))) as identity:
        given = {"runner_auth": "token", "runner_tokens": (RUNNER,), "authenticator": identity, **settings}
        async with live_api(folder, **given) as api:
            found = Scene(api)
            await found.fill()
            yield found


def rows() -> list[tuple[str, str, web.RouteDef]]:
    """The URL table but for what is open, or is for runner nodes."""
    anything: Any = _Anything()
    routes = api_routes(anything, anything, anything, APISettings(), None)
    return [(one.method, one.path, one) for one in routes if not one.path.startswith(OPEN)]


class _Anything:
    def __getattr__(self, name: str) -> Any:
        return None


TABLE = [(method, path) for method, path, _ in rows()]
NEEDS = {(method, path): vars(route.handler).get("needs") for method, path, route in rows()}
IN_BODY = {("POST", "/v2/apps"), ("POST", "/v1/apps"), ("POST", "/v2/fns"), ("POST", "/v2/triggers")}
SHOWN_IN_PART = {("GET", "/v2/apps"), ("GET", "/v1/apps")}
FOR_ALL_APPS = {
    ("GET", "/v2/runners"),
    ("GET", "/v2/runners/{runner_id}"),
    ("PUT", "/v2/runners/{runner_id}"),
}


def test_every_row_says_what_it_needs() -> None:
    assert [row for row in TABLE if NEEDS[row] is None] == []
    without_scope = {row for row in TABLE if NEEDS[row].scope is None}
    assert without_scope == IN_BODY | SHOWN_IN_PART


def test_a_row_that_reads_is_a_get_and_all_others_are_not() -> None:
    for method, path in TABLE:
        assert (method == "GET") == (NEEDS[method, path].action == Action.READ), (method, path)


def test_only_admins_operate_runners() -> None:
    operated = {row for row in TABLE if NEEDS[row].action == Action.OPERATE}
    assert operated == {("PUT", "/v2/runners/{runner_id}")}


@pytest.mark.parametrize(("method", "path"), TABLE)
async def test_without_a_known_token_nobody_gets_an_answer(tmp_path: Path, method: str, path: str) -> None:
    async with scene(tmp_path) as there:
        for token in ("", "eve", RUNNER):
            if token == RUNNER and (method, path) == ("GET", "/v1/apps/{app}"):
                continue
            told = await there.try_row(token, method, path, "shop")
            assert (told.status, told.challenge) == (401, "Bearer"), (token, told)
            assert "oken" in told.words


@pytest.mark.parametrize(("method", "path"), TABLE)
async def test_a_role_gets_what_is_for_it_and_no_more(tmp_path: Path, method: str, path: str) -> None:
    action = NEEDS[method, path].action
    async with scene(tmp_path) as there:
        for role in SCOPED:
            if action in MAY[role]:
                continue
            for token, whose in itertools.product((role, f"{role}-shop"), ("shop", "bank", "none")):
                told = await there.try_row(token, method, path, whose)
                assert (told.status, f"has the role {role}" in told.words) == (403, True), (token, told)
        allowed = [f"{role}-shop" for role in SCOPED if action in MAY[role]]
        allowed = [] if (method, path) in FOR_ALL_APPS else allowed
        allowed += [role for role in Role if action in MAY[role]]
        told = [await there.try_row(token, method, path, "shop") for token in allowed]
        # Of those that come later, some find that it was done before.
        assert not {401, 403, 500} & {one.status for one in told}, told
        if not path.endswith(("/log", "/result")):  # the call has not ended
            assert told[0].status < 300, told[0]


@pytest.mark.parametrize(("method", "path"), [row for row in TABLE if row not in SHOWN_IN_PART])
async def test_a_role_for_one_app_learns_nothing_of_others(tmp_path: Path, method: str, path: str) -> None:
    async with scene(tmp_path) as there:
        for role in SCOPED:
            if NEEDS[method, path].action not in MAY[role]:
                continue
            told = [await there.try_row(f"{role}-shop", method, path, whose) for whose in ("bank", "none")]
            assert [one.status for one in told] == [403, 403], told
            assert told[0].body == told[1].body


@pytest.mark.parametrize(("method", "path"), [row for row in TABLE if "{" in row[1]])
async def test_what_a_query_names_is_not_what_the_path_is_about(
    tmp_path: Path, method: str, path: str
) -> None:
    async with scene(tmp_path) as there:
        ids = there.ids["shop"]
        query = "&".join(
            f"{name}={value}" for name, value in {**ids, "name": "shop", "id": ids["app_id"]}.items()
        )
        told = await there.try_row("developer-shop", method, path, "bank", query=query)
        assert (told.status, "bank" in str(told.body)) == (403, False), told


async def test_whoever_may_read_a_log_may_read_the_kept_result_and_nobody_else(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        ids = there.ids["shop"]
        asked = {KEEP_RESULT: msgspec.Raw(b"true")}
        call = call_of(await there.api.data.fn(ids["fn_id"]), annotations=asked)
        await there.api.data.enqueue(call)
        for leased in await there.api.data.dequeue("r", 10, 0.0):
            await there.api.data.start(leased)
            done = msgspec.structs.replace(leased.call, status="success")
            end = Finished(call=done, token=leased.key.token, body=b"s3cret", answered=True)
            assert await there.api.data.finish([end]) == []
        readers = {role for role in Role if Action.READ in MAY[role]}
        for path in (f"/v2/fns/{ids['fn_id']}/calls/{call.id}", f"/v1/apps/shop/calls/{call.id}"):
            for token in ["", "eve", *Role, *(f"{role}-shop" for role in SCOPED)]:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                async with there.api.client.get(f"{path}/log", headers=headers) as log:
                    may = log.status
                async with there.api.client.get(f"{path}/result", headers=headers) as answer:
                    assert (answer.status, b"s3cret" in await answer.read()) == (may, may == 200), token
                assert (may == 200) is (token.partition("-")[0] in readers), token
        for path in (f"/v2/fns/{there.ids['bank']['fn_id']}", "/v1/apps/bank"):
            told = await there.ask("viewer-shop", "GET", f"{path}/calls/{call.id}/result")
            assert told.status == 403


async def test_whoever_has_no_app_gets_nothing_of_any(tmp_path: Path) -> None:
    """As a token of an issuer that names a role, and no apps."""
    for apps in (frozenset[str](), frozenset({""})):
        for role in SCOPED:
            known = Fixed(Principal(name="nobody", role=role, apps=apps))
            folder = tmp_path / f"{role}-{len(apps)}"
            folder.mkdir()
            async with scene(folder, authenticator=known) as there:
                for method, path in TABLE:
                    if (method, path) in SHOWN_IN_PART:
                        continue
                    for whose in ("shop", "none"):
                        told = await there.try_row("x", method, path, whose)
                        assert told.status == 403, (role, method, path, whose, told)


class Fixed(Authenticator):
    """Everybody is *principal*."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    async def who(self, header: str) -> Principal:
        return self._principal

    def known(self, header: str) -> Principal | None:
        return self._principal

    def ours(self, header: str) -> bool:
        return True


@pytest.mark.parametrize(("path", "inside"), [("/v2/apps", "items"), ("/v1/apps", "apps")])
async def test_a_list_of_apps_shows_those_that_are_theirs(tmp_path: Path, path: str, inside: str) -> None:
    async with scene(tmp_path) as there:

        async def listed(token: str, query: str = "") -> tuple[list[str], str]:
            told = await there.ask(token, "GET", path + query)
            assert told.status == 200
            return [one["name"] for one in told.body[inside] or []], told.body.get("next_cursor", "")

        assert (await listed("viewer"))[0] == ["bank", "shop"]
        assert (await listed("developer-shop"))[0] == ["shop"]
        await there.api.stores.datastore.insert_app(App(name="new"))
        first, cursor = await listed("viewer-shop", "?per_page=1")
        second, cursor = await listed("viewer-shop", f"?per_page=1&cursor={cursor}")
        assert (first, second) == (["new"], ["shop"])
        assert (await listed("viewer-shop", f"?per_page=1&cursor={cursor}"))[0] == []
        if path == "/v2/apps":
            assert (await listed("viewer-shop", "?name=shop"))[0] == ["shop"]
            assert (await listed("viewer-shop", "?name=bank"))[0] == []


async def test_what_concerns_all_apps_is_not_for_those_who_have_some(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        for path in ("/v2/queue", "/v2/dead-letters", "/v2/runners", "/v2/fns", "/v2/triggers"):
            told = await there.ask("developer-shop", "GET", path)
            assert (told.status, "for all apps" in told.words) == (403, True), path
        for path in ("/v2/queue", "/v2/dead-letters", "/v2/runners"):
            assert (await there.ask("viewer", "GET", path)).status == 200


async def test_an_escaped_slash_leads_past_no_check(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        for path in ("/v1/apps/bank%2Froutes%2Fhello", "/v1/apps/bank%2Froutes", "/v1/apps/shop%2F..%2Fbank"):
            url = URL(path, encoded=True)
            async with there.api.client.get(url) as answer:
                assert answer.status in (401, 404), path
            headers = {"Authorization": "Bearer viewer-shop"}
            async with there.api.client.get(url, headers=headers) as answer:
                assert answer.status in (403, 404), path
            headers = {"Authorization": "Bearer viewer"}
            async with there.api.client.get(url, headers=headers) as answer:
                assert answer.status in (200, 404), path


async def test_what_every_node_has_stays_open(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        for path in ("/", "/version", "/healthz", "/readyz", "/metrics", "/swagger/v2.yml"):
            assert (await there.ask("", "GET", path)).status == 200, path


async def test_runner_nodes_need_their_own_token_and_no_other(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        path = f"/v1/runner/apps/{there.ids['shop']['app_id']}"
        for token in ("", "admin", "eve"):
            assert (await there.ask(token, "GET", path)).status == 401, token
        assert (await there.ask(RUNNER, "GET", path)).status == 200
        assert (await there.ask(RUNNER, "GET", "/v1/apps/shop")).status == 200
        assert (await there.ask(RUNNER, "DELETE", "/v1/apps/shop")).status == 401


async def test_every_row_for_runner_nodes_asks_for_their_token_before_anything_else(tmp_path: Path) -> None:
    anything: Any = _Anything()
    table = api_routes(anything, anything, anything, APISettings(), None)
    of_runners = [(one.method, one.path) for one in table if one.path.startswith("/v1/runner/")]
    assert len(of_runners) > 10
    async with scene(tmp_path) as there:
        for (method, path), token in itertools.product(of_runners, ("", "admin", "developer", "eve")):
            told = await there.try_row(token, method, path, "shop")
            assert (told.status, told.challenge) == (401, "Bearer"), (method, path, token, told)


async def test_a_runner_node_finds_apps_by_name_where_people_need_tokens(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        settings = ClientSettings(api_urls=(there.api.base_url,), token=RUNNER)
        async with open_data_access(settings) as data:
            assert await data.app_id("shop") == there.ids["shop"]["app_id"]
            assert (await data.fn(there.ids["shop"]["fn_id"])).name == "f"


async def test_changes_are_in_the_log_with_who_made_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path) as there:
        with caplog.at_level(logging.INFO, "api_node.gate"):
            made = await there.ask("developer-shop", "POST", "/v2/apps", json={"name": "new"})
            await there.ask("viewer", "GET", "/v2/apps")
            await there.ask("viewer", "DELETE", f"/v2/apps/{made.body['id']}")
            await there.ask("eve", "DELETE", f"/v2/apps/{made.body['id']}")
            await there.ask("admin", "DELETE", f"/v2/apps/{made.body['id']}")
        lines = [one.getMessage() for one in caplog.records if one.name == "api_node.gate"]
        app = f"/v2/apps/{made.body['id']}"
        assert lines[0] == (
            f"developer-shop (developer) from 127.0.0.1: POST /v2/apps: 200 id={made.body['id']} name=new"
        )
        assert lines[1].startswith(f"viewer (viewer) from 127.0.0.1: DELETE {app}: 403 This needs the role")
        assert lines[2] == f"admin (admin) from 127.0.0.1: DELETE {app}: 204"
        assert len(lines) == 3, "who is not known cannot fill the log"


async def test_the_log_says_who_drains_a_runner_and_where_a_request_really_comes_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path) as there:
        headers = {"Authorization": "Bearer admin", "X-Forwarded-For": "10.9.9.9", "X-Real-IP": "10.9.9.9"}
        with caplog.at_level(logging.INFO, "api_node.gate"):
            async with there.api.client.put(
                "/v2/runners/r", json={"state": "draining"}, headers=headers
            ) as told:
                assert told.status == 200
        [line] = [one.getMessage() for one in caplog.records if one.name == "api_node.gate"]
        assert line.startswith("admin (admin) from 127.0.0.1: PUT /v2/runners/r: 200")


async def test_changes_are_in_the_log_where_everything_is_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path, authenticator=None) as there:
        with caplog.at_level(logging.INFO, "api_node.gate"):
            await there.ask("", "DELETE", "/v1/apps/shop%0A")
        assert [one.getMessage() for one in caplog.records if one.name == "api_node.gate"] == [
            "anybody (no token) from 127.0.0.1: DELETE /v1/apps/shop%0A: 404 App not found"
        ]


async def test_without_sources_of_tokens_everything_is_open(tmp_path: Path) -> None:
    async with scene(tmp_path, authenticator=None) as there:
        for token in ("", "eve"):
            assert (await there.ask(token, "GET", "/v2/runners")).status == 200
            assert (await there.ask(token, "POST", "/v2/apps", json={"name": f"a{token}"})).status == 200
