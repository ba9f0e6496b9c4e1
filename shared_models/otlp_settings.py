"""Where a node sends its traces and metrics, and how many traces it begins."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from shared_models.env import env, http_url, number, whole


def _url(text: str) -> str:
    url = http_url(
        text, "must be the http or https URL of an OTLP/HTTP receiver, without /v1/traces (http://otel:4318)"
    )
    if "@" in urlsplit(url).netloc:
        raise ValueError(
            "must have no user and no password: FN_OTLP_HEADERS has what the receiver wants to see"
        )
    return url


def _share(text: str) -> float:
    value = number(text)
    if value > 1:
        raise ValueError("must be a number from 0 to 1")
    return value


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    for name, equals, value in pairs:
        if not (equals and name.strip().isascii() and name.strip().isprintable() and name.strip()):
            raise ValueError("must be name=value pairs, separated by commas")
        if not value.isprintable() or not value.isascii():
            raise ValueError("must have values of printable ASCII characters")
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


def _every(text: str) -> int:
    value = whole(text)
    if not value:
        raise ValueError("must be a whole number of seconds, at least 1")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class OTLPSettings:
    """*url* is empty where nothing is sent, and then nothing is recorded."""

    url: str = env(
        "FN_OTLP_URL",
        "",
        "OTLP/HTTP receiver of traces and metrics, without /v1/traces; empty: nothing is recorded or sent",
        parse=_url,
    )
    headers: tuple[tuple[str, str], ...] = env(
        "FN_OTLP_HEADERS",
        (),
        "Headers of each request to FN_OTLP_URL, such as a token: name=value,name=value",
        parse=_headers,
        secret=True,
    )
    share: float = env(
        "FN_TRACE_SHARE",
        0.01,
        "Share of the calls without a trace of their own that are traced, from 0 to 1; those that come with "
        "a trace are traced where that says so",
        parse=_share,
    )
    metrics: bool = env("FN_OTLP_METRICS", True, "Whether metrics are sent to FN_OTLP_URL as well")
    every: int = env("FN_OTLP_EVERY_SECS", 60, "Time between two reports of metrics", parse=_every, unit="s")
