"""The annotation of pulls: what it means, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from shared_models import image_policy
from shared_models.app import App
from shared_models.errors import Invalid
from shared_models.fn import Fn
from shared_models.image_policy import ALWAYS, MISSING, PULL


def notes(value: object) -> dict[str, msgspec.Raw]:
    return {PULL: msgspec.Raw(msgspec.json.encode(value))}


def test_an_app_and_a_function_may_say_when_images_are_pulled() -> None:
    App(name="shop", annotations=notes("never")).check()
    Fn(
        name="f", app_id="a", image="i", memory=1, timeout=1, idle_timeout=1, annotations=notes("always")
    ).check()
    assert image_policy.pull(notes("always")) == ALWAYS
    assert image_policy.pull({}) == MISSING


@pytest.mark.parametrize("value", ["IfNotPresent", "", 1, True])
def test_any_other_word_is_refused_where_it_is_set(value: object) -> None:
    with pytest.raises(Invalid):
        App(name="shop", annotations=notes(value)).check()
