"""Where what travels with the package lies: scripts, recipes, studies and the demo's assets.

In a clone they stand at its root, in an installed wheel in `modeling_slam/shipped` (`hatch_build.py`). So a
recipe or a study has a name that holds everywhere: `slam-asr train nl-medium`, `slam-asr study run demo`.
"""

import difflib
from pathlib import Path
from typing import Any, Literal

PACKAGE = Path(__file__).parents[1]
IS_CLONE = not (PACKAGE / "shipped").is_dir()
HOME = PACKAGE.parent if IS_CLONE else PACKAGE / "shipped"


def shipped_names(kind: Literal["recipe", "study"]) -> list[str]:
    """`nl-medium`, `paper/nl-medium`, ...; a file that begins with `_` is what others build on.

    In `recipes/accelerate` is what `accelerate launch` reads.
    """
    folder = folder_of(kind)
    paths = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml")]
    own = [path for path in paths if not path.name.startswith("_") and path.parts[0] != "accelerate"]
    return sorted(path.as_posix() for path in own)


def folder_of(kind: Literal["recipe", "study"]) -> Path:
    return HOME / {"recipe": "recipes", "study": "studies"}[kind]


def find(name: str, kind: Literal["recipe", "study"]) -> Path:
    """The YAML file of a path, or of the name of a recipe or study of this project.

    Raises:
        ValueError: there is none; the message names the nearest, or all.
    """
    for path in (Path(name), folder_of(kind) / f"{name}.yaml", HOME / name):
        if path.is_file():
            return path
    names = shipped_names(kind)
    near = did_you_mean(Path(name).stem, names)
    raise ValueError(
        f"There is no {kind} {name}.{near} Expected a YAML file, or one of this project by name: "
        f"{', '.join(names)}."
    )


def did_you_mean(word: str, words: Any) -> str:
    """` Did you mean X?` where one of `words` is near, else nothing."""
    near = difflib.get_close_matches(word, list(words), 1)
    return f" Did you mean {near[0]}?" if near else ""


def at_home(settings: Any) -> Any:
    """Settings in which a path into the package, such as `modeling_slam/demo/assets`, leads there.

    What is there from the current directory stays as it is written.
    """
    if isinstance(settings, dict):
        return {name: at_home(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [at_home(value) for value in settings]
    if isinstance(settings, str) and settings.startswith("modeling_slam/") and not Path(settings).exists():
        return str(PACKAGE.parent / settings)
    return settings
