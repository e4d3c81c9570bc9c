"""Which layers of the LLM are kept: a choice is a function and a row of `LLM_LAYER_CHOICES`.

    (stack, n, distances) -> the n layers to keep, ascending, and the scores that decided

Layers count from 0. The config stores what is kept and nothing of how it came about; run.json names the
choice and has the scores.

Source: Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers",
https://huggingface.co/papers/2403.17887
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import AutoModelForCausalLM

from modeling_slam.model.audio_encoders import llm_layers
from modeling_slam.model.processing_slam import in_language
from modeling_slam.training.layer_choice import Chosen, Stack, closest_block, lowest

TEXTS = 64
BATCH = 8

Distances = list[list[float]]  # (L + 1) x (L + 1)
# (B, N) ids and attention mask, and True at the tokens that count.
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class LlmLayerChoice(NamedTuple):
    """How the layers to keep are chosen, and whether that takes texts."""

    choose: Callable[[Stack, int, Distances], Chosen]
    by_text: bool = False  # if not, there are no distances


LLM_LAYER_CHOICES = {
    "top_down": LlmLayerChoice(lambda stack, n, _: lowest(stack, n)),
    "angular": LlmLayerChoice(closest_block, by_text=True),
}


def is_by_text(name: str) -> bool:
    return LLM_LAYER_CHOICES[name].by_text


def choose_by_text(
    name: str, config: Any, processor: Any, dataset: Any, device: torch.device | str
) -> dict[str, Any]:
    """Let a choice by text say which `config.num_llm_layers` layers the config keeps; the main process does.

    Returns: what run.json records: the choice, what it keeps, its scores, the distances, and what was read.
    """
    found: list[Any] = [None]
    if PartialState().is_main_process:
        texts = spread(dataset)
        batches = [*text_batches(processor.tokenizer, processor.instruction, texts)]
        llm = loaded(config.text_model_id, config.text_model_revision, device)
        distances = angular_distances(llm, batches)
        stack = Stack(config.text_config.num_hidden_layers)
        chosen = LLM_LAYER_CHOICES[name].choose(stack, config.num_llm_layers, distances)
        tokens = sum(int(counted.sum()) for _, _, counted in batches)
        found = [
            {"choice": name, "kept": chosen.layers, "scores": chosen.scores, "angular_distances": distances}
            | {"texts": len(texts), "tokens": tokens}
        ]
    broadcast_object_list(found)
    config.kept_llm_layers = found[0]["kept"]
    return found[0]


def loaded(model_id: str, revision: str | None, device: torch.device | str) -> Any:
    """The whole LLM, in the dtype of its checkpoint on an accelerator and in float32 on a CPU."""
    dtype = torch.float32 if torch.device(device).type == "cpu" else "auto"
    return AutoModelForCausalLM.from_pretrained(model_id, revision=revision, dtype=dtype).to(device).eval()


def spread(dataset: Any) -> list[tuple[str, str | None]]:
    """(text, language) of clips spread evenly over the training data."""
    count = min(TEXTS, len(dataset))
    rows = dataset.select_columns(["text", "language"]).select(
        [index * len(dataset) // count for index in range(count)]
    )
    return list(zip(rows["text"], rows["language"], strict=True))


def text_batches(tokenizer: Any, instruction: str, texts: list[tuple[str, str | None]]) -> Iterator[Batch]:
    """Each text behind its instruction, as the LLM reads it in training, without audio: that comes later.

    The tokens of the text count, and not those of the instruction: they are the same before every text, would
    be a good part of all, and the first of them takes up the attention that others have no use for, with a
    state of its own kind (https://huggingface.co/papers/2309.17453).
    """
    for start in range(0, len(texts), BATCH):
        rows, counted = [], []
        for text, language in texts[start : start + BATCH]:
            prompt, own = (
                tokenizer(part, add_special_tokens=False)["input_ids"]
                for part in (in_language(instruction, language), text)
            )
            rows.append(torch.tensor(prompt + own))
            counted.append(torch.tensor([False] * len(prompt) + [True] * len(own)))
        pad = torch.nn.utils.rnn.pad_sequence
        masks = [torch.ones_like(row) for row in rows]
        yield tuple(pad(part, batch_first=True) for part in (rows, masks, counted))  # ty: ignore[invalid-yield]


@torch.no_grad()
def angular_distances(llm: Any, batches: Iterable[Batch]) -> Distances:
    """Mean angular distance between the states before layers k and l, over all tokens that count.

    d(x, y) = arccos(x · y / |x| |y|) / pi, from 0 (same direction) to 1 (opposite), in float64; the paper
    takes the last token of each text alone. State l is the residual stream before layer l, state L what
    leaves the last layer, before the final norm.

    Raises:
        ValueError: no token counts.
    """
    layers = llm_layers(llm)[1]
    states: list[torch.Tensor] = []

    def keep(module: Any, args: Any, kwargs: Any, *output: Any) -> None:
        state = output[0] if output else (args[0] if args else kwargs["hidden_states"])
        states.append(state[0] if isinstance(state, tuple) else state)

    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
    hooks.append(layers[-1].register_forward_hook(keep, with_kwargs=True))
    total, tokens = torch.zeros(()), 0
    with contextlib.ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.remove)
        for ids, mask, counted in batches:
            states.clear()
            llm.base_model(ids.to(llm.device), attention_mask=mask.to(llm.device), use_cache=False)
            of_tokens = torch.stack([state[counted.to(state.device)].cpu().double() for state in states])
            unit = torch.nn.functional.normalize(of_tokens, dim=-1)
            cosine = torch.einsum("ktd,ltd->klt", unit, unit).clamp(-1, 1)
            total = total + (cosine.arccos() / torch.pi).sum(dim=-1)
            tokens += int(counted.sum())
    if not tokens:
        raise ValueError("The texts that the layers of the LLM are to be chosen by have no token.")
    return (total / tokens).fill_diagonal_(0.0).tolist()
