"""Products of frozen linear layers on CPUs, in oneDNN.

A clip makes few rows of an LLM's input, and PyTorch gives float32 products on a CPU to MKL, which slows down
there on some processors. oneDNN, in every PyTorch for CPUs, does not, and reads the weights where they are
(docs/performance.md has the figures). Training and evaluation put this on a model that is built or loaded; on
other devices and in other types the layers compute as torch's own.
"""

from typing import Any

import torch
from torch import nn


class FrozenLinear(nn.Linear):
    """`nn.Linear`, from which `use_onednn` makes it; with gradients of its weights it is that again."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., D_in) -> (..., D_out)"""
        if self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad):
            return super().forward(input)
        return frozen_linear(input, self.weight, self.bias)


def use_onednn(module: nn.Module) -> None:
    """Make every frozen, plain `nn.Linear` in it a `FrozenLinear`: the same weights, another forward."""
    for layer in module.modules():
        if type(layer) is nn.Linear and not any(weight.requires_grad for weight in layer.parameters()):
            layer.__class__ = FrozenLinear


def frozen_linear(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """(..., D_in), (D_out, D_in) and (D_out,) -> (..., D_out); differentiable in `states` alone."""
    if not _suits_onednn(states, weight):
        return nn.functional.linear(states, weight, bias)
    if torch.is_grad_enabled() and states.requires_grad:
        return _OneDnnLinear.apply(states, weight, bias)
    return _onednn_linear(states, weight, bias)


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return _onednn_linear(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return frozen_linear(upstream[0], weight.t()), None, None


def _onednn_linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")


def _suits_onednn(states: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        states.device.type == "cpu"
        and states.dtype == weight.dtype == torch.float32
        and states.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # which chooses for itself
        and torch.backends.mkldnn.is_available()
    )
