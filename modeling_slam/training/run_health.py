"""A run that cannot succeed says so: it ends where nothing can be saved, and else names what to try.

`WatchedTrainer` ends a run, in all its processes, before it steps or saves with a loss, gradient or weights
that are not finite, and names step and clips. It is a base of any trainer whose batches have `CLIP_IDS`.
`RunHealth` looks whether the LLM listens: a model may well stay on a plateau, where it writes what a
transcript could say and ignores the audio. What is found there is a warning, for a plateau may end.
"""

import contextlib
import functools
import logging
import math
import pickle
import random
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import TrainerCallback

from modeling_slam.common.command_line import one_line
from modeling_slam.data.collator import CLIP_IDS
from modeling_slam.evaluation.metrics import PLATEAU_WER
from modeling_slam.training.saving import WholeSaves
from modeling_slam.training.sharding import own_share

logger = logging.getLogger("slam-asr")

PLATEAU_GAIN = 0.2  # share of the loss that a clip's own audio must take away
MOSTLY = 0.5  # share of clips with one and the same wrong transcript
STEPS_TO_LISTEN = 500
PROBE_CLIPS = 8
MOST_NAMED = 32
SEED = 0  # the same clips in every validation and every run


# What torch says of a file that is whole and belongs to another model.
MISFITS = ("size mismatch", "different number of parameter groups", "doesn't match the size of optimizer")


class RunError(ValueError):
    """A run cannot go on; the message is for whoever started it."""


def fail(message: str) -> NoReturn:
    """End the run. All processes call this; the main one tells why, the others leave without a word."""
    for bar in list(getattr(tqdm, "_instances", ())):  # or the message would stand behind them
        bar.close()
    if not PartialState().is_main_process:
        raise SystemExit(1)
    raise RunError(message)


