"""No log store at all: calls run, and nothing is known of them afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from shared_models.call import Call, Finished, LeasedCall, LeaseKey, Status
from shared_models.errors import CallsNotKept
from shared_models.interfaces import CallFilter, KeptResult, LogStore, Purge


class NoLogStore(LogStore):
    """Accepts what it is told and keeps nothing: leases alone say who may run a call.

    Reading and removing raise CallsNotKept. Only the look for calls in flight, of which it never knows
    any, is answered: with nothing.
    """

    keeps = False

    async def insert_call(self, call: Call) -> bool:
        return True

    async def remove_call(self, call_id: str) -> None:
        return None

    async def claim(self, leased: Sequence[LeasedCall], node: str) -> list[str]:
        return []

    async def unclaim(self, keys: Sequence[LeaseKey], *, counted: bool = False, log: bytes = b"") -> None:
        return None

    async def start_call(self, key: LeaseKey, started_at: str) -> None:
        return None

    async def finish_calls(self, batch: Sequence[Finished]) -> list[str]:
        return []

    async def call(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> Call:
        raise CallsNotKept

    async def calls(self, page: CallFilter) -> list[Call]:
        if page.status in (Status.QUEUED, Status.RUNNING) and not page.fn_id and not page.app_id:
            return []
        raise CallsNotKept

    async def log(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> AsyncIterator[bytes]:
        raise CallsNotKept

    async def result(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> KeptResult:
        raise CallsNotKept

    async def unqueued(self, older_than: str, limit: int) -> list[str]:
        return []

    async def remove_calls(self, purge: Purge, limit: int) -> int:
        raise CallsNotKept

    async def expire_calls(self, older_than: str, limit: int) -> int:
        return 0

    async def expire_logs(self, older_than: str, limit: int) -> int:
        return 0
