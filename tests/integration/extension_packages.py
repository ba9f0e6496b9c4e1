"""Packages with extensions, as an installer leaves them: a module and what it announces."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, module: str, code: str, **entries: str) -> None:
    """*module* with *code* in *folder*; its metadata announces *entries* (extension name: object)."""
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    points = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[fn_hybrid.extensions]\n{points}")
