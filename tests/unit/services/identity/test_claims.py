"""From claims to a principal: only words that are a role or an app are one."""

from __future__ import annotations

from typing import Any

import pytest

from services.identity.claims import principal_of
from services.identity.settings import IdentitySettings
from shared_models.access import Role
from shared_models.errors import Forbidden

SETTINGS = IdentitySettings(apps_claim="apps")


@pytest.mark.parametrize("role", ["admins", "administrator", "Admin", "admin2", "not-admin", ["admin:shop"]])
def test_what_only_looks_like_a_role_is_none(role: Any) -> None:
    with pytest.raises(Forbidden, match="names no role"):
        principal_of({"sub": "ann", "fn_role": role}, SETTINGS)


@pytest.mark.parametrize("apps", ["shop-*", "*shop", "**", ["shop*"], [["*"]], [{"*": 1}], [None]])
def test_a_star_within_a_name_or_a_list_is_not_all_apps(apps: Any) -> None:
    found = principal_of({"sub": "ann", "fn_role": "viewer", "apps": apps}, SETTINGS)
    assert found.apps is not None
    assert not found.has_every_app


@pytest.mark.parametrize("apps", [[None], [1], [True], [["shop"]], 1, True, None, {"shop": True}])
def test_what_is_no_text_is_no_app(apps: Any) -> None:
    found = principal_of({"sub": "ann", "fn_role": "viewer", "apps": apps}, SETTINGS)
    assert found.apps == frozenset()


def test_a_subject_cannot_forge_a_line_of_the_log() -> None:
    found = principal_of(
        {"sub": "ann\r\nroot (admin)\x1b[0m\u202e" + "x" * 500, "fn_role": "viewer"}, SETTINGS
    )
    assert found.name.startswith("ann??root (admin)?[0m?x")
    assert len(found.name) == 128
    assert found.role == Role.VIEWER
