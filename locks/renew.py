"""Write both locks anew: every package, with its version, of the oldest and of the newest environment.

    make locks

pip resolves both as it would install them. *Newest* is what the ranges in pyproject.toml give today. In
*oldest* each package that pyproject.toml names has the first release of its range, and what it needs in turn
the newest that fits. Both hold the same torch, the largest download by far. The locks are made for Linux and
Python 3.11; elsewhere pip takes from them what it finds.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LOCKS = Path(__file__).parent
REPOSITORY = LOCKS.parent
TORCH = "2.13.0"
HEADER = """# The {which} releases within the ranges of pyproject.toml, and all that they need.
# Made by `make locks`; never edited by hand.
"""


def main() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    torch = {"torch": TORCH}
    for which, pins in {"newest": torch, "oldest": dict(first_releases(project)) | torch}.items():
        versions = resolve(project, pins)
        lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
        (LOCKS / f"{which}.txt").write_text(HEADER.format(which=which) + "".join(lines), encoding="utf-8")
        print(f"locks/{which}.txt: {len(lines)} packages")


def named_requirements(project: dict) -> Iterator[Requirement]:
    """What the project needs, what its extras do, and what the dependency groups do."""
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    groups += project["dependency-groups"].values()
    lines = [line for group in groups for line in group if isinstance(line, str)]  # else `include-group`
    yield from (each for each in map(Requirement, lines) if each.name != project["project"]["name"])


def first_releases(project: dict) -> Iterator[tuple[str, str]]:
    for requirement in named_requirements(project):
        bounds = [part.version for part in requirement.specifier if part.operator in (">=", "==")]
        if len(bounds) != 1:
            raise SystemExit(f"pyproject.toml: `{requirement}` needs one lower bound, such as `>=1.2`.")
        yield canonicalize_name(requirement.name), bounds[0]


def resolve(project: dict, pins: dict[str, str]) -> dict[str, str]:
    """Name to version of every package that pip would put into an empty environment."""
    groups = [part for group in project["dependency-groups"] for part in ("--group", group)]
    with tempfile.TemporaryDirectory() as directory:
        constraints, report = Path(directory) / "constraints.txt", Path(directory) / "report.json"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), "--constraint", str(constraints)]
        done = subprocess.run([*command, "--editable", ".[all]", *groups], cwd=REPOSITORY)
        if done.returncode:
            raise SystemExit("pip finds no releases that fit together; its last lines say which do not.")
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    # Without the local part (`+cpu`): which build is taken is the machine's affair.
    versions = {str(canonicalize_name(item["name"])): Version(item["version"]).public for item in found}
    del versions[canonicalize_name(project["project"]["name"])]
    return versions


if __name__ == "__main__":
    main()
