"""Tokens of an issuer, checked with the keys of a real one over HTTP: good, bad, rotation, absence."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from services.identity.opening import Identity, open_identity
from services.identity.settings import IdentitySettings
from shared_models.access import Principal, Role
from shared_models.errors import FnError, Forbidden, IssuerUnavailable, Unauthorized
from tests.servers.issuer import (
    AUDIENCE,
    Issuer,
    Key,
    forged,
    running_issuer,
    signed_with_text,
    unsigned,
)

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as found:
        yield found


@asynccontextmanager
async def known_by(issuer: Issuer, **changes: Any) -> AsyncIterator[Identity]:
    settings = IdentitySettings(
        **{"issuer": issuer.url, "audience": (AUDIENCE,), "ask_every": 0.0, "patience": 5.0, **changes}
    )
    async with open_identity(settings) as identity:
        assert identity
        yield identity


async def who(identity: Identity, token: str) -> Principal:
    async with asyncio.timeout(30):
        return await identity.who(f"Bearer {token}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_each_allowed_algorithm_is_taken(issuer: Issuer, algorithm: str) -> None:
    issuer.keys = [Key("first"), Key("one", algorithm)]
    async with known_by(issuer) as identity:
        found = await who(identity, issuer.token(issuer.keys[1], fn_role="developer"))
        assert found == Principal(name="ann", role=Role.DEVELOPER, apps=None)


async def test_a_key_without_a_name_or_an_algorithm_is_found(issuer: Issuer) -> None:
    issuer.keys = [Key("a", "RS256"), Key("b", "RS256")]
    issuer.given = [key.public(kid=None, alg=None, use=None) for key in issuer.keys]
    async with known_by(issuer) as identity:
        for key in issuer.keys:
            assert (await who(identity, issuer.token(key, kid="", fn_role="viewer"))).role == Role.VIEWER


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"exp": time.time() - 120}, "has expired"),
    ({"exp": None}, "no claim exp"),
    ({"nbf": time.time() + 3600}, "is not valid yet"),
    ({"aud": "others"}, "claim aud must have fn"),
    ({"aud": None}, "no claim aud"),
    ({"iss": "https://elsewhere.example"}, "not of the issuer"),
    ({"iss": None}, "not of the issuer"),
    ({"sub": None}, "no claim sub"),
]


@pytest.mark.parametrize(("claims", "words"), REFUSED)
async def test_a_token_with_bad_claims_is_refused_in_words(
    issuer: Issuer, claims: dict[str, Any], words: str
) -> None:
    async with known_by(issuer) as identity:
        with pytest.raises(Unauthorized, match=words):
            await who(identity, issuer.token(fn_role="admin", **claims))


async def test_a_token_that_ends_later_than_any_time_is_one(issuer: Issuer) -> None:
    async with known_by(issuer) as identity:
        token = issuer.token(fn_role="viewer", exp=10**400)
        assert (await who(identity, token)).role == Role.VIEWER
        assert (await who(identity, token)).role == Role.VIEWER, "also when it is remembered"


async def test_clocks_may_differ_by_the_leeway(issuer: Issuer) -> None:
    async with known_by(issuer) as identity:
        now = time.time()
        late = issuer.token(fn_role="admin", exp=now - 10)
        early = issuer.token(fn_role="admin", nbf=now + 10)
        assert [(await who(identity, one)).role for one in (late, early)] == [Role.ADMIN, Role.ADMIN]


async def test_a_forged_token_is_refused(issuer: Issuer) -> None:
    issuer.keys = [Key("one", "RS256")]
    good = issuer.token(fn_role="invoker")
    public = issuer.keys[0].private.public_key()
    texts = [
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    ]
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "eve", "exp": time.time() + 60, "fn_role": "admin"}
    stranger = issuer.token(Key("one", "RS256"), fn_role="admin")
    head, body, signature = good.split(".")
    other_body = issuer.token(fn_role="admin").split(".")[1]
    tokens = [
        unsigned(**claims),
        *(signed_with_text(text, **claims) for text in texts),
        stranger,
        f"{head}.{other_body}.{signature}",
        f"{head}.{body}.",
        forged(good, alg="ES256", kid="one"),
        forged(good, alg="PS256", kid="one"),
        forged(good, alg="none"),
        forged(good, alg=["RS256"], kid="one"),
        forged(good, alg="RS256", kid={"a": 1}) + "x",
        "a.b.c",
        "..",
        f"{head}.{body}.{signature}" + "A" * 20_000,
    ]
    async with known_by(issuer) as identity:
        assert (await who(identity, good)).role == Role.INVOKER
        for token in tokens:
            with pytest.raises(Unauthorized):
                await who(identity, token)


async def test_whatever_is_sent_as_a_token_is_refused_and_breaks_nothing(issuer: Issuer) -> None:
    dice = random.Random(7)
    good = issuer.token(fn_role="admin", nested={"a": ["b"]})

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    deep = part(b"[" * 9000)
    head, body, signature = good.split(".")
    tokens = [f"a\udce9.{body}.{signature}", f"{head}.caf\u00e9.{signature}", "\udcff.\udcff.\udcff"]
    tokens += [
        f"{deep}.{body}.{signature}",
        f"{head}.{deep}.{signature}",
        f"{part(b'[]')}.{body}.{signature}",
    ]
    for value in (b"null", b"1", b"{}", b'{"alg":1}', b'{"alg":"ES256","kid":"one","crit":["x"]}', b"\xff"):
        tokens += [f"{part(value)}.{body}.{signature}", f"{head}.{part(value)}.{signature}"]
    for _ in range(300):
        letters = list(good)
        for _ in range(dice.randint(1, 4)):
            letters[dice.randrange(len(letters))] = dice.choice("AZaz09-_.\u00e9 ")
        tokens.append("".join(letters))
    async with known_by(issuer) as identity:
        for token in tokens:
            if token != good and not _same(token, good):
                with pytest.raises(Unauthorized):
                    await who(identity, token)
                assert identity.known(f"Bearer {token}") is None
            assert identity.ours(f"Bearer {token}") in (True, False)


def _same(token: str, good: str) -> bool:
    """Whether both stand for the same bytes: the last character of a part has bits that nobody reads."""
    try:
        return [jwt.utils.base64url_decode(part) for part in token.split(".")] == [
            jwt.utils.base64url_decode(part) for part in good.split(".")
        ]
    except ValueError:
        return False


async def test_a_small_key_and_a_key_for_encryption_are_not_used(issuer: Issuer) -> None:
    small = Key("small", "RS256", rsa.generate_private_key(public_exponent=65537, key_size=1024))
    secret = Key("secret", "RS256")
    issuer.keys = [small, secret, Key("good", "RS256")]
    issuer.given = [
        small.public(),
        secret.public(use="enc"),
        issuer.keys[2].public(),
        {"kty": "oct", "k": "AA"},
    ]
    async with known_by(issuer) as identity:
        with pytest.warns(Warning, match="key"):
            token = issuer.token(small, fn_role="admin")
        for refused in (token, issuer.token(secret, fn_role="admin")):
            with pytest.raises(Unauthorized, match="key that its issuer does not have"):
                await who(identity, refused)
        assert (await who(identity, issuer.token(issuer.keys[2], fn_role="admin"))).role == Role.ADMIN


async def test_a_key_signs_in_the_way_that_its_issuer_says_and_in_no_other(issuer: Issuer) -> None:
    key = Key("one", "RS256")
    issuer.keys = [key]
    async with known_by(issuer) as identity:
        assert (await who(identity, issuer.token(fn_role="admin"))).role == Role.ADMIN
        other = issuer.token(Key("one", "PS256", key.private), fn_role="admin")
        with pytest.raises(Unauthorized, match="key that its issuer does not have"):
            await who(identity, other)


async def test_a_shared_secret_among_the_keys_signs_nothing(issuer: Issuer) -> None:
    secret = b"s" * 64
    text = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    issuer.given = [{"kty": "oct", "k": text, "kid": "one"}, issuer.keys[0].public(kid="two")]
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "eve", "exp": time.time() + 60, "fn_role": "admin"}
    async with known_by(issuer) as identity:
        assert (await who(identity, issuer.token(kid="two", fn_role="admin"))).role == Role.ADMIN
        with pytest.raises(Unauthorized, match="must be signed with one of RS256"):
            await who(identity, signed_with_text(secret, **claims))


async def test_a_token_that_is_too_long_is_refused_though_it_is_good(issuer: Issuer) -> None:
    async with known_by(issuer) as identity:
        with pytest.raises(Unauthorized, match="has more than 16384 characters"):
            await who(identity, issuer.token(fn_role="admin", more="x" * 16384))


async def test_an_issuer_with_keys_without_end_has_its_first_hundred(issuer: Issuer) -> None:
    first, beyond = Key("first"), Key("beyond")
    issuer.given = [first.public(), *(first.public(kid=str(number)) for number in range(99)), beyond.public()]
    async with known_by(issuer) as identity:
        assert (await who(identity, issuer.token(first, fn_role="admin"))).role == Role.ADMIN
        with pytest.raises(Unauthorized, match="key that its issuer does not have"):
            await who(identity, issuer.token(beyond, fn_role="admin"))


# -- roles and apps ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "claims", "role", "apps"),
    [
        ({}, {"fn_role": "viewer"}, Role.VIEWER, None),
        ({}, {"fn_role": ["users", "invoker", "developer"]}, Role.DEVELOPER, None),
        ({"role_claim": "realm.roles"}, {"realm": {"roles": ["viewer"]}}, Role.VIEWER, None),
        ({"role_claim": "https://x.example/role"}, {"https://x.example/role": "viewer"}, Role.VIEWER, None),
        ({"apps_claim": "apps"}, {"fn_role": "viewer", "apps": ["shop"]}, Role.VIEWER, {"shop"}),
        ({"apps_claim": "apps"}, {"fn_role": "viewer", "apps": "shop, bank"}, Role.VIEWER, {"shop", "bank"}),
        ({"apps_claim": "apps"}, {"fn_role": "viewer", "apps": "*"}, Role.VIEWER, None),
        ({"apps_claim": "apps"}, {"fn_role": "viewer"}, Role.VIEWER, set()),
        ({"apps_claim": "apps"}, {"fn_role": "viewer", "apps": {"shop": 1}}, Role.VIEWER, set()),
        ({"apps_claim": "apps"}, {"fn_role": "admin", "apps": ["shop"]}, Role.ADMIN, None),
    ],
)
async def test_role_and_apps_come_from_the_claims(
    issuer: Issuer, settings: dict[str, Any], claims: dict[str, Any], role: Role, apps: set[str] | None
) -> None:
    async with known_by(issuer, **settings) as identity:
        found = await who(identity, issuer.token(**claims))
        assert (found.role, found.apps) == (role, apps)


@pytest.mark.parametrize("claims", [{}, {"fn_role": "root"}, {"fn_role": 1}, {"fn_role": {"admin": True}}])
async def test_a_token_without_a_role_may_do_nothing(issuer: Issuer, claims: dict[str, Any]) -> None:
    async with known_by(issuer) as identity:
        with pytest.raises(Forbidden, match="names no role: its claim fn_role must be one of admin"):
            await who(identity, issuer.token(**claims))


async def test_a_token_is_ours_by_issuer_and_audience(issuer: Issuer) -> None:
    async with known_by(issuer) as identity:
        assert identity.ours(f"Bearer {issuer.token()}")
        assert identity.ours(f"bearer {issuer.token(aud=['x', AUDIENCE], exp=1)}")
        for other in (issuer.token(aud="x"), issuer.token(iss="y"), "a.b.c", "abc", ""):
            assert not identity.ours(f"Bearer {other}")
        assert identity.known(f"Bearer {issuer.token(fn_role='admin')}") is None


async def test_a_token_is_known_at_once_after_it_was_found_good(issuer: Issuer) -> None:
    async with known_by(issuer) as identity:
        good, bad = (
            f"Bearer {issuer.token(fn_role='admin')}",
            f"Bearer {issuer.token(Key('x'), fn_role='admin')}",
        )
        assert identity.known(good) is None
        assert identity.known(bad) is None
        found = await identity.who(good)
        with pytest.raises(Unauthorized):
            await identity.who(bad)
        assert identity.known(good) == found
        assert identity.known(bad) is None
        assert identity.known(good + "x") is None
        forged = ".".join([*good.split(".")[:2], bad.split(".")[2]])
        assert identity.known(forged) is None


async def test_a_token_that_was_known_is_not_when_its_time_is_over_or_its_key_is_gone(issuer: Issuer) -> None:
    async with known_by(issuer) as identity:
        jwts = identity._jwts
        assert jwts
        now = time.time()
        jwts._clock = lambda: now
        short, long = (f"Bearer {issuer.token(fn_role='admin', exp=now + left)}" for left in (10, 3600))
        for header in (short, long):
            await identity.who(header)
            assert identity.known(header)
        now += 10 + 30 + 1
        assert identity.known(short) is None
        assert identity.known(long)
        now += 20
        assert identity.known(long) is None, "not for ever, though it is valid for an hour"
        await identity.who(long)
        assert identity.known(long)
        issuer.keys = [Key("two")]
        await identity.who(f"Bearer {issuer.token(fn_role='viewer')}")
        assert identity.known(long) is None
        with pytest.raises(Unauthorized, match="key that its issuer does not have"):
            await identity.who(long)


async def test_tokens_that_are_remembered_are_bounded(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.identity.jwts.MOST_REMEMBERED", 10)
    async with known_by(issuer) as identity:
        headers = [f"Bearer {issuer.token(fn_role='admin', n=number)}" for number in range(30)]
        for header in headers:
            await identity.who(header)
        assert [identity.known(header) is not None for header in headers] == [False] * 20 + [True] * 10


# -- keys that change, an issuer that is away ------------------------------------------------------


async def test_a_new_key_is_fetched_and_an_old_one_is_gone(issuer: Issuer) -> None:
    async with known_by(issuer) as identity:
        old = issuer.token(fn_role="viewer")
        assert (await who(identity, old)).name == "ann"
        issuer.keys = [Key("two", "EdDSA")]
        assert (await who(identity, issuer.token(fn_role="viewer"))).name == "ann"
        with pytest.raises(Unauthorized, match="key that its issuer does not have"):
            await who(identity, old)


async def test_keys_that_are_known_are_not_asked_for_again(issuer: Issuer) -> None:
    async with known_by(issuer) as identity:
        await asyncio.gather(*(who(identity, issuer.token(fn_role="viewer")) for _ in range(50)))
        assert issuer.asked == 1


async def test_many_tokens_with_unknown_keys_ask_once(issuer: Issuer) -> None:
    async with known_by(issuer, ask_every=3600.0) as identity:
        await who(identity, issuer.token(fn_role="viewer"))
        for number in range(50):
            with pytest.raises(Unauthorized, match="key that its issuer does not have"):
                await who(identity, issuer.token(kid=f"k{number}", fn_role="admin"))
        assert issuer.asked == 1


async def test_tokens_of_others_ask_for_no_keys(issuer: Issuer) -> None:
    async with known_by(issuer) as identity:
        await who(identity, issuer.token(fn_role="viewer"))
        with pytest.raises(Unauthorized):
            await who(identity, issuer.token(Key("k"), iss="https://elsewhere.example"))
        assert issuer.asked == 1


async def test_keys_stay_in_force_while_the_issuer_is_away(
    issuer: Issuer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.identity.jwts.REMEMBERED", 0.0)
    async with known_by(issuer, keys_age=0.0) as identity:
        token = issuer.token(fn_role="viewer")
        assert (await who(identity, token)).name == "ann"
        await issuer.stop()
        with caplog.at_level(logging.ERROR):
            while "the keys that are known stay in force" not in caplog.text:
                assert (await who(identity, token)).name == "ann"
                await asyncio.sleep(0.01)
        with pytest.raises(IssuerUnavailable):
            await who(identity, issuer.token(Key("new"), fn_role="viewer"))
        await issuer.start()
        issuer.keys = [Key("new")]
        assert (await who(identity, issuer.token(fn_role="viewer"))).name == "ann"


async def test_an_issuer_that_was_never_there_is_a_503(issuer: Issuer) -> None:
    await issuer.stop()
    async with known_by(issuer) as identity:
        token = issuer.token(fn_role="viewer")
        with pytest.raises(IssuerUnavailable) as caught:
            await who(identity, token)
        assert (caught.value.code, issuer.url in caught.value.detail) == (503, True)
        await issuer.start()
        assert (await who(identity, token)).name == "ann"


async def _outcome(identity: Identity, token: str) -> FnError:
    with pytest.raises(FnError) as caught:
        await who(identity, token)
    return caught.value


async def test_a_broken_issuer_is_a_503_that_says_why(issuer: Issuer) -> None:
    token = issuer.token(fn_role="viewer")
    async with known_by(issuer) as identity:
        issuer.status = 500
        assert "status 500" in (await _outcome(identity, token)).detail
    for change, words in (
        ({"issuer": "https://elsewhere.example"}, "it is of the issuer 'https://elsewhere.example'"),
        ({"jwks_uri": "file:///etc/passwd"}, "names no jwks_uri"),
        ({"jwks_uri": None}, "names no jwks_uri"),
    ):
        before, issuer.document = issuer.document, {**issuer.document, **change}
        async with known_by(issuer) as identity:
            failure = await _outcome(identity, token)
            assert isinstance(failure, IssuerUnavailable)
            assert words in failure.detail
        issuer.document = before


async def test_keys_are_found_without_a_discovery_document(issuer: Issuer) -> None:
    keys = issuer.document.pop("jwks_uri")
    async with known_by(issuer, jwks_url=keys) as identity:
        assert (await who(identity, issuer.token(fn_role="viewer"))).name == "ann"
