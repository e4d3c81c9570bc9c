"""`train.py` without a recipe and without speech of one's own: a run that works as typed.

`accelerate launch train.py --keep_layers 22` takes recipes/nl-medium.yaml and writes to
runs/slam-medium-22L-lora-nl: the name that the model would have on the Hub, by the rule of `naming.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modeling_slam.common.known_models import base_config
from modeling_slam.publishing.naming import name_parts
from modeling_slam.training.assembly import architecture

# Whoever says one of these has another run in mind.
OTHER_RUN = {"--dataset", "--encoder", "--language", "--help", "-h", "--help_all"}
CORPUS = "Common Voice 22.0 in Dutch, from https://datacollective.mozillafoundation.org,"


def with_default_recipe(argv: list[str], recipe: Path, parse: Callable[..., tuple[Any, ...]]) -> list[str]:
    """The command line; with `recipe` and an `--output_dir` in front where it names no recipe and no speech.

    Args:
        parse: makes settings of a command line: those of the model, of LoRA and of the data come first.

    Raises:
        ValueError: the recipe's speech is not there, or its encoder has fewer layers than asked for.
    """
    names_recipe = bool(argv) and not argv[0].startswith("-")
    if names_recipe or OTHER_RUN & {word.partition("=")[0] for word in argv} or not recipe.is_file():
        return argv
    model_args, lora_args, data_args, *_ = parse(argv=[str(recipe), *argv])
    (speech,) = data_args.dataset
    if not Path(speech).exists():
        others = ", ".join(sorted(path.stem for path in recipe.parent.glob("*.yaml")))
        raise ValueError(
            f"Without a recipe and `--dataset`, train.py takes {recipe}, whose speech is missing.\n"
            f"Fetch {CORPUS} to {speech}, or name your own speech: --dataset DIR --language nl.\n"
            f"Or name another recipe, such as `train.py recipes/demo.yaml`: {others}."
        )
    bases = base_config(model_args.encoder), base_config(model_args.llm)
    name = name_parts(architecture(model_args, lora_args, *bases), data_args.one_language)
    return [str(recipe), "--output_dir", f"runs/{name}", *argv]
