"""Which calls and requests are traced, and how a trace goes from one node to the next, and to functions.

A trace comes as W3C ``traceparent``, or as B3 in one header or several, and goes on as W3C and B3. Whether it
is recorded is said by whoever began it; of calls that come without one, this node begins one for its share
(``FN_TRACE_SHARE``). Nothing is recorded, and nothing asked, before ``shared_models.otlp`` says ``record``.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

on = False
"""Whether spans are recorded here; the fast path asks nothing else while they are not."""

NAMES = frozenset(
    {"traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"}
    | {"x-b3-flags"}
)
"""Headers that say which trace a request belongs to, in lower case."""

_MOST_OWED = 8
_HEX = re.compile(r"[0-9a-f]{1,32}")
_YES = frozenset({"1", "d", "true"})
_w3c = TraceContextTextMapPropagator()
_tracer: Tracer | None = None
_share = 0.0
_owed = 0


def record(tracer: Tracer | None, share: float = 0.0) -> None:
    """From now on spans go to *tracer*, of *share* (0 to 1) of the calls that come without a trace."""
    global on, _tracer, _share, _owed
    on, _tracer, _share, _owed = tracer is not None, tracer, share, 0


def is_told(headers: Mapping[str, str]) -> bool:
    """Whether a request with *headers*, in any case, belongs to a trace."""
    return "traceparent" in headers or "b3" in headers or "x-b3-traceid" in headers


def parent_of(headers: Mapping[str, str]) -> SpanContext | None:
    """The span that *headers* name, from W3C first, then B3; None without one, or when it cannot be read."""
    if "traceparent" in headers:
        names = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        told = trace.get_current_span(_w3c.extract(names, context.Context())).get_span_context()
        if told.is_valid:
            return told
    if single := headers.get("b3", ""):
        parts = single.lower().split("-")
        if single == "0":  # a wish that nothing be recorded, of a trace without a name
            return SpanContext(random.getrandbits(128) | 1, random.getrandbits(64) | 1, is_remote=True)
        return _of_b3(parts[0], parts[1], parts[2] if len(parts) > 2 else "1") if len(parts) > 1 else None
    sampled = "1" if headers.get("x-b3-flags") == "1" else headers.get("x-b3-sampled", "1")
    return _of_b3(headers.get("x-b3-traceid", ""), headers.get("x-b3-spanid", ""), sampled)


def _of_b3(trace_id: str, span_id: str, sampled: str) -> SpanContext | None:
    trace_id, span_id = trace_id.lower(), span_id.lower()
    if not (_HEX.fullmatch(trace_id) and _HEX.fullmatch(span_id) and len(span_id) <= 16):
        return None
    flags = TraceFlags(TraceFlags.SAMPLED if sampled.lower() in _YES else TraceFlags.DEFAULT)
    told = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=flags)
    return told if told.is_valid else None


def due(headers: Mapping[str, str]) -> bool:
    """Whether a call that may take the fast path is to be traced, and so takes the ordinary way."""
    global _owed
    if is_told(headers):
        parent = parent_of(headers)
        return parent is None or parent.trace_flags.sampled
    if random.random() >= _share:
        return False
    _owed = min(_owed + 1, _MOST_OWED)  # the ordinary way must not draw once more
    return True


def _drawn() -> bool:
    global _owed
    if _owed:
        _owed -= 1
        return True
    return random.random() < _share


def current() -> SpanContext | None:
    """The span to which this task's work belongs."""
    found = trace.get_current_span().get_span_context()
    return found if found.is_valid else None


def begin(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    *,
    parent: SpanContext | None = None,
    root: bool = False,
    at: float | None = None,
) -> Span | None:
    """A span below *parent*, to be ended by the caller; None when it is not recorded.

    Without a parent there is one only for a *root*, and for the share of them. *at*: unix seconds.
    """
    if _tracer is None or not (parent.trace_flags.sampled if parent else root and _drawn()):
        return None
    above = context.Context()
    if parent:
        above = trace.set_span_in_context(trace.NonRecordingSpan(parent), above)
    return _tracer.start_span(name, above, kind, start_time=_nanos(at))


def past(
    name: str,
    parent: Span,
    since: float,
    until: float,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | bool] | None = None,
    error: str = "",
) -> Span | None:
    """A span below *parent* that is over; *since* and *until* in unix seconds."""
    if _tracer is None:
        return None  # the node stops
    above = trace.set_span_in_context(parent, context.Context())
    span = _tracer.start_span(name, above, kind, attributes, start_time=_nanos(since))
    if error:
        span.set_status(StatusCode.ERROR, error)
    span.end(_nanos(max(since, until)))
    return span


@contextmanager
def within(span: Span) -> Iterator[None]:
    """What this task does inside belongs to *span*, also what it asks of other nodes."""
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        context.detach(token)


def headers_of(span: SpanContext) -> dict[str, str]:
    """Headers that name *span* to others, W3C and B3."""
    headers: dict[str, str] = {}
    _w3c.inject(headers, trace.set_span_in_context(trace.NonRecordingSpan(span), context.Context()))
    headers["X-B3-TraceId"] = trace.format_trace_id(span.trace_id)
    headers["X-B3-SpanId"] = trace.format_span_id(span.span_id)
    headers["X-B3-Sampled"] = "1" if span.trace_flags.sampled else "0"
    return headers


def below(span: Span, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """*headers* of a call, for whoever is to work below *span*."""
    others = [header for header in headers if header[0].lower() not in NAMES]
    return [*others, *headers_of(span.get_span_context()).items()]


def join(headers: Mapping[str, str]) -> None:
    """Makes the trace of a request with *headers* the current one of this task."""
    if parent := parent_of(headers):
        context.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))


def _nanos(seconds: float | None) -> int:
    return time.time_ns() if seconds is None else int(seconds * 1e9)
