"""The model behind the page: one that stays loaded, heard at its whole depth or at several.

A model that was trained with `--train_depths` reads its encoder at any of these. All share one model: a
shallower one is the same encoder that stops earlier.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modeling_slam.app.arguments import AppArguments
from modeling_slam.common.files import read_json
from modeling_slam.evaluation.own_run import settings_of_run
from modeling_slam.evaluation.settings import check_checkpoint
from modeling_slam.model.audio_io import AudioError
from modeling_slam.transcription.__main__ import task_of
from modeling_slam.transcription.arguments import TranscribeArguments
from modeling_slam.transcription.hearing import CountingPipeline, hear, load
from modeling_slam.transcription.journal import Heard
from modeling_slam.transcription.recordings import Recording, stated_seconds


@dataclass(frozen=True)
class AtDepth:
    """What a model heard with the lowest `depth` layers of its encoder, and the seconds that it took."""

    depth: int
    text: str
    seconds: float


class Recogniser:
    """A model that hears recordings. Settings are checked before a weight is loaded.

    Raises:
        ValueError: a setting does not fit the model, or there is none.
    """

    def __init__(self, arguments: AppArguments):
        asked = {name: getattr(arguments, name) for name in ("language", "num_beams", "batch_size", "dtype")}
        self.task = task_of(TranscribeArguments(model=arguments.model, files=[], **asked))
        self.depths = depths_of(arguments)
        self.language: str | None = dict(self.task.settings)["language"]
        self.tells_times = self.task.tells_times
        self.pipe: CountingPipeline = load(self.task)
        self.warm_up()

    def warm_up(self) -> None:
        """The first call of a device takes longer than all others."""
        asks_always = {"speech_threshold": 0} if self.tells_times else {}
        noise = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) / 10
        self.pipe(noise.numpy(), max_new_tokens=2, **asks_always)

    def hear(self, path: Path, on_share: Callable[[float], object] = lambda share: None) -> Heard:
        """What is said in a recording; `on_share` is told the share of it that was heard.

        Raises:
            AudioError: it cannot be read; the message names the file without its folder.
        """
        stated, done = stated_seconds(path), 0.0

        def count(seconds: float) -> None:
            nonlocal done
            done += seconds
            on_share(min(done / stated, 1.0) if stated else 0.0)

        self.pipe.on_seconds = count
        (heard,) = hear(self.pipe, self.task, [Recording(path, path.stem)])
        if heard.error is not None:
            raise AudioError(heard.error.replace(str(path), path.name), "unreadable")
        return heard

    def compare(self, path: Path) -> Iterator[AtDepth]:
        """What is heard in a recording at each depth, from the deepest.

        Raises:
            AudioError: as `hear`.
        """
        for depth in self.depths:
            begun = time.monotonic()
            with at_depth(self.pipe.model, depth):
                heard = self.hear(path)
            yield AtDepth(depth, heard.text, time.monotonic() - begun)


def depths_of(arguments: AppArguments) -> list[int]:
    """The depths that can be compared, from the deepest; none of a model that was trained at one.

    Raises:
        ValueError: the model does not have them.
    """
    depths = arguments.depths or settings_of_run(arguments.model, "run").get("train_depths") or []
    layers = read_json(check_checkpoint(arguments.model, "none"))["num_encoder_layers"]
    if any(not 1 <= depth <= layers for depth in depths):
        raise ValueError(
            f"`--depths` must be numbers from 1 to {layers}, the encoder layers of {arguments.model}, got "
            f"{' '.join(map(str, depths))}."
        )
    return sorted(set(depths), reverse=True)


@contextlib.contextmanager
def at_depth(model: Any, depth: int) -> Generator[None]:
    """In the block the model hears with the lowest `depth` layers of its encoder alone."""
    layers = model.encoder.layers
    above = list(layers[depth:])
    del layers[depth:]
    try:
        yield
    finally:
        layers.extend(above)
