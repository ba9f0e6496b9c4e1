"""Settings of tokens: what cannot be meant, and what an operator is warned of."""

from __future__ import annotations

import pytest

from deploy.identity import with_authorization
from deploy.settings import read_all
from services.identity.opening import Identity
from shared_models.env import InvalidSettings
from shared_models.web import HTTPSettings

ISSUER = {"FN_OIDC_ISSUER": "https://login.example/realm", "FN_OIDC_AUDIENCE": "fn"}
RUNNER = {"FN_RUNNER_API_URL": "http://127.0.0.1:8080", "FN_RUNNER_TOKEN": "t"}


def of_tokens(warnings: list[str]) -> list[str]:
    return [one for one in warnings if "FN_API_TOKENS" in one or "FN_OIDC" in one]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "fn.example"])
@pytest.mark.parametrize("kind", ["api", "full"])
def test_an_open_api_node_is_warned_of(kind: str, host: str) -> None:
    _, warnings = read_all({"FN_HOST": host}, kind)
    assert len(of_tokens(warnings)) == 1
    assert "everybody who reaches this port" in of_tokens(warnings)[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_one_that_only_its_machine_reaches_is_not(host: str) -> None:
    assert of_tokens(read_all({"FN_HOST": host}, "full")[1]) == []


@pytest.mark.parametrize("given", [{"FN_API_TOKENS": "/etc/fn/tokens.yml"}, ISSUER])
def test_one_that_knows_tokens_is_not(given: dict[str, str]) -> None:
    assert of_tokens(read_all(given, "api")[1]) == []


def test_a_runner_node_is_not() -> None:
    assert of_tokens(read_all(RUNNER, "runner")[1]) == []


def test_a_way_past_the_tokens_is_warned_of() -> None:
    _, warnings = read_all({**ISSUER, "FN_RUNNER_AUTH": "none"}, "api")
    assert [one for one in warnings if one.startswith("FN_RUNNER_AUTH=none: everybody")]


def test_an_issuer_without_tls_is_warned_of_unless_it_is_on_this_machine() -> None:
    for host, many in (("login.example", 1), ("127.0.0.1:8443", 0), ("localhost", 0), ("[::1]:80", 0)):
        _, warnings = read_all({**ISSUER, "FN_OIDC_ISSUER": f"http://{host}/realm"}, "api")
        assert len([one for one in warnings if "FN_OIDC_ISSUER is http" in one]) == many, host


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"FN_OIDC_ISSUER": "https://login.example"}, ["FN_OIDC_AUDIENCE: is not set"]),
        ({"FN_OIDC_AUDIENCE": "fn"}, ["FN_OIDC_AUDIENCE: has no effect without FN_OIDC_ISSUER"]),
        ({"FN_OIDC_JWKS_URL": "https://x.example"}, ["FN_OIDC_JWKS_URL: has no effect without"]),
        (
            {"FN_OIDC_ISSUER": "login.example", "FN_OIDC_AUDIENCE": "fn"},
            ["FN_OIDC_ISSUER='login.example': must be a URL"],
        ),
        ({"FN_INVOKE_AUTH": "always"}, ["FN_INVOKE_AUTH=always: nobody could call anything"]),
        ({"FN_INVOKE_AUTH": "sometimes"}, ["FN_INVOKE_AUTH='sometimes': must be one of"]),
        ({"FN_APP_RATE_LIMIT": "-1"}, ["FN_APP_RATE_LIMIT='-1': must be a number"]),
    ],
)
def test_what_cannot_be_meant_is_a_problem(given: dict[str, str], words: list[str]) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_all(given, "full")
    assert len(caught.value.problems) == len(words), caught.value.problems
    for problem, start in zip(caught.value.problems, words, strict=True):
        assert problem.startswith(start)


def test_pages_of_other_origins_may_send_tokens_where_there_are_any() -> None:
    open_node = HTTPSettings(cors_origins=("*",))
    assert with_authorization(open_node, None).cors_headers == ()
    guarded = with_authorization(open_node, Identity(None, None))
    assert guarded.cors_headers == ("Origin", "Content-Length", "Content-Type", "Authorization")
    own = HTTPSettings(cors_origins=("*",), cors_headers=("X-Mine", "authorization"))
    assert with_authorization(own, Identity(None, None)).cors_headers == ("X-Mine", "authorization")
