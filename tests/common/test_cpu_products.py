"""Frozen linear layers against the same sums in float64, and where torch's own must take over."""

import copy

import pytest
import torch
from torch import nn

from modeling_slam.common import cpu_products
from modeling_slam.common.cpu_products import FrozenLinear, use_onednn


def layer(bias: bool = True) -> FrozenLinear:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(37, 53, bias=bias)).requires_grad_(False)
    use_onednn(model)
    return model[0]


@pytest.fixture
def products(monkeypatch) -> list[torch.Size]:
    """Shapes of what oneDNN was given."""
    shapes, plain = [], cpu_products._onednn_linear

    def counted(states, weight, bias):
        shapes.append(states.shape)
        return plain(states, weight, bias)

    monkeypatch.setattr(cpu_products, "_onednn_linear", counted)
    return shapes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(37,), (1, 37), (150, 37), (2, 3, 37)])
def test_output_and_gradient_are_those_of_float64(products, shape, bias):
    frozen = layer(bias)
    states = torch.randn(shape, requires_grad=True)
    exact_states = states.detach().double().requires_grad_()
    output, exact = frozen(states), copy.deepcopy(frozen).double()(exact_states)
    upstream = torch.randn_like(output)
    output.backward(upstream)
    exact.backward(upstream.double())
    assert len(products) == 2
    torch.testing.assert_close(output.double(), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states.grad.double(), exact_states.grad, atol=1e-5, rtol=1e-5)


def test_views_of_other_strides_are_read_right():
    frozen = layer()
    states = torch.randn(37, 8).t()
    torch.testing.assert_close(frozen(states), nn.functional.linear(states, frozen.weight, frozen.bias))
    states = torch.randn(4, 9, 37)[:, 1::2]
    torch.testing.assert_close(frozen(states), nn.functional.linear(states, frozen.weight, frozen.bias))


def test_weights_that_learn_get_their_gradients(products):
    learning = layer().requires_grad_()
    learning(torch.randn(3, 37)).sum().backward()
    assert not products
    assert learning.weight.grad.abs().sum() > 0


def test_other_types_are_torchs_own(products):
    frozen, states = layer(), torch.randn(3, 37)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert frozen(states).dtype == torch.bfloat16
    assert frozen(states[:0]).shape == (0, 53)
    assert frozen.double()(states.double()).dtype == torch.float64
    assert not products


def test_a_compiled_layer_is_the_layer(products):
    frozen, states = layer(), torch.randn(3, 37)
    compiled = torch.compile(frozen, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(states), frozen(states))
    assert len(products) == 1
