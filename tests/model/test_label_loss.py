"""The loss at the labels, against the textbook's in float64."""

import pytest
import torch

from modeling_slam.model import label_loss
from modeling_slam.model.label_loss import LabelLoss


def example(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Hidden states of 7 labels, 11 words, and a label that comes twice."""
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(7, 5), 3 * torch.randn(11, 5), torch.randn(11)
    labels = torch.tensor([0, 10, 3, 3, 7, 1, 2])
    return (*(tensor.to(dtype) for tensor in (hidden, weight, bias)), labels)


@pytest.mark.parametrize("chunk_logits", [1, 25, 2**25])
@pytest.mark.parametrize("with_bias", [False, True])
def test_loss_and_gradient_are_those_of_full_logits_in_float64(monkeypatch, chunk_logits, with_bias):
    monkeypatch.setattr(label_loss, "CHUNK_LOGITS", chunk_logits)
    hidden, weight, bias, labels = example(torch.float32)
    bias = bias if with_bias else None
    loss = LabelLoss.apply(hidden.requires_grad_(), weight, bias, labels)
    (loss / 3).backward()
    exact = hidden.detach().double().requires_grad_()
    logits = torch.nn.functional.linear(exact, weight.double(), None if bias is None else bias.double())
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    (expected / 3).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(hidden.grad.double(), exact.grad, atol=1e-6, rtol=1e-5)


def test_the_gradient_is_the_slope_of_the_loss():
    hidden, weight, bias, labels = example(torch.float64)
    assert torch.autograd.gradcheck(
        lambda h: LabelLoss.apply(h, weight, bias, labels), hidden.requires_grad_()
    )


def test_bf16_autocast_sums_in_float32():
    hidden, weight, bias, labels = example(torch.float32)
    exact = LabelLoss.apply(hidden, weight, bias, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LabelLoss.apply(hidden.requires_grad_(), weight, bias, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    assert hidden.grad.isfinite().all()


def test_without_labels_the_loss_is_zero():
    hidden, weight, bias, _ = example(torch.float32)
    loss = LabelLoss.apply(hidden[:0].requires_grad_(), weight, bias, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
