"""Private functions: who may call them, in every way that there is, and that nobody else ever does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runner_node.guard import without_token
from shared_models.app import App
from shared_models.fn import Fn
from tests.integration.guarded import MAY, MAY_NOT, PRIVATE, TOKENS, UNKNOWN, WAYS, guarded
from tests.servers.issuer import Issuer, Key, running_issuer

GOOD = {"detached": 202, "async route": 202}
MARKS = [
    {"of_fn": PRIVATE},
    {"of_app": PRIVATE},
    {"invoke_auth": "always"},
]


def bearer(name: str) -> str:
    return f"Bearer {name}" if name else ""


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as found:
        yield found


@pytest.mark.parametrize("mark", MARKS, ids=["function", "app", "always"])
@pytest.mark.parametrize("way", WAYS)
async def test_only_those_who_may_call_a_private_function(
    tmp_path: Path, way: str, mark: dict[str, Any]
) -> None:
    async with guarded(tmp_path, **mark) as there:
        await there.known()
        before = len(there.seen)
        for name in UNKNOWN:
            told = await there.call(way, bearer(name))
            assert (told.status, told.headers["WWW-Authenticate"]) == (401, "Bearer"), name
        for name in MAY_NOT:
            told = await there.call(way, bearer(name))
            assert (told.status, "role invoker" in told.message) == (403, True), name
        for header in ("root", "Basic root", "Bearer root root", "Bearer  ", "bearer", "Bearer ROOT"):
            assert (await there.call(way, header)).status == 401, header
        assert len(there.seen) == before, "a call of somebody else came through"
        for name in MAY:
            told = await there.call(way, bearer(name))
            assert told.status == GOOD.get(way, 200), (name, told)
        await there.until_seen(before + len(MAY))
        if way == "fast":
            assert len(there.taken) >= len(MAY), "the fast path knows the tokens of the file"


@pytest.mark.parametrize("mark", [*MARKS, {}], ids=["function", "app", "always", "public"])
@pytest.mark.parametrize("way", WAYS)
async def test_no_function_sees_a_token_of_ours(
    tmp_path: Path, way: str, mark: dict[str, Any], issuer: Issuer
) -> None:
    """Nor does a queue."""
    async with guarded(tmp_path, issuer=issuer, **mark) as there:
        await there.known()
        there.seen.clear()
        ours = [bearer("root"), "bearer everywhere", bearer(issuer.token(fn_role="invoker"))]
        for number, header in enumerate(ours, 1):
            told = await there.call(way, header, **{"X-Mine": "kept"})
            assert told.status == GOOD.get(way, 200), told
            await there.until_seen(number)
        for text in there.seen:
            assert "kept" in text
            assert "uthorization" not in text, text
            assert not any(header.split()[-1] in text for header in ours)
        assert len(there.queued) == (len(ours) if way in GOOD else 0)
        for call in there.queued:
            assert "X-Mine" in call.headers
            assert "Authorization" not in call.headers


@pytest.mark.parametrize("way", WAYS)
async def test_a_public_function_sees_the_tokens_of_others(tmp_path: Path, way: str, issuer: Issuer) -> None:
    async with guarded(tmp_path, issuer=issuer) as there:
        await there.known()
        there.seen.clear()
        others = ["Basic abc", bearer("eve"), bearer(issuer.token(aud="other")), "Custom root"]
        for number, header in enumerate(others, 1):
            assert (await there.call(way, header)).status == GOOD.get(way, 200)
            await there.until_seen(number)
            assert header in there.seen[-1]


@pytest.mark.parametrize("way", WAYS)
async def test_a_token_of_an_issuer_is_checked(tmp_path: Path, way: str, issuer: Issuer) -> None:
    async with guarded(tmp_path, issuer=issuer, of_fn=PRIVATE) as there:
        await there.known()
        for claims, status in (
            ({"fn_role": "invoker"}, GOOD.get(way, 200)),
            ({"fn_role": "viewer"}, 403),
            ({}, 403),
            ({"fn_role": "invoker", "exp": 1}, 401),
            ({"fn_role": "invoker", "aud": "other"}, 401),
        ):
            told = await there.call(way, bearer(issuer.token(**claims)))
            assert told.status == status, (claims, told)
        assert (await there.call(way, bearer(issuer.token(Key("x"), fn_role="invoker")))).status == 401
        good = bearer(issuer.token(fn_role="invoker"))
        there.taken.clear()
        for _ in range(3):
            assert (await there.call(way, good)).status == GOOD.get(way, 200)
        assert len(there.taken) == (2 if way == "fast" else 0), "the fast path knows what was found good"
        await issuer.stop()
        good = bearer(issuer.token(fn_role="invoker"))
        assert (await there.call(way, good)).status == GOOD.get(way, 200), "its keys are known"
        unknown = await there.call(way, bearer(issuer.token(Key("x"), fn_role="invoker")))
        assert (unknown.status, "issuer of tokens does not answer" in unknown.message) == (503, True)


@pytest.mark.parametrize("way", WAYS)
async def test_a_node_that_knows_no_tokens_lets_nobody_call_what_is_private(tmp_path: Path, way: str) -> None:
    async with guarded(tmp_path, tokens=False, of_fn=PRIVATE) as there:
        for header in ("", bearer("root")):
            told = await there.call(way, header)
            assert (told.status, "set FN_API_TOKENS or FN_OIDC_ISSUER" in told.message) == (401, True)
        assert there.seen == []


async def test_where_every_call_needs_a_token_nobody_learns_what_there_is(tmp_path: Path) -> None:
    async with guarded(tmp_path, invoke_auth="always") as there:
        for path in ("/invoke/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/t/nowhere/x", "/r/nowhere/x"):
            async with there.http.post(there.fast + path) as answer:
                assert answer.status == 401, path
            async with there.http.post(there.fast + path, headers={"Authorization": "Bearer root"}) as answer:
                assert answer.status == 404, path


@pytest.mark.parametrize("mark", [{"of_fn": PRIVATE}, {}], ids=["function", "public"])
@pytest.mark.parametrize("name", ["authorization", "AUTHORIZATION", "aUTHORIZATION"])
async def test_however_the_name_of_the_header_is_written_its_token_is_taken_off(
    tmp_path: Path, name: str, mark: dict[str, Any]
) -> None:
    async with guarded(tmp_path, **mark) as there:
        await there.known()
        there.seen.clear()
        for number, way in enumerate(("fast", "invoke", "trigger", "route"), 1):
            told = await there.call(way, **{name: "Bearer root"})
            assert told.status == 200
            await there.until_seen(number)
            assert "root" not in there.seen[-1], (way, there.seen[-1])
            assert "uthorization" not in there.seen[-1].replace("AUTHORIZATION", "authorization")


def test_a_token_is_taken_off_also_where_a_parser_leaves_names_as_they_were_sent() -> None:
    sent = [(name, "Bearer root") for name in ("authorization", "AUTHORIZATION", "Authorization")]
    assert without_token([("X-A", "1"), *sent]) == [("X-A", "1")]


async def test_two_authorization_headers_are_nobodys(tmp_path: Path) -> None:
    async with guarded(tmp_path, of_fn=PRIVATE) as there:
        await there.known()
        there.seen.clear()
        for pair in (("Bearer root", "Bearer eve"), ("Bearer eve", "Bearer root")):
            headers = [("Authorization", one) for one in pair]
            url = f"/invoke/{there.fn.id}"
            for base in (there.fast, there.ordinary):
                async with there.http.post(base + url, headers=headers) as answer:
                    assert answer.status == 401
        assert there.seen == []


async def test_of_two_headers_on_a_public_function_neither_is_seen_when_one_is_ours(tmp_path: Path) -> None:
    async with guarded(tmp_path) as there:
        await there.known()
        there.seen.clear()
        there.taken.clear()
        headers = [("Authorization", "Bearer eve"), ("Authorization", "Bearer root")]
        for number, base in enumerate((there.fast, there.ordinary), 1):
            async with there.http.post(f"{base}/invoke/{there.fn.id}", headers=headers) as answer:
                assert answer.status == 200
            assert len(there.seen) == number
            assert "uthorization" not in there.seen[-1]
        assert len(there.taken) == 1, "on the fast path as well"


async def test_no_order_of_calls_leads_past_the_check(tmp_path: Path, issuer: Issuer) -> None:
    """Both ways at once, on connections that are used again, by callers of all kinds."""
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    async with guarded(tmp_path, issuer=issuer, of_fn=PRIVATE) as there:
        await there.known()
        there.seen.clear()
        jwt = issuer.token(fn_role="invoker")
        forged = jwt[:-4] + ("AAAA" if not jwt.endswith("AAAA") else "BBBB")
        known = [*(bearer(name) for name in MAY), bearer(jwt)]
        unknown = [bearer(name) for name in (*UNKNOWN, *MAY_NOT)] + [bearer(forged)]
        passed = 0

        async def one() -> None:
            nonlocal passed
            for _ in range(60):
                way, good = dice.choice(("fast", "fast", "invoke", "trigger", "route")), dice.random() < 0.5
                told = await there.call(way, dice.choice(known if good else unknown))
                assert (told.status == 200) == good, (seed, way, told)
                passed += good

        await asyncio.gather(*(one() for _ in range(12)))
        assert len(there.seen) == passed, seed
        assert len(there.taken) > 50, "the fast path was hardly used"


async def test_a_function_that_becomes_private_is_so_within_seconds_on_both_ways(tmp_path: Path) -> None:
    async with guarded(tmp_path) as there:
        await there.known()
        assert (await there.call("fast")).status == (await there.call("invoke")).status == 200
        await there.api.stores.datastore.update_fn(there.fn.id, Fn(annotations=PRIVATE))
        async with asyncio.timeout(30):
            while {(await there.call(way)).status for way in ("fast", "invoke")} != {401}:
                await asyncio.sleep(0.1)
        for way in ("fast", "invoke"):
            assert (await there.call(way, bearer("caller"))).status == 200
            assert (await there.call(way)).status == 401


async def test_an_app_that_becomes_private_is_so_within_seconds(tmp_path: Path) -> None:
    async with guarded(tmp_path) as there:
        await there.known()
        await there.api.stores.datastore.update_app(there.app.id, App(annotations=PRIVATE))
        async with asyncio.timeout(30):
            while {(await there.call(way)).status for way in ("fast", "trigger", "route")} != {401}:
                await asyncio.sleep(0.1)


async def test_a_preflight_needs_no_token_and_may_announce_one(tmp_path: Path) -> None:
    http = {"cors_origins": ("https://page.example",), "cors_headers": ("Authorization",)}
    async with guarded(tmp_path, of_fn=PRIVATE, http=http) as there:
        asked = {
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        url = f"{there.fast}/invoke/{there.fn.id}"
        async with there.http.options(url, headers=asked) as answer:
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Headers"] == "Authorization"
        for token, status in (("", 401), ("caller", 200)):
            headers = {"Origin": asked["Origin"], "Authorization": bearer(token)}
            async with there.http.post(url, headers={k: v for k, v in headers.items() if v}) as answer:
                assert answer.status == status
                assert answer.headers["Access-Control-Allow-Origin"] == asked["Origin"]


def test_all_tokens_of_the_scene_are_tried() -> None:
    assert {*MAY, *MAY_NOT, "late"} == set(TOKENS)
