"""Every error that a client can be told, each leaf with the exact words and status of Fn.

    FnError
    +-- Invalid 400            what was asked for breaks a rule
    +-- Unauthorized 401       no valid token or certificate
    +-- Forbidden 403          a valid one of somebody who may not do this
    +-- NotFound 404
    +-- LogNotAcceptable 406
    +-- Conflict 409           it exists already, or somebody else holds it
    +-- TooLarge 413
    +-- TooMany 429            a function has too much waiting, an app is called too often; knows when
    +-- BadFunction 502        the function's fault: its author must act
    +-- TimedOut 504
    +-- Unavailable 503        the one kind that a client may repeat; knows when

The words are a contract (api/models/error.go of Fn 0.3.484 and 0.3.753); what Fn does not know is
worded here. A function that fails is a result, not an exception: inside the agent these travel as
values in a call's outcome.
"""

# ruff: noqa: F403 -- all of each is the tree
from __future__ import annotations

from shared_models.errors.calls import *
from shared_models.errors.kinds import *
from shared_models.errors.nodes import *
from shared_models.errors.resources import *
from shared_models.errors.running import *
