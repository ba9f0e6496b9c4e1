"""What one container writes, and what it uses, kept apart by the calls that it serves."""

from __future__ import annotations

from runner_node.func_logs import CallLog
from runner_node.stats import decimated
from shared_models.call import Stat

CHATTY = 16
"""Calls for which a container that is new, or wrote something, is expected to write more."""


class Notes:
    """Of one container; *max_log_size* in bytes is for what it writes before its first call."""

    def __init__(self, max_log_size: int) -> None:
        self._log = CallLog(max_log_size)
        self._new = True
        self._chatty = CHATTY
        self.served = False
        """It has served a call."""
        self.samples: list[Stat] = []

    def begin(self, call_log: CallLog) -> None:
        """What is written from now on belongs to *call_log*."""
        early, self._log = self._log, call_log
        self.samples = []
        if self._new:
            # What the function said while it started is most useful with its first call.
            call_log.write(early.close())
            self._new = False

    def write(self, data: bytes) -> bool:
        """Whether there is a call that *data* belongs to."""
        self._chatty = CHATTY
        if self._log.closed:
            return False
        self._log.write(data)
        return True

    def close(self) -> bytes:
        """What was written so far, when there will be no call."""
        return self._log.close()

    def rest(self) -> None:
        """The call has ended."""
        self.served = not self._new
        self._chatty = max(self._chatty - 1, 0)

    @property
    def chatty(self) -> bool:
        """Whether it wrote something lately, so that more may be on its way."""
        return self._chatty > 0

    def stats(self) -> list[Stat]:
        """What was sampled during the call, thinned out."""
        return decimated(self.samples) if self.samples else []
