from __future__ import annotations

from pathlib import Path

from deploy import errors_page
from shared_models import errors

PAGE = Path(__file__).parents[3] / "docs" / "errors.md"


def test_the_page_of_errors_is_fresh() -> None:
    """When this fails: make docs."""
    assert PAGE.read_text() == errors_page.markdown()


def test_the_page_has_the_words_of_every_error_that_the_tree_exports() -> None:
    exported = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FnError) and not kind.__subclasses__()
    }
    assert exported
    assert exported <= set(errors_page.leaves())
    text = errors_page.markdown()
    assert all(errors_page.message(kind) in text for kind in exported)


def test_each_error_says_what_to_do_and_all_but_broken_rules_say_it_for_themselves() -> None:
    for kind in errors_page.leaves():
        said = errors_page.advice(kind)
        assert said.endswith((".", ":", ")")), kind
        assert "|" not in said, kind
        if not issubclass(kind, errors.Invalid | errors.Conflict):
            assert kind in errors_page.ADVICE, kind
