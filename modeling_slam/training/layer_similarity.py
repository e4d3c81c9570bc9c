"""How alike the states between an encoder's layers are, over all real frames of some clips, in one pass.

State 0 enters the first layer, state l leaves layer l - 1; with L layers there are L + 1. The states are
taken as they run through the layers, without the final LayerNorm. Each measure is a matrix between states:

    cosine             mean cosine of a frame's two states
    angular            mean angle between them, over pi, https://huggingface.co/papers/2403.17887
    cka                linear CKA, https://huggingface.co/papers/1905.00414; between states of speech encoders
    mutual_neighbours  share of common nearest neighbours, both in https://huggingface.co/papers/2409.16302

Clips go through the encoder one by one, so there is no padding to mask. The first two measures read every
frame. The last two compare frames with each other: they read every fourth frame, 80 ms apart, in blocks of
1024 from several clips, and add up over the blocks. Everything is summed in float64 and nothing but one block
is kept in memory.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch

from modeling_slam.common.cpu_products import use_onednn
from modeling_slam.model.audio_encoders import ENCODERS
from modeling_slam.model.checkpoints import encoder_tensors, lazy_tensors
from modeling_slam.training.feature_cache import run_device

MEASURES = ("cosine", "angular", "cka", "mutual_neighbours")
FRAME_STEP = 4
BLOCK_FRAMES = 1024
LEAST_FRAMES = 64  # of a last block, which is left out if it has fewer
NEIGHBOURS = 10

Clips = Iterable[tuple[torch.Tensor, torch.Tensor]]  # features (1, ..., F) and mask (1, F) of one clip each


def pruned_encoder(config: Any, kept_layers: list[Any]) -> Any:
    """The encoder of a `SlamAsrConfig` on these layers, frozen, in float32, on the run's device."""
    with torch.device("meta"):
        encoder = ENCODERS[config.audio_config.model_type](
            copy.deepcopy(config.audio_config), len(kept_layers)
        )
    base = lazy_tensors(str(config.audio_model_id), revision=config.audio_model_revision)
    tensors = encoder_tensors(base, config.audio_config, kept_layers)
    weights = {name.removeprefix("encoder."): tensor[...] for name, tensor in tensors.items()}
    encoder.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}, assign=True
    )
    use_onednn(encoder.requires_grad_(False))
    return encoder.eval().to(run_device())


