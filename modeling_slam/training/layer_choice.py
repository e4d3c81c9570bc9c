"""Which layers of the encoder are kept: a choice is a function and a row of `LAYER_CHOICES`.

    (stack, n) -> the n layers to keep, ascending, and the scores that decided

Layers count from 0. A list of neighbouring layers in the place of one is the mean of their weights. The
model's config stores what is kept and nothing of how it came about; run.json names the choice and has the
scores. A choice by speech is made once the data are there: `stack.calibration` has the numbers. The formulas,
sources and costs also stand in docs/layer-choice.md.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from accelerate.utils import broadcast_object_list

Kept = list[Any]  # of int, and of list[int] where layers are merged


class Calibration(Protocol):
    """What a choice by speech is made from."""

    def similarities(self) -> dict[str, Any]:
        """A matrix for each of the measures of layer_similarity.py."""
        ...

    def losses_without(self, kept: list[int], candidates: list[int]) -> dict[int, float]:
        """CTC loss a token of the encoder of the layers `kept`, aligned, without each of `candidates`."""
        ...


@dataclass
class Stack:
    """The layers to choose from; the first one cannot go where all others need it (WavLM)."""

    num_layers: int
    first_is_needed: bool = False
    calibration: Calibration | None = None  # for a choice that needs it

    @property
    def needed(self) -> int:
        """How many layers, from the bottom, cannot go."""
        return int(self.first_is_needed)

    def similarities(self) -> dict[str, Any]:
        assert self.calibration is not None
        return self.calibration.similarities()


@dataclass
class Chosen:
    layers: Kept
    scores: dict[str, Any] = field(default_factory=dict)


class LayerChoice(NamedTuple):
    """How the layers to keep are chosen, and by what: no data, speech, or speech and what is said."""

    choose: Callable[[Stack, int], Chosen]
    needs: Literal["nothing", "speech", "text"] = "nothing"


# ---------------------------------------------------------------------------------- without data


def lowest(stack: Stack, n: int) -> Chosen:
    """The lowest n: what the paper prunes is the top, https://huggingface.co/papers/2603.27981."""
    return Chosen([*range(n)])


def highest(stack: Stack, n: int) -> Chosen:
    """The highest n; the bottom layers dropped, https://huggingface.co/papers/2004.03844."""
    needed = [*range(min(n, stack.needed))]
    return Chosen([*needed, *range(stack.num_layers - n + len(needed), stack.num_layers)])


def uniform(stack: Stack, n: int) -> Chosen:
    """Layers at even distances from the lowest to the highest: round(i (L - 1) / (n - 1)), i = 0 ... n - 1.

    Halves are rounded up. This is how the layers of a smaller model are taken over for distillation:
    https://huggingface.co/papers/1910.01108, https://huggingface.co/papers/2311.00430
    """
    return Chosen([int(i * (stack.num_layers - 1) / max(1, n - 1) + 0.5) for i in range(n)])


def alternate(stack: Stack, n: int) -> Chosen:
    """Every other layer dropped from the second highest down, then again among those that are left.

    Source: odd-alternate dropping, https://huggingface.co/papers/2004.03844
    """
    kept = [*range(stack.num_layers)]
    while len(kept) > n:
        going = [layer for layer in kept[-2::-2] if layer >= stack.needed] or [kept[-1]]
        kept = [layer for layer in kept if layer not in going[: len(kept) - n]]
    return Chosen(kept)


