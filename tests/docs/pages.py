"""The pages of docs/ as what can be tried: commands in the order in which a reader meets them.

A fence marked ``sh`` is run. ``sh background`` is started, and goes on while the rest of its page runs, or
until ``sh anew``, which is as ``sh background`` after Ctrl-C for what went on. ``sh elsewhere`` needs what a
test cannot have, such as a cluster: see ``test_commands``. A fence marked ``text`` behind one of them is what
it prints, where ``...`` stands for anything. What a page takes for granted is in comments:
``<!-- sh ... -->``, and ``<!-- sh background until WORDS ... -->``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
RUN, BACKGROUND, ANEW, ELSEWHERE = KINDS = ("sh", "sh background", "sh anew", "sh elsewhere")

_GIVEN = re.compile(r"<!-- sh(?: background until (?P<until>.+))?\n(?P<text>[\s\S]*)-->")


@dataclass(frozen=True)
class Block:
    """Commands as they are written, from *line* of their page on; *prints* is empty where nothing is said."""

    line: int
    kind: str
    text: str
    prints: str


def pages() -> list[Path]:
    """All that a reader may meet."""
    return [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "examples").rglob("*.md")),
    ]


def blocks(page: Path) -> list[Block]:
    """The commands of *page*."""
    tokens = [
        token for token in MarkdownIt().parse(page.read_text()) if token.level == 0 or token.type == "fence"
    ]
    found = []
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "fence" and token.info.split(" ")[0] == "sh":
            prints = after.content if after and after.type == "fence" and after.info == "text" else ""
            found.append(Block(_line(token), token.info, token.content, prints))
        elif given := _GIVEN.fullmatch(token.content.strip()):
            prints = f"...{given['until']}..." if given["until"] else ""
            found.append(Block(_line(token), BACKGROUND if prints else RUN, given["text"], prints))
    return found


def indented(page: Path) -> list[tuple[int, str]]:
    """Code that is only indented, with its line: nobody runs it."""
    return [
        (_line(token), token.content)
        for token in MarkdownIt().parse(page.read_text())
        if token.type == "code_block"
    ]


def _line(token: Token) -> int:
    assert token.map
    return token.map[0] + 1
