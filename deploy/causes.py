"""What keeps a node from running, in one line for its operator."""

from __future__ import annotations

import errno
import os

from deploy.extensions import ExtensionFailed
from deploy.settings import Settings
from shared_models.errors import FnError
from shared_models.ports import PortUnavailable


def explain(exc: BaseException, settings: Settings) -> str:
    """One line for what kept a node from running: the cause, and the next step where there is one."""
    match exc:
        case PortUnavailable(errno=errno.EADDRINUSE):
            return f"port {exc.port} is taken: stop what listens there, or set {exc.variable}"
        case PortUnavailable(errno=errno.EACCES) if 0 < exc.port < 1024:
            return f"port {exc.port} is not allowed for this user: set {exc.variable} to 1024 or more"
        case PortUnavailable():
            return _no_such_host(exc, settings)
        case OSError(errno=errno.EADDRINUSE):
            return f"port {settings.http.port} is taken: stop what listens there, or set FN_PORT"
        case OSError(errno=errno.EACCES) if not exc.filename and 0 < settings.http.port < 1024:
            return f"port {settings.http.port} is not allowed for this user: set FN_PORT to 1024 or more"
        case OSError():
            where = f"{exc.filename}: " if exc.filename else ""
            return f"{where}{exc.strerror or exc}"
        case ExtensionFailed():
            return str(exc)
        case FnError():
            return exc.explained
        case ValueError():
            return str(exc)
    more = "" if settings.log.level == "debug" else " (FN_LOG_LEVEL=debug shows where)"
    return f"broke down: {type(exc).__name__}: {exc}{more}"


def first(exc: BaseException) -> BaseException:
    """The first error inside nested groups: task groups wrap whatever a node raises."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _no_such_host(exc: PortUnavailable, settings: Settings) -> str:
    http = settings.http
    admin = exc.variable == "FN_ADMIN_PORT" and http.admin_host
    name, host = ("FN_ADMIN_HOST", http.admin_host) if admin else ("FN_HOST", http.host)
    # asyncio puts the address into the text, with an article of its own; getaddrinfo's numbers are negative.
    why = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror
    return f"{name}={host}: {why}; it must be an address of this machine, such as 0.0.0.0 for all of them"