def merged(stack: Stack, n: int) -> Chosen:
    """The layers in n groups of neighbours, as even as can be, each the mean of its layers' weights.

    Group i of n begins with layer floor(i L / n). Source: merging of neighbouring layers instead of dropping
    them, for Whisper's decoder, https://huggingface.co/papers/2510.08599 (there with learned shares)
    """
    begins = [i * stack.num_layers // n for i in range(n)] + [stack.num_layers]
    groups = [[*range(begin, end)] for begin, end in itertools.pairwise(begins)]
    return Chosen([group[0] if len(group) == 1 else group for group in groups])


# ------------------------------------------------------------------------------------ by speech


def closest_block(stack: Stack, n: int, distances: list[list[float]]) -> Chosen:
    """Drop the L - n neighbouring layers whose input and output are closest, the lowest of equals.

    With state l before layer l: first dropped layer = argmin over l of distances[l][l + L - n].

    Source: https://huggingface.co/papers/2403.17887
    """
    size = stack.num_layers - n
    if not size:
        return lowest(stack, n)
    scores = {begin: distances[begin][begin + size] for begin in range(stack.needed, n + 1)}
    first = min(scores, key=lambda begin: scores[begin])
    kept = [layer for layer in range(stack.num_layers) if not first <= layer < first + size]
    return Chosen(kept, {"block_dropped_from_layer": scores})


def angular(stack: Stack, n: int) -> Chosen:
    """The block of smallest angular distance d(x, y) = mean over frames of arccos(x · y / |x| |y|) / pi.

    Source: https://huggingface.co/papers/2403.17887, which takes the last token of a text; in speech every
    real frame counts.
    """
    return closest_block(stack, n, stack.similarities()["angular"])


def cka(stack: Stack, n: int) -> Chosen:
    """The block whose input and output are most alike by linear CKA (`layer_similarity.hsic_between`).

    Source: the measure, between layers of speech encoders, https://huggingface.co/papers/2409.16302; that one
    block is dropped, https://huggingface.co/papers/2403.17887
    """
    return closest_block(stack, n, unlike(stack.similarities()["cka"]))


def mutual_neighbours(stack: Stack, n: int) -> Chosen:
    """The block whose input and output share most nearest neighbours among frames.

    Source: as of `cka`; the measure, https://huggingface.co/papers/2405.07987
    """
    return closest_block(stack, n, unlike(stack.similarities()["mutual_neighbours"]))


def unlike(matrix: list[list[float]]) -> list[list[float]]:
    """1 - likeness, a distance."""
    return [[1 - value for value in row] for row in matrix]


def block_influence(stack: Stack, n: int) -> Chosen:
    """Drop the layers of lowest influence, neighbours or not: BI(l) = 1 - mean cosine of input and output.

    Source: ShortGPT, https://huggingface.co/papers/2403.03853
    """
    cosine = stack.similarities()["cosine"]
    scores = {layer: 1 - cosine[layer][layer + 1] for layer in range(stack.num_layers)}
    can_go = sorted(range(stack.needed, stack.num_layers), key=lambda layer: scores[layer])
    going = can_go[: stack.num_layers - n]
    return Chosen([layer for layer in range(stack.num_layers) if layer not in going], {"influence": scores})


def ctc_greedy(stack: Stack, n: int) -> Chosen:
    """One layer after the other: align projector and CTC head, drop the layer whose removal costs least loss.

    The loss is CTC's on clips that were not aligned on; after each drop projector and head are aligned anew
    with the layers that are left. Source: greedy removal by the loss on calibration data, SLEB,
    https://huggingface.co/papers/2402.09025; the aligned CTC head as a judge is this project's.
    """
    assert stack.calibration is not None
    kept, steps = [*range(stack.num_layers)], []
    while len(kept) > n:
        losses = stack.calibration.losses_without(kept, [layer for layer in kept if layer >= stack.needed])
        dropped = min(losses, key=lambda layer: losses[layer])
        steps.append({"loss_without_layer": losses, "dropped": dropped})
        kept = [layer for layer in kept if layer != dropped]
    return Chosen(kept, {"steps": steps})


LAYER_CHOICES = {
    "top_down": LayerChoice(lowest),
    "bottom_up": LayerChoice(highest),
    "uniform": LayerChoice(uniform),
    "alternate": LayerChoice(alternate),
    "merged": LayerChoice(merged),
    "angular": LayerChoice(angular, "speech"),
    "block_influence": LayerChoice(block_influence, "speech"),
    "cka": LayerChoice(cka, "speech"),
    "mutual_neighbours": LayerChoice(mutual_neighbours, "speech"),
    "ctc_greedy": LayerChoice(ctc_greedy, "text"),
}


def needs_speech(name: str) -> bool:
    return LAYER_CHOICES[name].needs != "nothing"


def choose_layers(name: str, stack: Stack, n: int) -> Chosen:
    """What a choice keeps. One by speech gets the lowest layers until there is a calibration.

    Raises:
        RuntimeError: the choice's function does not return n layers of the encoder in order.
    """
    by_speech = needs_speech(name)
    if by_speech and stack.calibration is None:
        return lowest(stack, n)
    chosen = LAYER_CHOICES[name].choose(stack, n)
    if by_speech:
        chosen = broadcast_object_list([chosen])[0]  # processes may round differently
    each = [layer for group in chosen.layers for layer in (group if isinstance(group, list) else [group])]
    if each != sorted(set(each) & set(range(stack.num_layers))) or len(chosen.layers) != n:
        raise RuntimeError(
            f"`layer_choice` {name} was to keep {n} of {stack.num_layers} layers, got {chosen.layers}."
        )
    return chosen
