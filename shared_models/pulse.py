"""Whether background loops still turn: each says so in every round, and how long the next may take."""

from __future__ import annotations

import time


class Pulse:
    """Of one process; its loops ``beat``, its liveness probe asks for ``reason``."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, float]] = {}

    def beat(self, name: str, within: float) -> None:
        """The loop called *name* turns, and will say so again *within* so many seconds."""
        self._due[name] = time.monotonic() + within, within

    def end(self, name: str) -> None:
        """That loop has ended, and is not waited for."""
        self._due.pop(name, None)

    def reason(self) -> str:
        """Which loops stand still; "" when none does."""
        now = time.monotonic()
        late = [f"{name} for {within:g} s" for name, (due, within) in self._due.items() if due < now]
        return f"standing still: {', '.join(late)}" if late else ""
