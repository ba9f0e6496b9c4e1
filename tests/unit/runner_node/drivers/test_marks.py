"""Marks in a container's output, cut anywhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runner_node.drivers import marks
from runner_node.drivers.marks import STDERR, STDOUT, Marks

MARK, OTHER = b"\0fn-mark:aa\0", b"\0fn-mark:ab\0"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11, 100])
def test_a_mark_is_taken_out_wherever_it_is_cut(size):
    found = Marks()
    found.expect(MARK)
    data = b"before" + MARK + b"\0fn-mark:after"
    out = b"".join(found.feed(STDERR, data[at : at + size]) for at in range(0, len(data), size))
    assert out == b"before\0fn-mark:after"
    assert found.missing(MARK)  # it has yet to come in the other stream
    found.feed(STDOUT, MARK)
    assert not found.missing(MARK)


def test_two_marks_may_be_on_their_way():
    found = Marks()
    found.expect(MARK)
    found.expect(OTHER)
    for stream in (STDOUT, STDERR):
        assert found.feed(stream, b"a" + MARK + b"b" + OTHER[:4]) == b"ab"
        assert found.feed(stream, OTHER[4:] + b"c") == b"c"
    assert not found.missing(MARK)
    assert not found.missing(OTHER)


def test_what_only_looks_like_a_mark_passes():
    found = Marks()
    found.expect(MARK)
    assert found.feed(STDOUT, b"x\0fn-") == b"x"
    assert found.feed(STDOUT, b"mark:zz.") == b"\0fn-mark:zz."
    assert found.feed(STDOUT, b"\0") == b""
    found.forget(MARK, STDOUT)
    assert found.feed(STDOUT, b"y") == b"\0y"


def test_without_an_expected_mark_nothing_is_held_back():
    assert Marks().feed(STDOUT, b"x\0fn-mark") == b"x\0fn-mark"


def test_a_mark_that_was_not_written_is_not_waited_for():
    found = Marks()
    found.expect(MARK)
    found.forget(MARK, STDOUT)
    assert not found.missing(MARK)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_mark_comes_behind_what_a_process_has_written():
    code = "import os, sys; os.write(1, b'line\\n'); os.write(2, b'err\\n'); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdin
        out = os.read(process.stdout.fileno(), 5)
        assert os.read(process.stderr.fileno(), 4) == b"err\n"
        assert marks.write(process.pid, STDOUT, MARK)
        assert marks.write(process.pid, STDERR, MARK)
        process.stdin.close()
        assert out + process.stdout.read() == b"line\n" + MARK
        assert process.stderr.read() == MARK
    assert not marks.write(process.pid, STDOUT, MARK)


def test_a_process_of_another_container_is_not_marked():
    assert not marks.reachable(os.getpid(), "0" * 64)
    assert not marks.reachable(2**22 + 1, "0" * 64)
