from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from runner_node.drivers.output import Output

FRAME = b"\x02\0\0\0\0\0\0\x05hello"
"""Five bytes of stderr, as an engine sends them."""


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_output_arrives_on_the_loop_of_nodes_and_on_that_of_tests(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(_received(FRAME)) == b"hello"


async def _received(data: bytes) -> bytes:
    ours, engine = socket.socketpair()
    seen = bytearray()
    output = Output(seen.extend)
    await asyncio.get_running_loop().create_unix_connection(lambda: output, sock=ours)
    with engine:
        engine.sendall(data)
    await asyncio.wait_for(output.closed.wait(), 60)
    output.close()
    return bytes(seen)