@contextlib.contextmanager
def readable(directory: str | Path) -> Generator[None]:
    """What is read inside the block lies in `directory`, a checkpoint or a stage's result.

    Raises:
        RunError: it cannot be read, or is another model's.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    # What torch.load and safetensors raise for files that are cut off or overwritten.
    except (
        OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError,
    ) as error:  # fmt: skip
        reason = one_line(error).partition(". ")[0][:150].rstrip(".")
        if any(words in str(error) for words in MISFITS):
            raise RunError(
                f"{directory} does not fit this run ({reason}). It was begun with other settings or by an "
                "older version: start a new run in another `--output_dir`."
            ) from error
        raise RunError(
            f"{directory} is damaged ({reason}). Delete it; `--resume_from_checkpoint last` then goes on "
            "from what is left."
        ) from error


class WatchedTrainer(WholeSaves):
    """Ends where going on is useless; the clips of a batch are taken out before the model gets it."""

    rate_flag: ClassVar[str] = "--learning_rate"

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._clips: list[str] = []  # of the batch at hand
        self._losses: list[tuple[list[str], torch.Tensor]] = []  # of the batches of a step, or a validation

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self._clips = inputs.pop(CLIP_IDS, [])
        return super()._prepare_inputs(inputs)

    def note_loss(self, loss: torch.Tensor) -> None:
        """Remember the loss of the batch at hand; a `prediction_step` calls this."""
        self._losses.append((self._clips, loss.detach()))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.note_loss(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """After the last batch of a step and before the optimizer's: the last moment to stop."""
        norm = super()._get_grad_norm(*args, **kwargs)
        # Gradients in float16 overflow now and then; the scaler leaves such a step out.
        is_known = norm is not None and not self.args.fp16
        self._check_losses(f"at step {self.state.global_step + 1}", float(norm) if is_known else 0.0)
        return norm

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        self._check_losses(f"in the validation after step {self.state.global_step}")
        return output

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        weights: Any = self.model
        broken = [
            name
            for name, weight in weights.named_parameters()
            if weight.requires_grad and not bool(own_share(weight).isfinite().all())
        ]
        if self._anywhere(bool(broken)):
            fail(
                f"After step {self.state.global_step} weights are not finite numbers, such as "
                f"{', '.join(broken[:1])}. Nothing is saved. Try a lower `{self.rate_flag}`."
            )
        super().save_model(*args, **kwargs)

    def _check_losses(self, when: str, norm: float = 0.0) -> None:
        """End the run unless these losses and this norm of the gradient are finite, in all processes."""
        noted = [(clips, float(loss)) for clips, loss in self._losses]
        self._losses = []
        finite = math.isfinite(norm) and all(math.isfinite(loss) for _, loss in noted)
        if not self._anywhere(not finite):
            return
        noted = gather_object(noted)
        wrong = [(clips, loss) for clips, loss in noted if not math.isfinite(loss)]
        what = f"The loss is {wrong[0][1]}" if wrong else f"The norm of the gradient is {norm}"
        clips = [clip for batch, _ in wrong or noted for clip in batch]
        more = f" and {len(clips) - MOST_NAMED} more" if len(clips) > MOST_NAMED else ""
        named = f"The clips of the batch: {', '.join(clips[:MOST_NAMED])}{more}. " if clips else ""
        fail(
            f"{what} {when}, so the run ends and nothing more is saved. {named}If audio and text of these "
            f"are sound, try a lower `{self.rate_flag}`."
        )

    def _anywhere(self, found: bool) -> bool:
        """Whether any process has found it: they must end together, or the others would wait for ever."""
        if self.accelerator.num_processes == 1:
            return found
        flag = torch.tensor(float(found), device=self.accelerator.device)
        reduced: Any = self.accelerator.reduce(flag, reduction="sum")
        return bool(reduced > 0)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        with readable(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with readable(str(checkpoint)):
            # Without its file transformers would begin with a fresh optimizer, in silence.
            if checkpoint and not self.is_deepspeed_enabled and not [*Path(checkpoint).glob("optimizer*")]:
                raise FileNotFoundError("it has no state of the optimizer")
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with readable(str(checkpoint)):
            super()._load_rng_state(checkpoint)


class RunHealth(TrainerCallback):
    """Warns, after a validation and at every 500th step without one, of a model that does not listen.

    A model is on the plateau if its WER is 80 % or more, or not known, and a clip's own audio takes less than
    a fifth off the loss that it has with the audio of another clip. Both losses are of one set of eight
    clips and of the same weights. A loss without any audio would be no measure: a projector also learns, like
    a prompt, what kind of text is wanted, and that helps without a word heard.
    """

    def __init__(self, clips: Any, collator: Callable[[list], dict[str, Any]], is_aligned: bool):
        """`clips` to look at: rows of `load_speech`, best of the validation. `collator` adds no noise."""
        self.clips, self.collator, self.is_aligned = clips, collator, is_aligned
        self.listens = False

    @functools.cached_property
    def batch(self) -> dict[str, torch.Tensor]:
        chosen = random.Random(SEED).sample(range(len(self.clips)), min(PROBE_CLIPS, len(self.clips)))
        batch = self.collator([self.clips[row] for row in chosen])
        batch.pop(CLIP_IDS, None)
        return batch

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step % STEPS_TO_LISTEN == 0 and not (self.listens or control.should_evaluate):
            self._warn(state, model, self._plateau(model))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        findings, wer = [], metrics.get("eval_wer")
        if metrics.get("eval_same", 0.0) > MOSTLY:
            findings.append(f"{100 * metrics['eval_same']:.0f} % of the clips got one wrong transcript")
        if wer is None or wer >= PLATEAU_WER:
            findings += self._plateau(model)
        self._warn(state, model, findings)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """The last step is followed by no loss that could show what it has made of the model."""
        loss, _ = losses_by_audio(model, self.batch)
        if not math.isfinite(loss):
            fail(
                f"After the last step, {state.global_step}, the loss is {loss}; nothing more is saved. "
                "Try a lower `--learning_rate`."
            )

    def _plateau(self, model: Any) -> list[str]:
        """What there is to say of a model on the plateau; nothing if it listens, or cannot be asked."""
        if len(self.clips) < 2:
            return []
        own, other = losses_by_audio(model, self.batch)
        self.listens = own <= (1 - PLATEAU_GAIN) * other
        if self.listens:
            return []
        return [
            f"the loss is {own:.2f}, and {other:.2f} with another clip's audio, so the LLM hardly listens"
        ]

    def _warn(self, state: Any, model: Any, findings: Sequence[str]) -> None:
        if findings and state.is_world_process_zero:
            said = "; ".join(findings)
            logger.warning("Step %d: %s. %s", state.global_step, said, self._advice(model.config))

    def _advice(self, config: Any) -> str:
        if config.projector_queries is not None:
            return "Try another `--projector_type` with `--align_epochs 10`: a qformer cannot be aligned."
        if self.is_aligned:
            return "Try more `--align_epochs`, `--llm_input expected`, or another `--learning_rate`."
        return "Try `--align_epochs 10`: without alignment this can last for thousands of steps."


@torch.no_grad()
def losses_by_audio(model: Any, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Losses of a batch of clips as it is, and with each clip's audio taken from another one.

    Lengths and masks stay, so an audio that is longer is cut. No random number is drawn.
    """
    trains = model.training
    model.eval()
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    audio = "encoder_frames" if "encoder_frames" in batch else "input_features"
    exchanged = batch | {audio: batch[audio].roll(1, dims=0)}
    own, other = (float(model(**inputs).loss) for inputs in (batch, exchanged))
    model.train(trains)
    return own, other


def show_clips(references: Sequence[str], transcripts: Sequence[str], number: int = 3) -> None:
    """Log a few references with their transcripts: the same clips each time, in whatever order they come."""
    order = sorted(range(len(references)), key=lambda clip: references[clip])
    for place in random.Random(SEED).sample(range(len(order)), min(number, len(order))):
        clip = order[place]
        logger.info("  reference:  %s\n  transcript: %s", references[clip], transcripts[clip])


def describe_best(history: Sequence[dict[str, float]], args: Any) -> str | None:
    """The best validation in a run's log, if there is one, and whether its model is the one that is left."""
    by = f"eval_{args.metric_for_best_model}"
    validations = [entry for entry in history if by in entry]
    if not validations:
        return None
    best = min(validations, key=lambda entry: entry[by])
    figures = [f"WER {100 * best['eval_wer']:.2f} %"] if "eval_wer" in best else []
    figures += [
        f"of {name.removeprefix('eval_wer_').replace('language_', 'language ')} {100 * wer:.2f} %"
        for name, wer in best.items()
        if name.startswith("eval_wer_")
    ]
    figures += [f"{by.removeprefix('eval_')} {best[by]:.4g}"] if by != "eval_wer" else []
    is_left = args.load_best_model_at_end or best["step"] == history[-1]["step"]
    left = "the model is of that step" if is_left else "the model is of the last step"
    return f"Best validation: step {best['step']:.0f}, {', '.join(figures)}; {left}."
