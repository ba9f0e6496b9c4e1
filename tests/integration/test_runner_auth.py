"""Who is heard as a runner node: how its header is spelled, what a refusal says, where everybody is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_node.auth import NO_TOKEN, WRONG_TOKEN
from tests.integration.live_api import live_api
from tests.integration.test_api_access import scene
from tests.integration.test_threats import LAST, said

PATH = "/v1/runner/dequeue?wait=0"


def request(header: bytes) -> bytes:
    head = f"GET {PATH} HTTP/1.1\r\nHost: x\r\n{LAST}\r\n".encode()
    return head + (b"Authorization: " + header + b"\r\n" if header else b"") + b"\r\n"


@pytest.mark.parametrize(
    ("header", "heard"),
    [
        (b"Bearer Secret", True),
        (b"bearer Secret", True),
        (b"BEARER Secret", True),
        (b"Bearer   Secret  ", True),
        (b"Bearer Other", True),
        ("Bearer sécret".encode(), True),
        (b"Bearer secret", False),
        (b"Bearer SECRET", False),
        (b"Bearer Secre", False),
        (b"Bearer Secret2", False),
        (b"Bearer Secret Other", False),
        (b"Bearer Secret,Other", False),
        (b"Bearer Secret\xff", False),
        (b"Bearer \xffSecret", False),
        (b"Bearer s\xe9cret", False),
        (b"Basic Secret", False),
        (b"BearerSecret", False),
        (b"Secret", False),
        (b"Bearer", False),
        (b"", False),
    ],
)
async def test_a_runner_is_heard_with_its_token_as_it_is_and_the_scheme_in_any_case(
    tmp_path: Path, header: bytes, heard: bool
) -> None:
    async with live_api(tmp_path, runner_auth="token", runner_tokens=("Secret", "Other", "sécret")) as api:
        answer = await said(api.base_url, request(header))
        assert answer.startswith(b"HTTP/1.1 200 " if heard else b"HTTP/1.1 401 "), answer
        assert (WRONG_TOKEN.encode() in answer) is not heard


async def test_an_api_node_that_knows_no_token_says_so_whatever_is_sent(tmp_path: Path) -> None:
    async with live_api(tmp_path, runner_auth="token") as api:
        for header in (b"", b"Bearer ", b"Bearer x"):
            answer = await said(api.base_url, request(header))
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert NO_TOKEN.encode() in answer


@pytest.mark.parametrize(("auth", "status"), [("none", 200), ("token", 401)])
async def test_where_everybody_may_be_a_runner_everybody_finds_apps_by_name_and_changes_none(
    tmp_path: Path, auth: str, status: int
) -> None:
    async with scene(tmp_path, runner_auth=auth) as there:
        for token in ("", "eve"):
            assert (await there.ask(token, "GET", "/v1/apps/shop")).status == status
            assert (await there.ask(token, "DELETE", "/v1/apps/shop")).status == 401
            assert (await there.ask(token, "GET", "/v2/apps")).status == 401
        path = f"/v1/runner/apps/{there.ids['shop']['app_id']}"
        assert (await there.ask("", "GET", path)).status == status
