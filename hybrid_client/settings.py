"""How a runner node reaches its API nodes."""

from __future__ import annotations

from dataclasses import dataclass

from yarl import URL

from shared_models.env import env, millis, words


def addresses(text: str) -> tuple[str, ...]:
    """HTTP addresses separated by commas or space; ``http://`` is added where no scheme is given.

    A user and password are left out: API nodes know runners by their token.
    """
    found = []
    for word in words(text):
        full = word if "://" in word else f"http://{word}"
        try:
            url = URL(full)
        except ValueError:
            raise ValueError("must be addresses like http://api-node:8080") from None
        if url.scheme not in ("http", "https") or not url.host or url.query_string or url.fragment:
            raise ValueError("must be addresses like http://api-node:8080")
        found.append(str(url.with_user(None)).rstrip("/"))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Addresses, secret and patience of a runner node's client."""

    api_urls: tuple[str, ...] = env(
        "FN_RUNNER_API_URL",
        (),
        "Address of the API node; several, separated by commas, are used in turn",
        parse=addresses,
    )
    token: str = env("FN_RUNNER_TOKEN", "", "Token that this runner node shows to API nodes", secret=True)
    connect_timeout: float = env(
        "FN_CLIENT_CONNECT_TIMEOUT", 5.0, "Longest wait for a connection to an API node", unit="s"
    )
    timeout: float = env(
        "FN_CLIENT_TIMEOUT", 15.0, "Longest wait for an answer of an API node, long polls aside", unit="s"
    )
    max_attempts: int = env(
        "FN_CLIENT_MAX_ATTEMPTS", 5, "How often a request to an API node is tried, at least once"
    )
    first_pause: float = env(
        "FN_CLIENT_BACKOFF_MSECS",
        0.05,
        "Pause before the first repetition, at most; it doubles with every further one",
        parse=millis,
        unit="ms",
    )
    max_pause: float = env(
        "FN_CLIENT_MAX_BACKOFF_MSECS", 5.0, "Longest pause between two attempts", parse=millis, unit="ms"
    )
