"""Variables that an operator has set and that no node of this project reads."""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Mapping

NOT_BUILT = {
    "FN_ASYNC_CHEW_POLL_MSECS": "a new message wakes the waiting runner, nothing polls",
    "FN_CALL_END_TIMEOUT_MSECS": "finished calls go out in batches, behind the response",
    "FN_DISABLE_DEBUG_USER_LOGS": "logs of functions never go to the node's own log",
    "FN_DISABLE_TINI": "containers always run with an init process",
    "FN_DOCKER_LOAD_FILE": "load images with the engine's own tool",
    "FN_ENABLE_NB_RESOURCE_TRACKER": "calls wait for room",
    "FN_GRPC_PORT": "runner nodes speak HTTP on FN_PORT",
    "FN_HOT_LAUNCHER_TIMEOUT_MSECS": "there is no launcher that could time out",
    "FN_HOT_POLL_MSECS": "the scheduler does not poll",
    "FN_IMAGE_ENABLE_VOLUME": "images with a VOLUME are refused",
    "FN_IOFS_OPTS": "socket folders are plain folders",
    "FN_IOFS_TMPFS": "socket folders are plain folders",
    "FN_JAEGER_URL": "traces go out over OTLP: set FN_OTLP_URL",
    "FN_LOG_DEST": "logs go to stderr",
    "FN_LOG_PREFIX": "logs have no prefix",
    "FN_MAX_CALL_END_STACKING": "finished calls go out in batches, behind the response",
    "FN_PLACER": "clients reach runner nodes through any HTTP load balancer",
    "FN_PROCESS_COLLECTOR_LIST": "only the node's own process is measured",
    "FN_RUNNER_ADDRESSES": "runner nodes announce themselves to the API node",
    "FN_ZIPKIN_URL": "traces go out over OTLP: set FN_OTLP_URL",
}
"""Variables of Fn's servers that have no effect here, and what holds instead."""

_PREFORK = "networks are prepared as FN_PREFORK_POOL_SIZE says"
_FOR_TESTS = "FN_TEST_"
_OF_THE_COMMAND = "FN_TOKEN"
"""Of the ``fn`` command, which may be run where nodes are."""
_KUBERNETES = re.compile(r"\w+_SERVICE_(HOST|PORT\w*)|\w+_PORT_\d+_(TCP|UDP)\w*")


def strange(environ: Mapping[str, str], own: Container[str]) -> list[str]:
    """Names that look like settings and are not among a node's *own*, sorted."""
    return sorted(
        name
        for name, value in environ.items()
        if name.startswith("FN_") and name not in own and value and not _of_others(name, value)
    )


def _of_others(name: str, value: str) -> bool:
    # Kubernetes gives every container the addresses of its services: FN_API_SERVICE_HOST for "fn-api".
    if name == _OF_THE_COMMAND or name.startswith(_FOR_TESTS):
        return True
    return bool(_KUBERNETES.fullmatch(name)) or value.startswith("tcp://")


def hint(name: str, known: Iterable[str]) -> str:
    """What to tell of *name*: what holds instead in this project, or the nearest *known* name."""
    if name in NOT_BUILT or name.startswith("FN_EXPERIMENTAL_PREFORK_"):
        return f"{name} has no effect: {NOT_BUILT.get(name, _PREFORK)}"
    nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return f"{name} is not known" + (f": did you mean {nearest[0]}?" if nearest else " and has no effect")
