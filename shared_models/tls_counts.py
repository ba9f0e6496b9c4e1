"""What a node counts of TLS. Names and labels: docs/metrics.md."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from shared_models.telemetry import REGISTRY

# With a label a node without TLS has no sample: 0 would be a certificate that has expired.
ends = Gauge(
    "fn_tls_certificate_ends_seconds",
    "When the certificate in use expires, in seconds since the unix epoch",
    ("file",),
    registry=REGISTRY,
)
crl_ends = Gauge(
    "fn_tls_crl_ends_seconds",
    "When the first list of revoked certificates is out of date, in seconds since the unix epoch",
    ("file",),
    registry=REGISTRY,
)
changes = Counter(
    "fn_tls_files_changed",
    "Times that files of TLS had changed: taken, or refused since they cannot be used",
    ("outcome",),
    registry=REGISTRY,
)
failed = Counter("fn_tls_handshakes_failed", "Handshakes of clients that failed", registry=REGISTRY)
