"""The loss some labels at a time: the logits of all of them are never in memory together.

    python train.py recipes/nl-small.yaml --per_device_train_batch_size 64 --loss_positions 256

Each label needs logits for the whole vocabulary, their log-probabilities and the gradient of both: two
megabytes with Qwen's 151,936 tokens. Here they are made for `positions` labels and let go again, and what is
kept for the backward pass is the gradient of the states that the output layer reads. That layer is frozen,
so nothing is computed twice. Loss and gradients are the same but for rounding.

Source: Liger Kernel, https://huggingface.co/papers/2410.10989, which makes these gradients in the forward
pass too, by kernels of its own; torch's `linear_cross_entropy` of release 2.13 does it for plain weights.
"""

from typing import Any

import torch
from torch import nn

from modeling_slam import SlamAsrConfig
from modeling_slam.training.sharding import shares_weights

FLAG = "`--loss_positions`"


def check_loss_positions(positions: int | None, config: SlamAsrConfig) -> None:
    """Refuse what the loss in parts cannot do, before any weight is read.

    Raises:
        ValueError: the output layer is trained, or weights are shared out among processes.
    """
    if positions is None:
        return
    if config.train_llm or "lm_head" in config.lora_target_modules:
        raise ValueError(
            f"{FLAG} needs a frozen output layer of the LLM: leave it out beside `--train_llm` and LoRA on "
            "`lm_head`."
        )
    if shares_weights():
        raise ValueError(
            f"{FLAG} reads the LLM's output layer outside of its passes, which needs whole weights: start "
            "with recipes/accelerate/ddp.yaml, or leave it out."
        )


def use_loss_positions(model: Any, positions: int | None) -> None:
    """Make the loss of a `SlamAsrForConditionalGeneration` in parts of so many labels; `None`: as it is.

    Raises:
        ValueError: this LLM makes more of its states than its output layer does, such as scaled logits.
    """
    if positions is None:
        return
    llm, whole = model.language_model, model._label_losses
    check_output_layer(llm)

    def label_losses(
        labels: torch.Tensor, inputs: dict[str, Any], reduction: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if reduction != "sum":
            return whole(labels, inputs, reduction)
        next_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)  # due at each position
        due = next_labels != -100
        states = llm.get_decoder()(use_cache=False, **inputs).last_hidden_state
        states, wanted = states[due.to(states.device)], next_labels[due].to(states.device)
        loss = LossInParts.apply(states, wanted, llm.get_output_embeddings(), positions)
        return loss, due.nonzero()[:, 0].to(loss.device)

    model._label_losses = label_losses


class LossInParts(torch.autograd.Function):
    """Summed cross-entropy of states (n, D) by a frozen output layer; differentiable in them alone."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, wanted: torch.Tensor, output_layer: nn.Module, positions: int
    ) -> torch.Tensor:
        """(n, D) and (n,) classes -> float32 scalar."""
        learns = ctx.needs_input_grad[0]
        gradient = torch.empty_like(states) if learns else None
        total = states.new_zeros((), dtype=torch.float32)
        for first in range(0, len(states), positions):
            part = slice(first, first + positions)
            with torch.set_grad_enabled(learns):
                read = states[part].detach().requires_grad_(learns)
                loss = nn.functional.cross_entropy(output_layer(read).float(), wanted[part], reduction="sum")
            if gradient is not None:
                [gradient[part]] = torch.autograd.grad(loss, read)
            total += loss.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        [gradient] = ctx.saved_tensors
        return gradient * upstream[0], None, None, None


@torch.no_grad()
def check_output_layer(llm: Any) -> None:
    """Raises ValueError if an LLM's logits are not what its output layer makes of its last states."""
    width = llm.get_input_embeddings().weight.shape[1]
    read = torch.linspace(-1, 1, width, dtype=llm.dtype, device=llm.device)[None, None]
    logits = llm(inputs_embeds=read, use_cache=False).logits.float()
    own = llm.get_output_embeddings()(
        llm.get_decoder()(inputs_embeds=read, use_cache=False).last_hidden_state
    )
    if not torch.allclose(logits, own.float(), atol=1e-3 * float(logits.abs().max())):
        raise ValueError(
            f"{FLAG} cannot be used with a {type(llm).__name__}, which does more to its logits than its "
            "output layer: leave it out."
        )
