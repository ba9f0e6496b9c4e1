"""Names of apps that lead out of their folder: there is a file where each of them would lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner_node import calls
from runner_node.secret_files import SecretFiles
from shared_models import errors
from shared_models.app import App
from shared_models.fn import Fn


@pytest.mark.parametrize(
    "app",
    [
        "",
        ".",
        "..",
        "../other",
        "shop/deeper",
        "..data",
        ".hidden",
        "../secrets/shop",
        "/etc",
        "shop/",
        "shop/.",
    ],
)
async def test_no_name_of_an_app_leads_out_of_its_folder(app: str, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    for place in ("", "shop", "shop/deeper", "..data", ".hidden", "../other", "..", "shop/."):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / "hostname").write_text("s3cret")
    fn = Fn(id="f", app_id="a", name="fn", image="i", memory=1, timeout=1, idle_timeout=1)
    for name, found in (("shop", "s3cret"), (app, None)):
        made = calls.of_fn(fn, App(id="a", name=name, config={"KEY": "secret://hostname"}))
        files = SecretFiles(str(folder))
        if found:
            assert (await files.resolved(made))["KEY"] == found
        else:
            with pytest.raises(errors.SecretMissing):
                await files.resolved(made)
