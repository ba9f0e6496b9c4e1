"""Output of an attached container, cut anywhere."""

from __future__ import annotations

import pytest

from runner_node.drivers.frames import Frames


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


STREAM = frame(1, b"out\n") + frame(2, b"") + frame(2, b"err" * 100) + frame(1, b"\x01\x00\x00\x00")
OUTPUT = b"out\n" + b"err" * 100 + b"\x01\x00\x00\x00"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 13, 1000])
def test_pieces_of_any_size_give_the_same_output(size: int) -> None:
    frames = Frames()
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert b"".join(out for piece in pieces for _, out in frames.feed(piece)) == OUTPUT


def test_a_cut_at_every_byte_gives_the_same_output() -> None:
    for cut in range(len(STREAM) + 1):
        frames = Frames()
        out = [*frames.feed(STREAM[:cut]), *frames.feed(STREAM[cut:])]
        assert b"".join(piece for _, piece in out) == OUTPUT
        assert b"".join(piece for stream, piece in out if stream == 2) == b"err" * 100
