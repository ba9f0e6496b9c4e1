"""Every exception of the Redis driver is known here, so that a new one is noticed."""

from __future__ import annotations

import inspect

import pytest
from redis import exceptions

from services.queue.redis_errors import DRIVER_ERRORS, cause, is_dead_connection, unavailable
from shared_models.errors import QueueUnavailable

UNAVAILABLE = {
    "AskError": "it is a node of a cluster",
    "AuthenticationError": "it refuses the login",
    "AuthenticationWrongNumberOfArgsError": "it refuses the login",
    "AuthorizationError": "",
    "BusyLoadingError": "it is loading its data",
    "ClusterCrossSlotError": "",
    "ClusterDownError": "it is a node of a cluster that is down",
    "ClusterError": "",
    "ConnectionError": "",
    "CrossSlotTransactionError": "",
    "DataError": "",
    "ExecAbortError": "",
    "ExternalAuthProviderError": "",
    "InvalidPipelineStack": "",
    "InvalidResponse": "",
    "LockError": "",
    "LockNotOwnedError": "",
    "MasterDownError": "it is a replica that has lost its master",
    "MaxConnectionsError": "",
    "ModuleError": "",
    "MovedError": "it is a node of a cluster",
    "NoPermissionError": "the user lacks a right",
    "NoScriptError": "",
    "NoSuchFieldsetError": "",
    "OutOfMemoryError": "its memory is full",
    "PubSubError": "",
    "ReadOnlyError": "it is a replica, which takes no writes",
    "RedisClusterException": "",
    "RedisError": "",
    "ResponseError": "",
    "SlotNotCoveredError": "",
    "TimeoutError": "it did not answer in time",
    "TryAgainError": "",
    "WatchError": "",
}
"""What each is told as; an empty one in the words of the driver."""

NEVER_RAISED = {
    "ChildDeadlockedError": "by locks in the driver's threads",
    "IncorrectPolicyType": "by routing of the cluster client",
}


def driver_errors() -> dict[str, type[Exception]]:
    found = inspect.getmembers(exceptions, inspect.isclass)
    return {name: kind for name, kind in found if issubclass(kind, Exception)}


def made(kind: type[Exception], text: str) -> Exception:
    error = kind.__new__(kind)
    error.args = (text,)
    return error


def test_no_exception_of_the_driver_is_unknown() -> None:
    # A lower version of the driver that we allow may lack some.
    assert driver_errors().keys() <= UNAVAILABLE.keys() | NEVER_RAISED.keys()


@pytest.mark.parametrize(("name", "words"), UNAVAILABLE.items())
def test_each_is_told_with_its_cause(name: str, words: str) -> None:
    kind = driver_errors().get(name)
    if kind is None:
        return
    assert issubclass(kind, DRIVER_ERRORS)
    error = unavailable(made(kind, "the server's words"))
    assert isinstance(error, QueueUnavailable)
    assert words in error.detail
    assert "the server's words" in error.detail


@pytest.mark.parametrize("name", sorted(UNAVAILABLE))
def test_only_a_dead_connection_is_worth_another_try_at_once(name: str) -> None:
    kind = driver_errors().get(name)
    assert kind is None or is_dead_connection(made(kind, "")) is (name == "ConnectionError")


def test_timeouts_and_the_errors_of_sockets_are_driver_errors() -> None:
    for error in (TimeoutError(), ConnectionResetError(), OSError()):
        assert isinstance(error, DRIVER_ERRORS)
    assert cause(TimeoutError()) == "it did not answer in time"
    assert cause(OSError()) == "OSError"
    assert is_dead_connection(ConnectionResetError())
    assert not is_dead_connection(TimeoutError())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Error running script (call to f_1): @user_script:3: OOM command not allowed", "its memory is full"),
        ("MISCONF Redis is configured to save RDB snapshots", "it cannot write to its disk"),
        ("Error running script: @user_script: READONLY You can't write", "it is a replica"),
        ("NOPERM this user has no permissions", "the user lacks a right"),
    ],
)
def test_the_errors_of_scripts_are_told_by_their_word(text: str, words: str) -> None:
    assert cause(exceptions.ResponseError(text)).startswith(words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Error 111 connecting to 127.0.0.1:1. Connection refused.",
            "it refuses connections, is it running?",
        ),
        ("Error -2 connecting to nohost:6379. Name or service not known.", "its host is not known"),
    ],
)
def test_a_server_that_cannot_be_reached_is_told_with_a_next_step(text: str, words: str) -> None:
    assert cause(exceptions.ConnectionError(text)).startswith(words)


def test_what_was_sent_is_not_repeated() -> None:
    text = "unknown command 'AUTH', with args beginning with: 'me' 's3cret' "
    assert cause(exceptions.ResponseError(text)) == "unknown command 'AUTH'"


def test_a_cause_is_one_short_line() -> None:
    told = cause(exceptions.ResponseError("a\r\nb " + "c" * 1000))
    assert told.startswith("a b c")
    assert len(told) == 300
