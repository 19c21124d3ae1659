"""The check itself: it accepts what is equivariant, and a single wrong term is enough to fail."""

from typing import Any

import pytest
import torch
from torch import nn

import flopbench
from flopbench.symmetries import FLOP, Halves
from flopbench.testing import assert_equivariant


def halves(width=6):
    generator = torch.Generator().manual_seed(0)
    return Halves(*(torch.randn(2, 2, 3, width // 2, generator=generator) for _ in range(2)))


class Layer(nn.Module):
    """A feature's parts to whatever `fn` makes of them."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x):
        return Halves(*self.fn(x.s * self.scale, x.a))


def test_is_public():
    assert flopbench.assert_equivariant is assert_equivariant


def test_accepts_any_equivariant_function():
    assert_equivariant(Layer(lambda s, a: (s + a.square(), a * s)), halves())
    assert_equivariant(lambda x: Halves(x.s.exp(), x.a**3), halves())
    assert_equivariant(lambda images: images.mean((2, 3)), torch.randn(2, 3, 4, 5))


def test_accepts_stated_actions():
    assert_equivariant(
        lambda x: x.cumsum(-1) + x.flip(-1).cumsum(-1).flip(-1),
        torch.randn(3, 4, 5),
        action_in=lambda x: x.flip(-1),
        action_out=lambda x: x.flip(-1),
    )


@pytest.mark.parametrize(
    "fn",
    [
        lambda s, a: (s + a, a),
        lambda s, a: (s, a + 0.01),
        lambda s, a: (s, a + 0.01 * s),
        lambda s, a: (s, a.abs()),
        lambda s, a: (s.cumsum(2), a),
        lambda s, a: (s.roll(1, 2), a),
    ],
)
def test_rejects_one_wrong_term(fn):
    with pytest.raises(AssertionError, match="not equivariant under a flop: output"):
        assert_equivariant(Layer(fn), halves())


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda s, a: (s, torch.zeros_like(a) * a), "all the same"),
        (lambda s, a: (torch.ones_like(s), a), "all the same"),
        (lambda s, a: (s / 0, a), "not finite"),
        (
            lambda s, a: (torch.arange(18.0).view(1, 2, 3, 3).to(s) * 0 + torch.ones(3).to(s).cumsum(0), a),
            "depend",
        ),
    ],
)
def test_rejects_outputs_that_prove_nothing(fn, message):
    with pytest.raises(AssertionError, match=message):
        assert_equivariant(Layer(fn), halves())


def test_rejects_inputs_that_prove_nothing():
    with pytest.raises(AssertionError, match="its own image"):
        assert_equivariant(nn.Identity(), torch.ones(2, 3, 4, 4))
    with pytest.raises(AssertionError, match="its own image"):
        assert_equivariant(nn.Identity(), torch.randn(2, 5))


def test_rejects_what_only_small_initial_weights_hide():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.zeros(3))
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return Halves(x.s + self.gamma * x.a, x.a + self.bias)

    layer = Hidden()
    assert_equivariant(layer, halves(), perturbed=False, gradients=False)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(layer, halves())
    assert not layer.gamma.any()


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0].cumsum(2)


def test_rejects_a_wrong_backward():
    wrong = Layer(lambda s, a: (WrongBackward.apply(s), a))
    with pytest.raises(AssertionError, match="not equivariant under a flop: gradient"):
        assert_equivariant(wrong, halves())
    assert_equivariant(wrong, halves(), gradients=False)


def test_rejects_an_error_that_fp32_cannot_see():
    layer = Layer(lambda s, a: (s, a + 1e-7 * s))
    assert_equivariant(layer, halves(), dtypes=[torch.float32])
    with pytest.raises(AssertionError, match=r"torch\.float64"):
        assert_equivariant(layer, halves())


def test_leaves_the_module_as_it_is():
    layer: Any = FLOP.linear(6, 4).train()
    before = layer.s.weight.clone()
    assert_equivariant(layer, halves())
    assert torch.equal(layer.s.weight, before)
    assert layer.training
    assert layer.s.weight.dtype == torch.float32
    assert layer.s.weight.grad is None
