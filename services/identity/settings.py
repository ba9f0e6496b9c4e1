"""Where the tokens of this platform come from."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from shared_models.env import env, words


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be a URL such as https://login.example.com/realms/fn")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """Those without a variable are the same for everybody, but for tests. Times in seconds."""

    tokens_path: str = env(
        "FN_API_TOKENS",
        "",
        "file of the tokens that this node knows, in YAML: docs/security.md; read again when it changes",
    )
    issuer: str = env(
        "FN_OIDC_ISSUER",
        "",
        "OpenID Connect issuer whose tokens (JWTs) this node takes, as in their claim iss",
        parse=_url,
    )
    audience: tuple[str, ...] = env(
        "FN_OIDC_AUDIENCE",
        (),
        "what the claim aud of such a token must have one of, separated by commas",
        parse=words,
    )
    jwks_url: str = env(
        "FN_OIDC_JWKS_URL",
        "",
        "where the issuer's keys are; empty: where its discovery document says",
        parse=_url,
    )
    role_claim: str = env(
        "FN_OIDC_ROLE_CLAIM",
        "fn_role",
        "claim with the role: admin, developer, viewer or invoker, or a list that has one of them; dots lead "
        "into objects",
    )
    apps_claim: str = env(
        "FN_OIDC_APPS_CLAIM",
        "",
        "claim with the names of the apps that the role is for, * for all; empty: the role is for all apps",
    )
    look_every: float = 2.0
    """Until the file of tokens is looked at again."""
    ask_every: float = 10.0
    """Between two questions for a key that is not known."""
    keys_age: float = 300.0
    """After which keys are asked for again."""
    patience: float = 5.0
    """That an issuer has for one answer."""
    leeway: float = 30.0
    """That clocks may differ."""
