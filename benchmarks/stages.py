"""Where the time goes: seconds of the stages of a training step and of a transcription.

A clock runs through from beginning to end. Hooks at the parts of the model stop it and give the time since
the last stop to a stage, so nothing is counted twice or lost.
"""

import time
from collections import defaultdict
from typing import Any, Self

import torch
from modeling_slam.model.frozen_linear import frozen_linear

from modeling_slam import SlamAsrForConditionalGeneration


class StageClock:
    """Seconds by stage. `mark` ends a stage; subclasses place the hooks."""

    def __init__(self, model: SlamAsrForConditionalGeneration):
        self.model = model
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._handles: list[Any] = []

    def mark(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self.calls[stage] += 1
        self._last = time.perf_counter()

    def __enter__(self) -> Self:
        self.place_hooks()
        self._last = time.perf_counter()
        return self

    def __exit__(self, *_exception) -> None:
        for handle in self._handles:
            handle.remove()

    def place_hooks(self) -> None:
        raise NotImplementedError

    def before(self, module: torch.nn.Module, stage: str) -> None:
        self._handles.append(module.register_forward_pre_hook(lambda *_: self.mark(stage)))

    def after(self, module: torch.nn.Module, stage: str) -> None:
        self._handles.append(module.register_forward_hook(lambda *_: self.mark(stage)))


class TrainingStages(StageClock):
    """Stages of a step; the step itself marks the ends of forward, backward and optimizer."""

    def place_hooks(self) -> None:
        model, body = self.model, self.model.language_model.model
        self.before(model.encoder, "rest")
        self.after(model.encoder, "encoder")
        self._handles.append(model.projector.register_forward_hook(self._after_projector))
        self.before(body, "rest")
        self._handles.append(body.register_forward_hook(self._after_body))

    def _after_projector(self, _module: Any, _inputs: Any, tokens: torch.Tensor) -> None:
        self.mark("projector, forward")
        tokens.register_hook(lambda _gradient: self.mark("LLM, backward"))

    def _after_body(self, _module: Any, _inputs: Any, outputs: Any) -> None:
        self.mark("LLM, forward")
        if outputs[0].requires_grad:
            outputs[0].register_hook(lambda _gradient: self.mark("vocabulary and loss, backward"))


class TranscribingStages(StageClock):
    """Stages of `generate`. The rest is the search itself: scores, beams, caches."""

    def place_hooks(self) -> None:
        model, body = self.model, self.model.language_model.model
        head = self.model.language_model.get_output_embeddings()
        self.before(model.encoder, "search")
        self.after(model.encoder, "encoder")
        self.after(model.projector, "projector")
        self.before(body, "search")
        self._handles.append(body.register_forward_hook(self._after_body, with_kwargs=True))
        self.before(head, "search")
        self.after(head, "vocabulary")

    def _after_body(self, _module: Any, _inputs: Any, arguments: dict[str, Any], outputs: Any) -> None:
        """The prompt comes in one call of many positions, each further token in one of a single one."""
        self.mark("prefill" if outputs[0].shape[1] > 1 else "decode")


@torch.no_grad()
def linear_layers_alone(model: SlamAsrForConditionalGeneration, rows: int) -> dict[str, float]:
    """Seconds of the LLM layers' bare matrix products for `rows` tokens, forward and back to the inputs.

    As many rows as a batch has keep a machine further from its peak than large squares do; what a stage takes
    beyond this is not the products'.
    """
    weights = [
        parameter
        for name, parameter in model.language_model.model.layers.named_parameters()
        if parameter.ndim == 2 and ".lora_" not in name
    ]
    inputs = {
        width: torch.randn(rows, width, dtype=weights[0].dtype)
        for weight in weights
        for width in weight.shape
    }
    seconds = {}
    for direction in ("forward", "backward"):
        start = time.perf_counter()
        for weight in weights:
            outputs, width = weight.shape
            if direction == "forward":
                frozen_linear(inputs[width], weight)
            else:
                frozen_linear(inputs[outputs], weight.t())
        seconds[direction] = time.perf_counter() - start
    return seconds
