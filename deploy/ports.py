"""What can be wrong with the ports of a node before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PORTS = ("FN_PORT", "FN_ADMIN_PORT", "FN_RUNNER_API_PORT")


def of_services(environ: Mapping[str, str]) -> list[str]:
    """A problem for each variable that Kubernetes has set: to the address of a service that is called so."""
    services = {name: name.removesuffix("_PORT").lower().replace("_", "-") for name in PORTS}
    return [
        f"{name} comes from a Kubernetes service called {service}: set enableServiceLinks: false in the pod, "
        "or give the service another name"
        for name, service in services.items()
        if environ.get(name, "").startswith("tcp://")
    ]


def taken_twice(values: Mapping[str, Any]) -> list[str]:
    """Ports that two variables of *values* name."""
    taken: dict[int, str] = {}
    problems = []
    for name in PORTS:
        port = values.get(name)
        if port and port in taken:
            problems.append(f"{name}={port}: is {taken[port]}, too; each needs a port of its own")
        elif port:
            taken[port] = name
    return problems
