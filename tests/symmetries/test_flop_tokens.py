"""Channels and tokens in the irreps: equivariance, and the dense layers that these equal."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from flopbench.models.factory import perturb
from flopbench.symmetries import FLOP, Halves, Quarters
from flopbench.testing import assert_equivariant

ROOT = 0.5**0.5
GRIDS = [(2, 4), (2, 5), (3, 3)]


def halves(grid, width, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return Halves(*(torch.randn(2, *grid, width // 2, generator=generator, dtype=dtype) for _ in range(2)))


def quarters(grid, width, seed=0, dtype=torch.float32):
    return FLOP.with_tokens(grid).split_tokens()(halves(grid, width, seed, dtype))


def ready(layer) -> Any:
    return perturb(layer.double()).eval()


@pytest.mark.parametrize("grid", GRIDS)
def test_splitting_tokens_is_equivariant_and_orthogonal(grid):
    x = halves(grid, 6)
    tokens = FLOP.with_tokens(grid)
    assert_equivariant(tokens.split_tokens(), x, FLOP.generators[0], tokens.generators[0])
    y = tokens.split_tokens()(x)
    assert y.ss.shape[1] + y.sa.shape[1] == grid[0] * grid[1]
    torch.testing.assert_close(sum((part**2).sum() for part in y), (x.s**2).sum() + (x.a**2).sum())


@pytest.mark.parametrize("grid", GRIDS)
def test_change_of_basis_undoes_the_token_transform(grid):
    tokens, x = FLOP.with_tokens(grid), halves(grid, 6)
    pairs = torch.cat([(x.s + x.a) * ROOT, (x.s - x.a) * ROOT], -1)
    joined = tokens.change_of_basis()(tokens.split_tokens()(x))
    torch.testing.assert_close(joined, pairs.flatten(1, 2))


@pytest.mark.parametrize("grid", GRIDS)
def test_invariantisation_is_invariant(grid):
    x = quarters(grid, 6)
    layer = FLOP.with_tokens(grid).invariantise(8)
    assert layer(x).shape == (2, grid[0] * grid[1], 6)
    assert_equivariant(layer, x, action_out=None, symmetry=FLOP.with_tokens(grid))


@pytest.mark.parametrize("name", ["linear", "affine", "gelu", "quick_gelu", "mixing", "residual"])
@given(grid=st.tuples(st.integers(1, 3), st.integers(2, 5)), half=st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_layers_are_equivariant(name, grid, half):
    tokens, width = FLOP.with_tokens(grid), 2 * half
    layer = {
        "linear": lambda: tokens.linear(width, 2 * width),
        "affine": lambda: tokens.affine(width),
        "gelu": lambda: tokens.activation(),
        "quick_gelu": lambda: tokens.activation("quick_gelu"),
        "mixing": lambda: tokens.token_linear(grid),
        "residual": lambda: tokens.residual(width, layer_scale=0.1, drop_path=0.1),
    }[name]()
    inputs = [quarters(grid, width)]
    if name == "residual":
        inputs.append(quarters(grid, width, seed=1))
    assert_equivariant(layer, tuple(inputs), symmetry=tokens)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("head", ["invariant", "absolute"])
def test_pooling_is_invariant_and_the_mean_over_all_tokens(grid, head):
    tokens, x = FLOP.with_tokens(grid), quarters(grid, 6)
    pooled = tokens.pooled(x, head)
    torch.testing.assert_close(pooled, tokens.pooled(tokens.generators[0](x), head))
    torch.testing.assert_close(pooled[:, :3], torch.cat([x.ss, x.aa], 1).mean(1))
    if head == "absolute":
        torch.testing.assert_close(pooled[:, 3:], torch.cat([x.sa, x.as_], 1).abs().mean(1))
    assert pooled.shape[1] == tokens.invariant_width(6, head)


@pytest.mark.parametrize("grid", GRIDS)
def test_activation_equals_the_plain_one_after_the_change_of_basis(grid):
    tokens, x = FLOP.with_tokens(grid), quarters(grid, 6, dtype=torch.double)
    basis = tokens.change_of_basis()
    torch.testing.assert_close(basis(tokens.activation()(x)), F.gelu(basis(x)))


@pytest.mark.parametrize("grid", GRIDS)
def test_mixing_equals_a_block_diagonal_matrix_on_the_transformed_tokens(grid):
    layer, x = ready(FLOP.with_tokens(grid).token_linear(grid)), quarters(grid, 6, dtype=torch.double)
    weight = torch.block_diag(layer.s.weight, layer.a.weight)
    bias, zero = (layer.s.bias, layer.a.bias), torch.zeros_like
    y = layer(x)
    s = weight @ torch.cat([x.ss, x.sa], 1) + torch.cat([bias[0], zero(bias[1])])[:, None]
    a = weight @ torch.cat([x.as_, x.aa], 1) + torch.cat([zero(bias[0]), bias[1]])[:, None]
    torch.testing.assert_close(torch.cat([y.ss, y.sa], 1), s)
    torch.testing.assert_close(torch.cat([y.as_, y.aa], 1), a)


def test_linear_and_affine_act_by_the_irrep_of_the_channel():
    x = quarters((2, 4), 6, dtype=torch.double)
    tokens = FLOP.with_tokens((2, 4))
    linear, affine = ready(tokens.linear(6, 4)), ready(tokens.affine(6))
    expected = Quarters(linear.s(x.ss), x.sa @ linear.s.weight.T, x.as_ @ linear.a.weight.T, linear.a(x.aa))
    torch.testing.assert_close(tuple(linear(x)), tuple(expected))
    expected = Quarters(
        affine.weight_s * x.ss + affine.bias_s,
        affine.weight_s * x.sa,
        affine.weight_a * x.as_,
        affine.weight_a * x.aa + affine.bias_a,
    )
    torch.testing.assert_close(tuple(affine(x)), tuple(expected))


def test_biases_are_on_the_invariant_quarters_only():
    grid = (2, 4)
    tokens = FLOP.with_tokens(grid)
    zero = Quarters(*(torch.zeros(1, 4, 3) for _ in range(4)))
    for layer in (tokens.linear(6, 6), tokens.affine(6), tokens.token_linear(grid)):
        y = perturb(layer)(zero)
        assert not y.sa.any()
        assert not y.as_.any()
        assert y.ss.any()
        assert y.aa.any()


def test_a_grid_of_one_column_has_nothing_to_mirror():
    with pytest.raises(ValueError, match="two columns"):
        FLOP.with_tokens((4, 1))
