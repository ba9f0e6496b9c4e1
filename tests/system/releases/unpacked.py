"""The release before this one, as it was published: what nodes of this version must work together with."""

from __future__ import annotations

import zipfile
from pathlib import Path

PREVIOUS = "0.1.0"
_WHEEL = Path(__file__).with_name(f"fn_hybrid-{PREVIOUS}-py3-none-any.whl")


def unpacked(folder: Path) -> Path:
    """A folder with the packages of the previous release, from which ``python -m deploy`` runs its nodes."""
    code = folder / PREVIOUS
    with zipfile.ZipFile(_WHEEL) as wheel:
        wheel.extractall(code)
    return code
