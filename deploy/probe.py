"""``fn-node probe``: asks the node of this container how it is, for health checks of images and exec probes.

Needs no curl, and no setting but those of the node: it asks the port that the node's variables name.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import urllib.error
import urllib.request

from deploy.settings import Settings

_ALL = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}
"""What to ask where a node listens on all addresses."""


def run(settings: Settings, *, ready: bool, timeout: float = 4.0) -> int:
    """0 when the node lives, or with *ready* when it takes requests; else 1, and why on stderr.

    Waits for *timeout* seconds at most.
    """
    url = address(settings) + ("/readyz" if ready else "/healthz")
    # It is this node itself that is asked, whoever its certificate is for.
    unverified = ssl._create_unverified_context() if url.startswith("https") else None
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified)
    )
    try:
        with opener.open(url, timeout=timeout):
            return 0
    except urllib.error.HTTPError as exc:
        with exc:
            return _complain(f"{url} answers {exc.code}: {_reason(exc.read())}")
    except (OSError, http.client.HTTPException) as exc:
        return _complain(f"{url} does not answer: {str(getattr(exc, 'reason', exc)).strip()}")


def address(settings: Settings) -> str:
    """The URL of the port that has ``/healthz`` for operators."""
    served, tls = settings.http, settings.tls
    host = (served.admin_host or served.host) if served.admin_port else served.host
    secure = bool(tls.cert) and (tls.admin or not served.admin_port)
    host = _ALL.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if secure else 'http'}://{host}:{served.admin_port or served.port}"


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")[:200]


def _complain(problem: str) -> int:
    print(f"fn-node probe: {problem}", file=sys.stderr)
    return 1