@torch.no_grad()
def layer_states(encoder: Any, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One clip, (1, ..., F) and (1, F) -> (L + 1, T, D): what enters the first layer and leaves each."""
    states: list[torch.Tensor] = []

    def enters(_layer: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    def leaves(_layer: Any, _args: tuple, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    hooks = [encoder.layers[0].register_forward_pre_hook(enters, with_kwargs=True)]
    hooks += [layer.register_forward_hook(leaves) for layer in encoder.layers]
    try:
        _, is_real = encoder(features.to(run_device()), mask.to(run_device()))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([state[0, : is_real.shape[1]][is_real[0]] for state in states])


def layer_similarities(encoder: Any, clips: Clips) -> dict[str, Any]:
    """Measure -> (L + 1) x (L + 1) numbers, as plain lists; and the number of `frames`."""
    frames, cosine, angular = 0, torch.zeros(()), torch.zeros(())
    hsic, shared, compared = torch.zeros(()), torch.zeros(()), 0
    waiting: list[torch.Tensor] = []  # (L + 1, T, D) each, for the next block
    blocks = 0

    def add_block() -> None:
        nonlocal hsic, shared, compared, waiting, blocks
        block = torch.cat(waiting, dim=1)
        hsic = hsic + hsic_between(block)
        shared = shared + shared_neighbours(block)
        compared += block.shape[1] * min(NEIGHBOURS, block.shape[1] - 1)
        waiting, blocks = [], blocks + 1

    for features, mask in clips:
        states = layer_states(encoder, features, mask).cpu().double()
        cosines = cosines_between(states)
        frames += states.shape[1]
        cosine = cosine + cosines.sum(dim=-1)
        angular = angular + (cosines.clamp(-1, 1).arccos() / torch.pi).sum(dim=-1)
        waiting.append(states[:, ::FRAME_STEP])
        if sum(part.shape[1] for part in waiting) >= BLOCK_FRAMES:
            add_block()
    if waiting and (not blocks or sum(part.shape[1] for part in waiting) >= LEAST_FRAMES):
        add_block()
    scale = hsic.diagonal().sqrt()
    matrices = {
        "cosine": cosine / frames,
        "angular": angular / frames,
        "cka": hsic / (scale[:, None] * scale),
        "mutual_neighbours": shared / compared,
    }
    return {"frames": frames} | {name: matrix.tolist() for name, matrix in matrices.items()}


def cosines_between(states: torch.Tensor) -> torch.Tensor:
    """(S, T, D) -> (S, S, T): the cosine of each frame in two states."""
    unit = torch.nn.functional.normalize(states, dim=-1)
    return torch.einsum("atd,btd->abt", unit, unit)


def hsic_between(states: torch.Tensor) -> torch.Tensor:
    """(S, n, D) -> (S, S): the unbiased HSIC of linear kernels K = X Xᵀ and L = Y Yᵀ of n frames.

        (tr(KL) + 1ᵀK1 1ᵀL1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1ᵀKL1) / (n (n - 3)),  K and L without diagonal

    CKA is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), each summed over the blocks.

    Source: Song et al. 2012, https://jmlr.org/papers/v13/song12a.html; sums over blocks,
    https://huggingface.co/papers/2010.15327
    """
    n = states.shape[1]
    kernels = states @ states.transpose(1, 2)  # (S, n, n)
    kernels.diagonal(dim1=1, dim2=2).zero_()
    rows = kernels.sum(dim=2)  # (S, n): K1
    flat = kernels.flatten(1)
    traces, totals = flat @ flat.T, rows.sum(dim=1)
    means = totals[:, None] * totals / ((n - 1) * (n - 2))
    return (traces + means - 2 / (n - 2) * rows @ rows.T) / (n * (n - 3))


def shared_neighbours(states: torch.Tensor) -> torch.Tensor:
    """(S, n, D) -> (S, S): how many of the k nearest frames of each frame two states have in common, summed.

    Nearest by cosine, the frame itself left out; k is 10. Divided by n k it is the mutual nearest-neighbour
    alignment of https://huggingface.co/papers/2405.07987.
    """
    n = states.shape[1]
    unit = torch.nn.functional.normalize(states, dim=-1)
    near = unit @ unit.transpose(1, 2)
    near.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    nearest = near.topk(min(NEIGHBOURS, n - 1), dim=2).indices
    is_near = torch.zeros_like(near).scatter_(2, nearest, 1.0).flatten(1)
    return is_near @ is_near.T


@torch.no_grad()
def output_moments(encode: Callable[..., Any], clips: Clips) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (D,), in float64, of an encoder's output over all real frames."""
    frames, total, squares = 0, torch.zeros(()), torch.zeros(())
    for features, mask in clips:
        output, is_real = encode(features.to(run_device()), mask.to(run_device()))
        real = output[is_real].cpu().double()
        frames += len(real)
        total, squares = total + real.sum(dim=0), squares + real.square().sum(dim=0)
    mean = total / frames
    return mean, (squares / frames - mean.square()).clamp(min=0).sqrt()


def refitted_norm(before: tuple[torch.Tensor, ...], wanted: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """`weight` and `bias` (D,) that give frames of mean and deviation `before` those that are `wanted`.

        weight = deviation wanted / deviation before,  bias = mean wanted - weight * mean before

    With the pruned encoder's moments before and the full one's wanted, each dimension of the final LayerNorm
    gives mean and variance as at full depth. A dimension that never varies keeps its scale.
    """
    (mean, deviation), (wanted_mean, wanted_deviation) = before, wanted
    weight = torch.where(deviation > 0, wanted_deviation / deviation, 1.0)
    return {"weight": weight.float(), "bias": (wanted_mean - weight * mean).float()}
