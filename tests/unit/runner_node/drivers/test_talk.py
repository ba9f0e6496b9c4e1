"""What a function says, held back and let go."""

from __future__ import annotations

from runner_node.drivers.talk import Talk


def test_pieces_pass_in_order_and_the_end_is_told_once() -> None:
    said: list[bytes] = []
    talk = Talk(said.append)
    for piece in (b"a", b"", b"b"):
        talk.feed(piece)
    talk.end()
    talk.feed(b"too late")
    talk.end()
    talk.close()
    assert said == [b"a", b"b", b""]


def test_while_it_is_paused_nothing_is_told_and_the_end_neither() -> None:
    said: list[bytes] = []
    talk = Talk(said.append)
    talk.pause()
    talk.feed(b"abc")
    talk.end()
    assert (said, talk.held) == ([], 3)
    talk.resume()
    assert (said, talk.held) == ([b"abc", b""], 0)


def test_who_hears_may_pause_in_the_middle() -> None:
    said: list[bytes] = []

    def hear(piece: bytes) -> None:
        said.append(piece)
        talk.pause()

    talk = Talk(hear)
    for piece in (b"a", b"b"):
        talk.feed(piece)
    talk.end()
    assert said == [b"a"]
    talk.resume()
    assert said == [b"a", b"b"]
    talk.resume()
    assert said == [b"a", b"b", b""]


def test_closing_drops_what_is_held_back_and_tells_the_end() -> None:
    said: list[bytes] = []
    talk = Talk(said.append)
    talk.pause()
    talk.feed(b"never heard")
    talk.close()
    assert (said, talk.held) == ([b""], 0)


def test_without_anybody_to_hear_it_nothing_is_kept() -> None:
    talk = Talk(None)
    talk.pause()
    talk.feed(b"x")
    talk.end()
    assert talk.held == 0
