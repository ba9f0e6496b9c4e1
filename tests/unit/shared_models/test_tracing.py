from __future__ import annotations

import pytest

from shared_models import tracing
from shared_models.env import read
from shared_models.otlp_settings import OTLPSettings

TRACE, SPAN = f"{0xABC:032x}", f"{0xDEF:016x}"


@pytest.mark.parametrize(
    ("headers", "sampled"),
    [
        ({"traceparent": f"00-{TRACE}-{SPAN}-01"}, True),
        ({"traceparent": f"00-{TRACE}-{SPAN}-00"}, False),
        ({"traceparent": f"00-{TRACE}-{SPAN}-01", "b3": "0"}, True),
        ({"b3": f"{TRACE}-{SPAN}-1"}, True),
        ({"b3": f"{TRACE}-{SPAN}-d-{SPAN}"}, True),
        ({"b3": f"{TRACE}-{SPAN}-0"}, False),
        ({"b3": f"{TRACE}-{SPAN}"}, True),
        ({"x-b3-traceid": TRACE[16:], "x-b3-spanid": SPAN}, True),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "true"}, True),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "0"}, False),
        ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "0", "x-b3-flags": "1"}, True),
    ],
)
def test_a_trace_is_read_as_its_client_tells_it(headers: dict[str, str], sampled: bool) -> None:
    assert tracing.is_told(headers)
    parent = tracing.parent_of(headers)
    assert parent is not None
    assert (parent.trace_id, parent.span_id) == (0xABC, 0xDEF)
    assert parent.trace_flags.sampled is sampled


def test_a_wish_not_to_be_traced_needs_no_name() -> None:
    parent = tracing.parent_of({"b3": "0"})
    assert parent is not None
    assert not parent.trace_flags.sampled


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "00-zz-11-01"},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"b3": "what"},
        {"b3": f"{TRACE}-{'1' * 17}-1"},
        {"b3": f"{'0' * 32}-{SPAN}-1"},
        {"x-b3-traceid": TRACE},
        {"x-b3-traceid": "-1", "x-b3-spanid": SPAN},
        {"x-b3-traceid": "1" * 5000, "x-b3-spanid": SPAN},
    ],
)
def test_what_cannot_be_read_is_no_trace(headers: dict[str, str]) -> None:
    assert tracing.parent_of(headers) is None


def test_headers_of_a_span_are_read_back_as_the_same_span() -> None:
    parent = tracing.parent_of({"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=1"})
    assert parent is not None
    told = tracing.headers_of(parent)
    assert told["tracestate"] == "a=1"
    b3 = {name.lower(): value for name, value in told.items() if name.startswith("X-B3")}
    for headers in (told, b3):
        again = tracing.parent_of(headers)
        assert again is not None
        assert (again.trace_id, again.span_id) == (0xABC, 0xDEF)


def test_nothing_is_recorded_where_nobody_asked_for_it() -> None:
    assert not tracing.on
    assert tracing.begin("x", root=True) is None


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("FN_OTLP_URL", "otel:4317", "http or https"),
        ("FN_OTLP_URL", "grpc://otel:4317", "http or https"),
        ("FN_OTLP_URL", "http://otel:4318?x=1", "http or https"),
        ("FN_OTLP_URL", "http://me:open@otel:4318", "FN_OTLP_HEADERS"),
        ("FN_OTLP_HEADERS", "token", "name=value"),
        ("FN_OTLP_HEADERS", "=x", "name=value"),
        ("FN_TRACE_SHARE", "1.5", "from 0 to 1"),
        ("FN_TRACE_SHARE", "-1", "negative"),
        ("FN_OTLP_EVERY_SECS", "0", "at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_rule(name: str, value: str, why: str) -> None:
    problems: list[str] = []
    read(OTLPSettings, {name: value}, problems)
    assert len(problems) == 1
    assert problems[0].startswith(name)
    assert why in problems[0]


def test_settings_are_read() -> None:
    problems: list[str] = []
    given = read(
        OTLPSettings,
        {"FN_OTLP_URL": "https://otel:4318/", "FN_OTLP_HEADERS": "api-key=a=b, x=y", "FN_TRACE_SHARE": "0.5"},
        problems,
    )
    assert problems == []
    assert given.url == "https://otel:4318"
    assert given.headers == (("api-key", "a=b"), ("x", "y"))
    assert given.share == 0.5
