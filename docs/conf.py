"""How Sphinx makes a site of these pages: ``make site``."""

import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _PROJECT["name"]
author = copyright = "the authors of fn-hybrid"
version = release = _PROJECT["version"]

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
# The pages are read on code hosts as well, where a fence may say more than its language.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"fn-hybrid {release}"
html_copy_source = False
