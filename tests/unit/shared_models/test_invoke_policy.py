"""Annotations of private functions and of rate limits: what they mean, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from shared_models import invoke_policy
from shared_models.app import App
from shared_models.errors import Invalid
from shared_models.fn import Fn
from shared_models.invoke_policy import BURST, INVOKE_AUTH, RATE, Rate
from shared_models.route import Route


def notes(**values: object) -> dict[str, msgspec.Raw]:
    names = {"auth": INVOKE_AUTH, "rate": RATE, "burst": BURST}
    return {names[name]: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


def app(**values: object) -> App:
    return App(name="shop", annotations=notes(**values))


def fn(**values: object) -> Fn:
    return Fn(
        name="f", app_id="a", image="i", memory=1, timeout=1, idle_timeout=1, annotations=notes(**values)
    )


def test_an_app_a_function_and_a_route_can_be_private() -> None:
    app(auth="token").check()
    fn(auth="token").check()
    Route(
        path="/r", image="i", type="sync", format="default", timeout=1, idle_timeout=1, memory=1,
        annotations=notes(auth="token"),
    ).check()  # fmt: skip
    assert invoke_policy.private({}, notes(auth="token"))
    assert not invoke_policy.private({}, notes(rate=1))


@pytest.mark.parametrize("value", ["none", "Token", True, 1, ["token"], {"token": 1}])
def test_what_is_not_token_is_refused(value: object) -> None:
    with pytest.raises(Invalid, match=r"fn\.hybrid/invoke/auth must be .token."):
        fn(auth=value).check()


@pytest.mark.parametrize("value", [0, -1, "often", 1e7, [1], 0.0001])
def test_a_rate_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(Invalid, match="rate-limit/per-second must be a number of calls a second"):
        app(rate=value).check()


@pytest.mark.parametrize("value", [0, -1, 1.5, "x", 1e7])
def test_a_burst_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(Invalid, match="rate-limit/burst must be a whole number of calls"):
        app(burst=value).check()


def test_only_an_app_has_a_rate() -> None:
    app(rate=5, burst=10).check()
    with pytest.raises(Invalid, match="is for apps"):
        fn(rate=5).check()


def test_the_rate_of_an_app_is_its_own_or_the_default() -> None:
    assert invoke_policy.rate({}, 0.0) is None
    assert invoke_policy.rate({}, 20.0) == Rate(20.0, 20.0)
    assert invoke_policy.rate(notes(rate=5), 20.0) == Rate(5.0, 5.0)
    assert invoke_policy.rate(notes(rate=2.5), 0.0) == Rate(2.5, 3.0)
    assert invoke_policy.rate(notes(rate=0.1), 0.0) == Rate(0.1, 1.0)
    assert invoke_policy.rate(notes(rate=5, burst=50), 0.0) == Rate(5.0, 50.0)
    assert invoke_policy.rate(notes(burst=50), 20.0) == Rate(20.0, 50.0)
    assert invoke_policy.rate(notes(burst=50), 0.0) is None
