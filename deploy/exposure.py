"""What everybody who reaches a node's port can read there: ``fn-node doctor``.

That everybody may change things there is a doubt of ``deploy.identity``, which the node says when it starts.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploy.identity import is_loopback
from shared_models.finding import Finding, Level
from shared_models.http_settings import HTTPSettings


def examine(http: HTTPSettings) -> Iterator[Finding]:
    """Whether metrics are on the port that clients use."""
    if http.admin_port is None and not is_loopback(http.host):
        yield Finding(
            Level.WARNING, "metrics (FN_ADMIN_PORT)",
            "/metrics is on the port that clients use: who reaches it reads names of apps, too",
            "set FN_ADMIN_PORT, and keep that port from clients",
        )  # fmt: skip
