"""The documentation site, `make docs`: the Markdown files of this repository as they lie, and the API.

The source directory is the repository, so that a link that works in it works on the site, and one that works
in neither ends the build. README.md is the first page; PAGES says which others there are, in which order.
"""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from modeling_slam import __version__  # noqa: E402

PAGES = {
    "Begin": ["docs/first-model", "docs/help", "docs/moving"],
    "Use a model": [
        "docs/transcribe", "docs/pipeline", "docs/serve", "docs/app", "docs/checkpoints", "docs/vllm"
    ],
    "Train one": ["docs/data", "docs/training", "recipes/README", "docs/plan", "docs/gpu", "docs/demo"],
    "Cut one": ["docs/layer-choice", "docs/llm-layers"],
    "Evaluate, study, publish": [
        "docs/evaluation", "docs/study", "docs/study-reading", "docs/publishing", "model_cards/README",
        "model_cards/slam-*",
    ],
    "What we found": [
        "docs/results", "docs/real-small/report", "results/README", "docs/performance", "benchmarks/README",
        "docs/paper-notes",
    ],
    "Reference": ["docs/api", "docs/architecture", "CONTRIBUTING", "CHANGELOG"],
    "Data that comes with it": ["modeling_slam/**/README"],
}  # fmt: skip

project = "slam-asr"
author = copyright = "The slam-asr contributors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "*/*.md", "docs/real-small/*.md", "modeling_slam/**/*.md"]
exclude_patterns = [".*", "runs"]
myst_heading_anchors = 4
smartquotes = False  # by the language in a model card's head, otherwise
default_role = "literal"  # docstrings write code as Markdown does
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "slam-asr"


def add_contents(app: Any, docname: str, source: list[str]) -> None:
    """The tables of contents at the end of README, which the repository's front page does without."""
    if docname == root_doc:
        for caption, pages in PAGES.items():
            source[0] += "\n\n".join(
                ["", f"```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}", *pages, "```"]
            )


def link_rows(app: Any, docname: str, source: list[str]) -> None:
    """Links of a study's report to its own rows, whose anchors are HTML and no headings."""
    source[0] = re.sub(r"\[((?:[^]\\]|\\.)+)\]\(#(run-[^)]+)\)", r'<a href="#\2">\1</a>', source[0])


def front_page(app: Any, exception: Exception | None) -> None:
    """README's page is the one that a server shows first."""
    if exception is None and app.builder.name == "html":
        shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Any) -> None:
    app.connect("source-read", add_contents)
    app.connect("source-read", link_rows)
    app.connect("build-finished", front_page)
