"""A gigabyte in and a gigabyte out: what that costs a node in memory."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import aiohttp
import pytest

from tests.integration.streaming import make_image
from tests.system.nodes import Node, ask, cluster

pytestmark = pytest.mark.system

MIB = 1 << 20
GIB = 1 << 30
GROWTH = 5 * MIB
WARM = 16 * MIB
LIMIT = 120


def most_memory(node: Node) -> int:
    """Bytes that the node has had in memory at most."""
    lines = Path(f"/proc/{node.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def send(node: Node, fn_id: str, size: int, framing: str) -> int:
    """Sends *size* bytes as a body; the number of bytes that the function says it got. Blocks."""
    chunked = framing == "chunked"
    announced = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    piece = bytes(MIB)
    data = b"%x\r\n%b\r\n" % (MIB, piece) if chunked else piece
    with socket.create_connection(("127.0.0.1", node.port), LIMIT) as link:
        link.sendall(f"POST /invoke/{fn_id} HTTP/1.1\r\nHost: x\r\n{announced}\r\n\r\n".encode())
        for _ in range(size // MIB):
            link.sendall(data)
        if chunked:
            link.sendall(b"0\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            more = link.recv(MIB)
            assert more, answer
            answer += more
    return int(json.loads(answer.rpartition(b"\r\n\r\n")[2])["size"])


def receive(node: Node, fn_id: str, size: int, framing: str) -> int:
    """Has the function answer *size* bytes; the number of bytes that came. Blocks."""
    order = json.dumps({"size": size, "announce": None if framing == "chunked" else size})
    head = f"POST /invoke/{fn_id} HTTP/1.0\r\nHost: x\r\nOrder: {order}\r\nContent-Length: 0\r\n\r\n"
    room, came, start = bytearray(MIB), 0, b""
    with socket.create_connection(("127.0.0.1", node.port), LIMIT) as link:
        link.sendall(head.encode())
        while b"\r\n\r\n" not in start:
            start += link.recv(4096)
        came = len(start) - start.index(b"\r\n\r\n") - 4
        while more := link.recv_into(room):
            came += more
    return came


@pytest.mark.parametrize("framing", ["announced", "chunked"])
async def test_a_gigabyte_in_and_out_does_not_grow_the_node(tmp_path: Path, framing: str) -> None:
    make_image(tmp_path / "images")
    environ = {
        "FN_DRIVER": "process", "FN_PROCESS_IMAGES": str(tmp_path / "images"),
        "FN_MAX_REQUEST_SIZE": "0", "FN_MAX_RESPONSE_SIZE": "0",
    }  # fmt: skip
    async with cluster(tmp_path, environ) as nodes, aiohttp.ClientSession() as http:
        runner = nodes.runner("runner")
        await runner.start()
        app = await ask(http, "POST", f"{nodes.api.url}/v2/apps", json={"name": "sys"})
        body = {"name": "f", "app_id": app["id"], "image": "f", "timeout": LIMIT}
        fn_id = str((await ask(http, "POST", f"{nodes.api.url}/v2/fns", json=body))["id"])
        for way in (send, receive):
            assert await asyncio.to_thread(way, runner, fn_id, WARM, framing) == WARM
        before = most_memory(runner)
        for way in (send, receive):
            assert await asyncio.to_thread(way, runner, fn_id, GIB, framing) == GIB
        assert most_memory(runner) - before < GROWTH, nodes.logs()
