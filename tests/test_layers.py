"""Imports go one way: the table of docs/architecture.md, checked in every file."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "modeling_slam"


def table() -> dict[str, set[str]]:
    """Package -> packages it may import."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## Imports go one way")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*)\|$", section, flags=re.MULTILINE)
    return {package: set(re.findall(r"`(\w+)`", allowed)) for package, allowed in rows}


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and package of each import of ours; the package's root stands for the model."""
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            # `from modeling_slam import study` names a package, `... import SlamAsrConfig` none.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            root, _, rest = name.partition(".")
            if root == "modeling_slam":
                first = rest.partition(".")[0]
                yield node.lineno, first if first in packages else "model"
            elif root in ("train", "eval", "benchmarks", "tests"):
                yield node.lineno, root


def test_the_table_names_every_package_and_has_no_circle():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(table()) == packages
    assert len(list(TopologicalSorter(table()).static_order())) == len(packages)


@pytest.mark.parametrize("package", sorted(table()))
def test_a_package_imports_what_its_row_allows(package):
    upward = [
        f"{file.relative_to(REPOSITORY)}:{line} imports {name}"
        for file in sorted((PACKAGE / package).rglob("*.py"))
        for line, name in imported(file)
        if name not in table()[package] | {package}
    ]
    assert not upward
