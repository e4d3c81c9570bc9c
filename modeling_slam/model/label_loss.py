"""Cross-entropy at the labels without a table of all logits.

A vocabulary of 152k makes the logits of a batch its largest tensor by far, and autograd would hold it several
times. Here they are made a few rows at a time, turned into their gradient in place, and forgotten: what is
kept is the gradient of the hidden states. That takes a frozen output layer, as ours is.
"""

from typing import Any

import torch

from .frozen_linear import frozen_linear

CHUNK_LOGITS = 2**25  # at most this many at a time: 128 MiB in float32


class LabelLoss(torch.autograd.Function):
    """Summed cross-entropy of `hidden @ weight.T + bias` against the labels; differentiable in `hidden`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """(N, D), (V, D), (V,) and (N,) ids -> the sum, at least float32."""
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        rows = max(1, CHUNK_LOGITS // len(weight))
        for start in range(0, len(hidden), rows):
            chunk, due = hidden[start : start + rows], labels[start : start + rows, None]
            logits = frozen_linear(chunk, weight, bias).to(total.dtype)
            log_norm = logits.logsumexp(dim=1, keepdim=True)
            total += (log_norm - logits.gather(1, due)).sum()
            if gradient is not None:
                logits.sub_(log_norm).exp_().scatter_add_(1, due, -torch.ones_like(log_norm))
                gradient[start : start + rows] = frozen_linear(logits.to(weight.dtype), weight.t())
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        return ctx.gradient * upstream[0].to(ctx.gradient.dtype), None, None, None
