"""What tokens of an issuer may cost: few keys are tried, and what was found is remembered for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest

from services.identity.jwts import MOST_TRIED, REMEMBERED
from services.identity.opening import Identity
from shared_models.access import Role
from shared_models.errors import Unauthorized
from tests.integration.test_identity_issuer import known_by, who
from tests.servers.issuer import Issuer, Key, running_issuer


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as found:
        yield found


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A token for each signature that is checked."""
    found, decode = list[str](), jwt.decode

    def counting(token: str, *given: Any, **named: Any) -> Any:
        found.append(token)
        return decode(token, *given, **named)

    monkeypatch.setattr(jwt, "decode", counting)
    return found


async def _refused(identity: Identity, token: str, words: str) -> None:
    with pytest.raises(Unauthorized, match=words):
        await who(identity, token)


async def test_a_token_that_names_no_key_is_checked_with_a_few_that_fit(
    issuer: Issuer, checks: list[str]
) -> None:
    issuer.keys = [Key(str(number)) for number in range(MOST_TRIED)]
    others = [*(Key(f"r{number}", "RS256") for number in range(3)), Key("e", "ES384"), Key("d", "EdDSA")]
    issuer.given = [*(key.public() for key in others), *(key.public() for key in issuer.keys)]
    async with known_by(issuer) as identity:
        assert (await who(identity, issuer.token(issuer.keys[-1], kid="", fn_role="viewer"))).name == "ann"
        assert len(checks) == MOST_TRIED
        await _refused(identity, issuer.token(Key("x"), kid="", fn_role="admin"), "signature .* is wrong")
        assert len(checks) == 2 * MOST_TRIED


@pytest.mark.parametrize("same_name", [False, True])
async def test_a_token_that_too_many_keys_may_have_signed_is_refused_before_any_is_tried(
    issuer: Issuer, same_name: bool, checks: list[str]
) -> None:
    key = issuer.keys[0]
    named = {"one": "one"} if same_name else {}
    issuer.given = [key.public(kid=named.get("one", str(number))) for number in range(MOST_TRIED + 1)]
    async with known_by(issuer) as identity:
        words = f"Any of {MOST_TRIED + 1} keys of the issuer .*: its header must name one of them .kid."
        await _refused(identity, issuer.token(kid="one" if same_name else "", fn_role="admin"), words)
        assert not checks
        if not same_name:
            assert (await who(identity, issuer.token(kid="3", fn_role="admin"))).role == Role.ADMIN


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({}, "signature .* is wrong"),
        ({"exp": 1}, "has expired"),
        ({"aud": "others"}, "claim aud must have fn"),
    ],
)
async def test_a_bad_token_that_comes_again_is_refused_without_another_check(
    issuer: Issuer, claims: dict[str, Any], words: str, checks: list[str]
) -> None:
    signer = None if claims else Key("one")
    token = issuer.token(signer, fn_role="admin", **claims)
    async with known_by(issuer) as identity:
        for _ in range(5):
            await _refused(identity, token, words)
        assert len(checks) == 1
        await _refused(identity, issuer.token(signer, fn_role="admin", n=1, **claims), words)
        assert len(checks) == 2
        jwts = identity._jwts
        assert jwts
        later = time.time() + REMEMBERED + 1
        jwts._clock = lambda: later
        await _refused(identity, token, words)
        assert len(checks) == 3, "not for ever"


async def test_a_token_that_was_bad_is_good_when_the_keys_are_others(issuer: Issuer) -> None:
    renewed = Key("one")
    async with known_by(issuer) as identity:
        early = issuer.token(renewed, fn_role="viewer")
        await _refused(identity, early, "signature .* is wrong")
        issuer.keys = [renewed, Key("two")]
        assert (await who(identity, issuer.token(issuer.keys[1], fn_role="viewer"))).name == "ann"
        assert (await who(identity, early)).name == "ann"


async def test_a_token_that_came_too_early_is_good_in_its_time(issuer: Issuer) -> None:
    async with known_by(issuer, leeway=0.0) as identity:
        begins = time.time() + 2
        token = issuer.token(fn_role="viewer", nbf=begins)
        await _refused(identity, token, "is not valid yet")
        async with asyncio.timeout(30):
            while time.time() < begins + 1:  # its time is what is waited for; it counts whole seconds
                await asyncio.sleep(0.05)
        assert (await who(identity, token)).name == "ann"


async def test_bad_tokens_are_remembered_within_bounds_and_drive_out_no_good_one(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, checks: list[str]
) -> None:
    monkeypatch.setattr("services.identity.jwts.MOST_REMEMBERED", 5)
    async with known_by(issuer) as identity:
        good = issuer.token(fn_role="viewer")
        await who(identity, good)
        bad = [issuer.token(Key("one"), fn_role="admin", n=number) for number in range(10)]
        for token in (*bad, *bad[5:]):
            await _refused(identity, token, "signature .* is wrong")
        assert len(checks) == 11
        await _refused(identity, bad[0], "signature .* is wrong")
        assert len(checks) == 12
        assert identity.known(f"Bearer {good}")
