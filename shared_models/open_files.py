"""How many files this process may have open, and how many connections that leaves."""

from __future__ import annotations

import logging
import resource

log = logging.getLogger(__name__)

SPARE_FILES = 512
"""Files that a node needs beside its connections: stores, containers, logs."""


def possible_connections(most: int) -> int:
    """*most* connections, or fewer when the system does not let a process have as many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    wanted = most + SPARE_FILES
    if soft != infinite and soft < wanted:
        soft = wanted if hard == infinite else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            log.info(
                "%d files may be open: %d connections at most, not FN_HTTP_MAX_CONNECTIONS=%d",
                soft, max(soft - SPARE_FILES, soft // 2), most,
            )  # fmt: skip
            return max(soft - SPARE_FILES, soft // 2)
    return most
