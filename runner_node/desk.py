"""Handing results in to an API node: what it refuses, what it cannot read, and when it is away."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from collections.abc import Callable, Collection

import msgspec

from runner_node import metrics
from runner_node.results import Result
from shared_models import errors
from shared_models.call import Finished
from shared_models.interfaces import DataAccess

log = logging.getLogger(__name__)

REPEAT = 60.0
"""Seconds after which it is said again that no API node takes results."""
LONGEST_LOG = 1 << 20
"""Bytes of a log that are kept of a result which is too large for the API node."""

_REFUSED = (errors.Unauthorized, errors.RunnerRefused)


class Answer(enum.Enum):
    """To a batch out of the spool."""

    TAKEN = enum.auto()
    AWAY = enum.auto()
    UNREADABLE = enum.auto()
    """Something in it is wrong; the others may be good."""


class Desk:
    """Where results are handed in. *give_back* gets those that are to be tried again."""

    def __init__(self, data: DataAccess, give_back: Callable[[Result], None]) -> None:
        self._data = data
        self._give_back = give_back
        self._complained = -math.inf
        self.dropped = 0
        """Results that the API node cannot read."""

    async def hand_in(self, batch: list[Result]) -> bool:
        """Whether an API node has answered; then all of *batch* are settled, or were given back."""
        finished = [result.finished() for result in batch]
        try:
            refused = set(await self._data.finish(finished))
        except errors.Unavailable as exc:
            self._away(exc)
            return False
        except _REFUSED:
            # The client says which token is wrong; once it is right these are as good as ever.
            return False
        except errors.FnError as exc:
            await self._one_by_one(batch, finished, exc)
            return True
        except Exception:
            log.exception("handing in %d results failed, they are kept", len(batch))
            return False
        self._back()
        for result in batch:
            result.settle(taken=result.call.id not in refused)
        _tell_refused(refused)
        return True

    async def _one_by_one(
        self, batch: list[Result], finished: list[Finished], trouble: errors.FnError
    ) -> None:
        """The API node refuses the whole batch: what is wrong with one must not cost the others."""
        if len(batch) == 1:
            await self._cut(batch[0], finished[0], trouble)
            return
        for result, one in zip(batch, finished, strict=True):
            try:
                refused = await self._data.finish([one])
            except (errors.Unavailable, *_REFUSED):
                self._give_back(result)
            except errors.FnError as exc:
                await self._cut(result, one, exc)
            else:
                _tell_refused(refused)
                result.settle(taken=not refused)

    async def _cut(self, result: Result, one: Finished, trouble: errors.FnError) -> None:
        """A result that is refused by itself: with less of its log it may do, else it is lost."""
        if isinstance(trouble, errors.TooLarge) and (len(one.log) > LONGEST_LOG or one.body):
            shorter = _shortened(one)
            try:
                refused = await self._data.finish([shorter])
            except (errors.Unavailable, *_REFUSED):
                self._give_back(result)
                return
            except errors.FnError as exc:
                trouble = exc
            else:
                _tell_refused(refused)
                result.settle(taken=not refused)
                return
        log.error("call %s: its result was refused: %s (%s)", one.call.id, trouble, trouble.detail)
        self.dropped += 1
        metrics.results_dropped.inc()
        result.settle(taken=False)

    async def offer(self, finished: list[Finished]) -> Answer:
        """What an API node says to a batch that nobody waits for."""
        try:
            refused = await self._data.finish(finished)
        except (errors.Unavailable, *_REFUSED) as exc:
            if isinstance(exc, errors.Unavailable):
                self._away(exc)
            return Answer.AWAY
        except errors.FnError:
            return Answer.UNREADABLE
        self._back()
        _tell_refused(refused)
        return Answer.TAKEN

    def _away(self, reason: errors.FnError) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained >= REPEAT:
            self._complained = now
            log.warning("no API node takes results, they are kept: %s (%s)", reason, reason.detail)

    def _back(self) -> None:
        if self._complained > -math.inf:
            self._complained = -math.inf
            log.info("an API node takes results again")


def _shortened(one: Finished) -> Finished:
    if len(one.log) > LONGEST_LOG:
        note = b"\n-----the API node takes no log of %d bytes, the rest is lost-----\n" % len(one.log)
        one = msgspec.structs.replace(one, log=one.log[:LONGEST_LOG] + note)
    return msgspec.structs.replace(one, body=b"", truncated=bool(one.body) or one.truncated)


def _tell_refused(refused: Collection[str]) -> None:
    for call_id in refused:
        metrics.results_refused.inc()
        log.warning("call %s: its result was refused, the call has ended or is somebody else's", call_id)
