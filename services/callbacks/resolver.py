"""From host names to addresses that a callback may be sent to.

The addresses that were judged are those that are connected to: nothing is resolved a second time, so a name
that changes its mind in between gains nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

from aiohttp.abc import AbstractResolver, ResolveResult

from services.callbacks.settings import CallbackSettings
from shared_models.destinations import permitted

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The IP addresses of a host and port; raises OSError."""


class AddressRefused(OSError):
    """A name leads only to addresses that may not be called."""


class GuardedResolver(AbstractResolver):
    """Resolves by *look_up*, and hands out only what *settings* permit."""

    def __init__(self, settings: CallbackSettings, look_up: LookUp) -> None:
        self._settings = settings
        self._look_up = look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._look_up(host, port)
        let_through = [one for one in found if permitted(host, one, self._settings.allow)]
        if found and not let_through:
            raise AddressRefused("its addresses are not public, and FN_CALLBACK_ALLOW does not name them")
        return [_result(host, one, port) for one in let_through]

    async def close(self) -> None:
        return None


def _result(host: str, address: str, port: int) -> ResolveResult:
    six = ipaddress.ip_address(address).version == 6
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if six else socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
    )


class ThreadLookUp:
    """Look-ups by the system (*ask*), each in a thread of its own, at most *most* at once.

    Not in the loop's threads: name servers of somebody else's choice may be slow, and the rest of the node
    needs those. A thread that still waits does not keep the process from ending.
    """

    def __init__(self, most: int, ask: Callable[[str, int], list[str]] | None = None) -> None:
        self._free = asyncio.Semaphore(most)
        self._ask = ask or _addresses

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str]] = loop.create_future()

        def tell(found: list[str], failed: OSError | None) -> None:
            # A look-up whose caller has left holds its place until it ends: threads stay bounded.
            self._free.release()
            if future.done():
                return
            if failed is not None:
                future.set_exception(failed)
            else:
                future.set_result(found)

        def work() -> None:
            found: list[str] = []
            failed: OSError | None = None
            try:
                found = self._ask(host, port)
            except (OSError, UnicodeError) as exc:
                failed = exc if isinstance(exc, OSError) else OSError(str(exc))
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(tell, found, failed)

        await self._free.acquire()
        try:
            threading.Thread(target=work, name="callback-look-up", daemon=True).start()
        except RuntimeError as exc:  # the system has no thread for it
            self._free.release()
            raise OSError(str(exc)) from exc
        return await future


def _addresses(host: str, port: int) -> list[str]:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))
