"""What a fresh clone installs: all that is imported is declared, and both locks hold it within its range."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
TESTS = {path.stem for path in Path(__file__).parent.rglob("*.py")}
OWN = {"benchmarks", "modeling_slam", "train", "eval", "slam_asr"} | TESTS


def requirements(*groups: list) -> dict[str, Requirement]:
    """Name -> requirement; without references to other groups and to the project's own extras."""
    found = [Requirement(line) for group in groups for line in group if isinstance(line, str)]
    named = {canonicalize_name(requirement.name): requirement for requirement in found}
    named.pop("slam-asr", None)
    return named


EXTRAS = PROJECT["project"]["optional-dependencies"]
CORE = requirements(PROJECT["project"]["dependencies"])
PACKAGE = CORE | requirements(*EXTRAS.values())
BUILD = requirements(PROJECT["build-system"]["requires"])
ALL = PACKAGE | requirements(*PROJECT["dependency-groups"].values())


def lock(name: str) -> dict[str, str]:
    lines = (REPOSITORY / "locks" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    # A name and a version: no address, no path, no build of one machine.
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][a-z0-9.]*", pin) for pin in pins)
    return dict(pin.split("==") for pin in pins)


def imported(path: Path) -> set[str]:
    """Top-level packages of others that a file imports, wherever in it that stands."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(node.module)
    return {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - OWN


@pytest.mark.parametrize(
    ("pattern", "declared"),
    [
        ("*.py", CORE | BUILD),  # hatch_build.py
        ("modeling_slam/**/*.py", PACKAGE),
        ("benchmarks/**/*.py", ALL),  # run from a clone
        ("tests/**/*.py", ALL),
        ("locks/*.py", ALL),
    ],
)
def test_everything_imported_is_declared(pattern, declared):
    distributions = packages_distributions()
    undeclared = {
        f"{path.relative_to(REPOSITORY)}: {package}"
        for path in REPOSITORY.glob(pattern)
        for package in imported(path)
        if not declared.keys() & {canonicalize_name(name) for name in distributions.get(package, [package])}
    }
    assert undeclared == set()


def test_the_extra_all_holds_every_other():
    (all_extras,) = map(Requirement, EXTRAS["all"])
    assert all_extras.extras == EXTRAS.keys() - {"all"}


@pytest.mark.parametrize("name", ["newest", "oldest"])
def test_a_lock_holds_all_that_is_declared_within_its_range(name):
    pins = lock(name)
    fits = {key: key in pins and each.specifier.contains(pins[key]) for key, each in ALL.items()}
    assert [key for key, it_fits in fits.items() if not it_fits] == [], "run `make locks`"


def test_the_oldest_lock_is_where_the_ranges_begin_and_both_have_one_torch():
    oldest, newest = lock("oldest"), lock("newest")
    assert oldest["torch"] == newest["torch"]
    for name, requirement in ALL.items():
        (first,) = [part for part in requirement.specifier if part.operator in (">=", "==")]
        assert name == "torch" or Requirement(f"{name}=={first.version}").specifier.contains(oldest[name])
