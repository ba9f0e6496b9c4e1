"""Every command of the documentation does what its page says."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from deploy.command_line import parser
from tests.docs.pages import ANEW, BACKGROUND, ELSEWHERE, KINDS, ROOT, RUN, blocks, indented, pages
from tests.docs.shell import open_shell

pytestmark = pytest.mark.system

_COMMAND = re.compile(
    r"^\s*(\$ |[A-Z_]+=\S* |make |curl |fn |fn-node |\.venv/|kubectl |docker |git |pip |python)", re.M
)
WITH_COMMANDS = [page for page in pages() if blocks(page)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=name)
def test_no_command_is_hidden_from_these_tests(page: Path) -> None:
    hidden = [(line, text) for line, text in indented(page) if _COMMAND.search(text)]
    assert not hidden
    assert {block.kind for block in blocks(page)} <= set(KINDS)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name)
async def test_the_commands_of_a_page_work_in_their_order(page: Path, tmp_path: Path) -> None:
    async with open_shell(tmp_path) as shell:
        for block in blocks(page):
            if block.kind == RUN:
                await shell.run(block)
            elif block.kind in (BACKGROUND, ANEW):
                if block.kind == ANEW:
                    await shell.interrupt()
                assert block.prints, f"line {block.line}: what does it print when it is ready?"
                await shell.start(block)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name)
def test_what_cannot_be_run_here_names_only_what_there_is(page: Path) -> None:
    for block in blocks(page):
        for line in block.text.splitlines() if block.kind == ELSEWHERE else []:
            assert _is_there(line), f"line {block.line}: {line}"


def _is_there(command: str) -> bool:
    """Whether a command for a cluster, an engine or a developer has what it names in this project."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    match words:
        case ["make", *targets]:
            made = (ROOT / "Makefile").read_text()
            return all(re.search(rf"^{target}:", made, re.M) for target in targets if "=" not in target)
        case ["kubectl", *arguments]:
            folders = [
                after for before, after in itertools.pairwise(arguments) if before in ("-k", "kustomize")
            ]
            return all((ROOT / folder / "kustomization.yaml").exists() for folder in folders)
        case ["docker", "compose", *_]:
            return (ROOT / "docker-compose.yml").exists()
        case ["fn-node", *arguments]:
            # Ends with an error for what it does not know.
            return bool(parser().parse_args(arguments).command)
        case ["fn" | "docker" | "git", *_]:
            return True
    return not words
