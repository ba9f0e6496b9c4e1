"""Finished calls in memory, in the order in which they ended, and how much of it they take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from runner_node.func_logs import CallLog
from runner_node.records import NOTHING, Said
from shared_models.call import Call, CallType, Finished

LARGEST_BATCH = 16 << 20
"""Bytes that are handed in at once, about."""
_RECORD = 1024
"""Bytes that a record is taken for."""

Stored = Callable[[bool], None]


class Result(msgspec.Struct):
    """A finished call whose log may still be filling. *stored* is told whether it was taken or refused."""

    call: Call
    log: CallLog
    token: str = ""
    stored: Stored | None = None
    answer: Said = NOTHING
    size: int = 0

    @classmethod
    def again(cls, one: Finished, stored: Stored | None) -> Result:
        """A result out of the spool."""
        answer = Said(one.body, one.content_type, one.truncated, one.answered)
        result = cls(one.call, CallLog(0), one.token, stored, answer)
        result.log.write(one.log)
        return result

    @property
    def queued(self) -> bool:
        """Whether the call came out of the queue, so that its result must not be lost."""
        return bool(self.token) or self.call.type != CallType.SYNC

    def finished(self) -> Finished:
        """As it is handed in; its log takes no more."""
        answer = self.answer
        return Finished(
            call=self.call, log=self.log.close(), token=self.token, body=answer.body,
            content_type=answer.content_type, truncated=answer.truncated, answered=answer.answered,
        )  # fmt: skip

    def settle(self, *, taken: bool) -> None:
        """Tells whoever waits for it."""
        if self.stored:
            self.stored(taken)


class Results:
    """First in, first out. ``size`` is in bytes, about: a log may grow until it is handed in."""

    def __init__(self) -> None:
        self._results: deque[Result] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self._results)

    def add(self, result: Result) -> None:
        """Behind all others."""
        self._enter(result)
        self._results.append(result)

    def put_back(self, results: list[Result]) -> None:
        """Before all others."""
        for result in results:
            self._enter(result)
        self._results.extendleft(reversed(results))

    def next(self, most: int) -> list[Result]:
        """At most *most* of the oldest, taken out, and not many bytes of them."""
        taken: list[Result] = []
        left = LARGEST_BATCH
        while self._results and len(taken) < most and left > 0:
            taken.append(self._leave(self._results.popleft()))
            left -= taken[-1].size
        return taken

    def lose(self, too_many: Callable[[], bool]) -> list[Result]:
        """Takes out, while there are *too_many*, sync calls' oldest and then queued calls' newest."""
        lost: list[Result] = []
        for _ in range(len(self._results)):
            if self._results[0].queued or not too_many():
                self._results.rotate(-1)  # all the way round, so that the order stays
            else:
                lost.append(self._leave(self._results.popleft()))
        while too_many() and self._results:
            lost.append(self._leave(self._results.pop()))
        return lost

    def _leave(self, result: Result) -> Result:
        self.size -= result.size
        return result

    def _enter(self, result: Result) -> None:
        result.size = _RECORD + result.log.size + len(result.answer.body) + len(result.call.payload)
        self.size += result.size
