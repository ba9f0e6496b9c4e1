"""The names of objects. Those of calls, logs and markers by path are Fn's (0.3.484); ids in them are
mirrored, so that ascending keys are newest first.

    c/APP/MIRRORED                the record of a call
    l/APP/ID                      its log
    l/APP/ID.N                    what its attempt N wrote, if it was repeated; this is not Fn's
    l/APP/ID.N.result             what its attempt N answered, if that is kept; neither is this
    m/APP/PATH/MIRRORED           empty: a call of a route; the path in base64url without padding
    f/FUNCTION/MIRRORED/APP       empty: a call of a function
    q/ID                          the record of a call that has not ended: what is decided, is decided here
"""

from __future__ import annotations

import base64

from services.logstore import attempts
from shared_models.call import Call, CallType
from shared_models.ids import descending


def record(app_id: str, call_id: str) -> str:
    """Where the record of a call is."""
    return f"c/{app_id}/{descending(call_id)}"


def log(app_id: str, call_id: str, attempt: int = 0) -> str:
    """Where its log is, or that of an *attempt* that was repeated."""
    return f"l/{app_id}/{call_id}.{attempt}" if attempt else f"l/{app_id}/{call_id}"


def result(call: Call, attempt: int) -> str:
    """Where the answer to an *attempt* is that is kept."""
    return f"{log(call.app_id, call.id, attempt)}.result"


def attempts_of(call: Call) -> range:
    """Attempts at a call that has ended which may have logs of their own."""
    return range(1, min(call.attempt, attempts.MOST) + 1)


def live(call_id: str) -> str:
    """Where its record is until it has ended."""
    return f"q/{call_id}"


def markers(call: Call) -> list[str]:
    """Empty objects by which it is found."""
    found = []
    if call.path:
        found.append(of_path(call.app_id, call.path) + descending(call.id))
    if call.fn_id:
        found.append(f"{of_fn(call.fn_id)}{descending(call.id)}/{call.app_id}")
    return found


def of(call: Call) -> list[str]:
    """All of a call that has ended; its record last, by which it is found again."""
    logs = [log(call.app_id, call.id, number) for number in (0, *attempts_of(call))]
    queued = call.type != CallType.SYNC
    results = [result(call, number) for number in attempts_of(call)] if queued else []
    return [*logs, *results, *markers(call), record(call.app_id, call.id)]


def of_app(app_id: str) -> str:
    """What the records of an app begin with."""
    return f"c/{app_id}/"


def of_path(app_id: str, path: str) -> str:
    """What the markers of a route's calls begin with."""
    return f"m/{app_id}/{base64.urlsafe_b64encode(path.encode()).rstrip(b'=').decode()}/"


def of_fn(fn_id: str) -> str:
    """What the markers of a function's calls begin with."""
    return f"f/{fn_id}/"


def call_of(key: str, app_id: str) -> tuple[str, str]:
    """App and id of the call that a record or marker stands for; *app_id* where the key has none."""
    parts = key.split("/")
    if parts[0] == "f":
        return parts[3], descending(parts[2])
    return app_id, descending(parts[-1])
