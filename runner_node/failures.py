"""One line in the node's log for each call that failed, as long as there are not too many."""

from __future__ import annotations

import logging
from collections.abc import Callable

from shared_models.call import WITHOUT_RESULT, Call

log = logging.getLogger(__name__)

MOST = 20
"""Lines within ``SPAN`` seconds; the next one says how many calls were left out."""
SPAN = 10.0
LONGEST = 300
"""Characters of an error."""


class Failures:
    """Of one runner; *clock* in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._told = 0
        self._left_out = 0

    def tell(self, record: Call, function: str) -> None:
        """Of a call of *function* that ended as *record* says: a warning when the function had no chance."""
        now = self._clock()
        if now - self._since >= SPAN:
            self._since, self._told = now, 0
            if self._left_out:
                log.warning("%d more calls failed, which have no line of their own", self._left_out)
                self._left_out = 0
        if self._told >= MOST:
            self._left_out += 1
            return
        self._told += 1
        level = logging.WARNING if record.reason in WITHOUT_RESULT else logging.INFO
        log.log(
            level, "a call of %s failed: %s", function, record.error[:LONGEST],
            extra={
                "call_id": record.id, "reason": str(record.reason), "attempt": record.attempt,
                "app_id": record.app_id, "fn_id": record.fn_id or record.path,
            },
        )  # fmt: skip
