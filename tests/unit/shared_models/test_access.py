"""Who may do what: every role, every action, apps that are theirs and apps that are not."""

from __future__ import annotations

import itertools

import pytest

from shared_models.access import ANYBODY, Action, Principal, Role, may, refuse
from shared_models.errors import Forbidden

MATRIX = {
    Role.ADMIN: {Action.READ, Action.CHANGE, Action.INVOKE, Action.OPERATE},
    Role.DEVELOPER: {Action.READ, Action.CHANGE, Action.INVOKE},
    Role.VIEWER: {Action.READ},
    Role.INVOKER: {Action.INVOKE},
}
ALL = list(itertools.product(Role, Action))


def who(role: Role, *apps: str) -> Principal:
    return Principal(name="ann", role=role, apps=frozenset(apps))


def everywhere(role: Role) -> Principal:
    return Principal(name="ann", role=role, apps=None)


def test_the_matrix_names_every_role() -> None:
    assert set(MATRIX) == set(Role)


@pytest.mark.parametrize(("role", "action"), ALL)
def test_a_role_for_all_apps_may_do_what_the_matrix_says(role: Role, action: Action) -> None:
    assert may(everywhere(role), action, "shop") == (action in MATRIX[role])
    assert may(everywhere(role), action, None) == (action in MATRIX[role])


@pytest.mark.parametrize(("role", "action"), ALL)
def test_a_role_for_one_app_may_do_it_to_this_app_alone(role: Role, action: Action) -> None:
    one = who(role, "shop")
    allowed = action in MATRIX[role]
    assert may(one, action, "shop") == allowed
    others = allowed and role == Role.ADMIN
    assert may(one, action, "bank") == others
    assert may(one, action, "") == others
    assert may(one, action, None) == others


def test_a_role_for_no_app_may_do_nothing() -> None:
    for role, action in ALL:
        if role != Role.ADMIN:
            assert not may(who(role), action, "shop")


@pytest.mark.parametrize("name", ["shopping", "sho", "Shop", "shop ", " shop", "s", "*"])
def test_a_name_that_is_nearly_that_of_their_app_is_not_theirs(name: str) -> None:
    for role, action in ALL:
        if role != Role.ADMIN:
            assert not may(who(role, "shop"), action, name), (role, action)


def test_whoever_has_an_app_without_a_name_has_none() -> None:
    """An issuer may give one: it is no right to what belongs to no app any more."""
    for role, action in ALL:
        if role != Role.ADMIN:
            assert not may(who(role, ""), action, ""), (role, action)


def test_anybody_may_do_everything() -> None:
    assert all(may(ANYBODY, action, name) for action in Action for name in ("shop", None))


def test_a_refusal_names_the_role_that_is_needed() -> None:
    with pytest.raises(Forbidden, match="needs the role developer, and ann has the role viewer"):
        refuse(everywhere(Role.VIEWER), Action.CHANGE, "shop")
    with pytest.raises(Forbidden, match="needs the role viewer for this app"):
        refuse(who(Role.VIEWER, "shop"), Action.READ, "bank")
    with pytest.raises(Forbidden, match="needs the role viewer for all apps"):
        refuse(who(Role.VIEWER, "shop"), Action.READ, None)


def test_a_refusal_is_the_same_for_an_app_of_others_and_for_none() -> None:
    texts = []
    for name in ("bank", ""):
        with pytest.raises(Forbidden) as caught:
            refuse(who(Role.DEVELOPER, "shop"), Action.CHANGE, name)
        texts.append(caught.value.message)
    assert texts[0] == texts[1]
    assert "bank" not in texts[0]
