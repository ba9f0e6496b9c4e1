"""When a callback is tried again, and when it is given up."""

from __future__ import annotations

import random

from services.callbacks.posting import Answer, Outcome
from services.callbacks.settings import CallbackSettings

REFUSALS = 8
"""Tries of a callback that is always refused (3xx, 4xx, a private address): some ten minutes, in which
whoever deploys the receiver can put it right."""


def last_straw(tries: int, age: float, answer: Answer, settings: CallbackSettings) -> str:
    """Why there is no try after *tries* of them, in words for the log; empty when there is.

    *age* in seconds. One that is too old has had at least one try.
    """
    if answer.outcome is Outcome.GONE:
        return "as the receiver asks"
    if answer.outcome is Outcome.REFUSED and tries >= REFUSALS:
        return "as it is refused each time"
    if age > settings.max_age:
        return "as it is too old"
    return ""


def pause(tries: int, answer: Answer, settings: CallbackSettings) -> float:
    """Seconds until the next try: doubling, a quarter of it at random; the receiver may ask for more.

    Never longer than ``settings.max_pause``.
    """
    doubled = min(settings.max_pause, settings.first_pause * 2.0 ** min(tries - 1, 60))
    return max(doubled * random.uniform(0.75, 1.0), min(answer.retry_after, settings.max_pause))
