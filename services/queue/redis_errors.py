"""What can go wrong with a Redis server, in words for operators."""

from __future__ import annotations

import errno
import socket

from redis import exceptions

from shared_models.errors import QueueUnavailable

DRIVER_ERRORS = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
"""All that the driver raises for what we ask of it (a timeout is an OSError)."""

_BY_CLASS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.BusyLoadingError, "it is loading its data from disk"),
    (exceptions.OutOfMemoryError, "its memory is full (maxmemory)"),
    (exceptions.ReadOnlyError, "it is a replica, which takes no writes"),
    (exceptions.MasterDownError, "it is a replica that has lost its master"),
    (exceptions.NoPermissionError, "the user lacks a right that the queue needs"),
    (exceptions.AuthenticationError, "it refuses the login"),
    (exceptions.AuthenticationWrongNumberOfArgsError, "it refuses the login"),
    (exceptions.AskError, "it is a node of a cluster, and another node has the queue's keys"),
    (exceptions.ClusterDownError, "it is a node of a cluster that is down"),
    (exceptions.TimeoutError, "it did not answer in time"),
    (TimeoutError, "it did not answer in time"),
)
# Servers before 7 wrap the errors of scripts: the class is lost, the word is not.
_BY_WORD = (
    ("OOM ", "its memory is full (maxmemory)"),
    ("MISCONF", "it cannot write to its disk, and takes no writes"),
    ("READONLY", "it is a replica, which takes no writes"),
    ("NOPERM", "the user lacks a right that the queue needs"),
    # The driver wraps what the system says.
    (f"Error {errno.ECONNREFUSED} ", "it refuses connections, is it running?"),
    (f"Error {socket.EAI_NONAME} ", "its host is not known"),
)


def cause(exc: Exception) -> str:
    """One line without anything of what was sent, which may be a password or a payload."""
    # A server that does not know a command repeats its arguments.
    text = " ".join(str(exc).split(", with args", 1)[0].split())[:300]
    known = next((words for kind, words in _BY_CLASS if isinstance(exc, kind)), "")
    known = known or next((words for word, words in _BY_WORD if word in text), "")
    if known and text:
        return f"{known}: {text}"
    return known or text or type(exc).__name__


def unavailable(exc: Exception) -> QueueUnavailable:
    """The error for whoever asked, with its cause."""
    return QueueUnavailable(detail=cause(exc))


def is_dead_connection(exc: Exception) -> bool:
    """Whether only the connection is gone, so that a new one has a chance at once."""
    return type(exc) is exceptions.ConnectionError or isinstance(exc, ConnectionError)
