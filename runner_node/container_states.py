"""The states of a container, and the whole truth about which may follow which."""

from __future__ import annotations

import enum


class State(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    FREEZING = "freezing"
    FROZEN = "frozen"
    UNFREEZING = "unfreezing"
    GONE = "gone"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.IDLE, State.GONE}),
    State.IDLE: frozenset({State.BUSY, State.FREEZING, State.GONE}),
    State.BUSY: frozenset({State.IDLE, State.GONE}),
    State.FREEZING: frozenset({State.FROZEN, State.GONE}),
    State.FROZEN: frozenset({State.UNFREEZING, State.GONE}),
    State.UNFREEZING: frozenset({State.BUSY, State.GONE}),
    State.GONE: frozenset(),
}
