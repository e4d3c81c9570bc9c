"""The Space of a model: its page on the Hub, the same that `slam-asr app` opens on this machine.

A Space holds the code of the page, and of this package what the page imports, so it stays as it was tested.
The model is fetched from its own repository.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from modeling_slam.common.shipped import IS_CLONE
from modeling_slam.evaluation.own_run import language_of_run, settings_of_run
from modeling_slam.publishing.hub import Kind
from modeling_slam.publishing.release import CARD

PACKAGE = Path(__file__).parents[1]
START, STYLE = PACKAGE / "app" / "__main__.py", PACKAGE / "app" / "page.css"
IN_PACKAGE = tuple(f"{PACKAGE.name}/{'*/' * depth}*" for depth in range(3))
SPACE = Kind("space", (CARD, "app.py", "requirements.txt", *IN_PACKAGE), sdk="gradio")
APP = '''"""The page of {model}: `slam-asr app` of the files beside this one."""

from modeling_slam.app.__main__ import main

main({arguments})
'''


def stage_space(
    target: Path, source: Path, repo_id: str, language: str | None = None, license: str | None = None
) -> None:
    """Put the Space of the model `repo_id`, which was published of `source`, into the directory `target`.

    Raises:
        ValueError: Gradio, whose release a Space names, is not installed.
    """
    arguments = [repo_id]
    if language := language or language_of_run(source):
        arguments += ["--language", language]
    if depths := settings_of_run(source, "run").get("train_depths"):
        arguments += ["--depths", *map(str, depths)]
    files = {
        CARD: front_matter(repo_id, license),
        "app.py": APP.format(model=repo_id, arguments=arguments),
        "requirements.txt": "".join(f"{line}\n" for line in requirements()),
    }
    for path, text in files.items():
        (target / path).write_text(text, encoding="utf-8")
    for file in sorted({*code_of(START), STYLE}):
        place = target / file.relative_to(PACKAGE.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())


def front_matter(repo_id: str, license: str | None) -> str:
    """README.md of the Space, https://huggingface.co/docs/hub/spaces-config-reference"""
    name = repo_id.split("/")[-1]
    settings: dict[str, Any] = {
        "title": name,
        "sdk": "gradio",
        "sdk_version": gradio_release(),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
        "models": [repo_id],
        "short_description": "Speech to text, with confidence and subtitles",
    }
    if license is not None:
        settings["license"] = license
    head = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    text = f"Speech to text by [{repo_id}](https://huggingface.co/{repo_id}): speak, or choose a recording."
    return f"---\n{head}---\n\n# {name}\n\n{text}\n"


def gradio_release() -> str:
    try:
        return metadata.version("gradio")
    except metadata.PackageNotFoundError:
        raise ValueError(
            "`--space` states the release of Gradio that its page was made with, and there is none here: "
            "pip install 'slam-asr[app]'"
        ) from None


def requirements() -> list[str]:
    """What this project needs without extras; the Hub installs Gradio itself."""
    if IS_CLONE:  # what is installed may state what an older one needed
        with (PACKAGE.parent / "pyproject.toml").open("rb") as file:
            return tomllib.load(file)["project"]["dependencies"]
    return [line for line in metadata.requires("slam-asr") or [] if "extra ==" not in line]


def code_of(start: Path) -> set[Path]:
    """A file of this package, and all files of it that this one needs to be imported."""
    found: set[Path] = set()
    left = [start]
    while left:
        if (file := left.pop()) not in found:
            found.add(file)
            left += imported(file)
    return found


def imported(file: Path) -> Iterator[Path]:
    """The files that a file's imports read, in functions too, with the packages around them."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            around = file.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            module = ".".join([*around, *filter(None, [node.module])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            for count in range(1, len(parts) + 1) if parts[0] == PACKAGE.name else ():
                place = PACKAGE.parent.joinpath(*parts[:count])
                yield from filter(Path.is_file, (place / "__init__.py", place.with_suffix(".py")))
