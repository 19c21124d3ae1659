"""Every layer commutes with a flop, and equals the dense layer that the paper's formula describes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flopbench.kernels.attention import attention_parts
from flopbench.models.factory import perturb
from flopbench.symmetries import FLOP, PLAIN, Halves, each
from flopbench.symmetries.flop import antisymmetric_kernel, symmetric_kernel
from flopbench.testing import assert_equivariant

ROOT = 0.5**0.5
GRIDS = [(3, 4), (2, 5), (1, 1)]
[flop] = FLOP.generators


def halves(*shape, seed=0, dtype=torch.float32):
    """Normal halves; the last of `shape` is the whole width."""
    generator = torch.Generator().manual_seed(seed)
    half = (*shape[:-1], shape[-1] // 2)
    return Halves(*(torch.randn(half, generator=generator, dtype=dtype) for _ in range(2)))


def dense(x):
    """The feature in the basis of mirror pairs, where a flop swaps channels: what a plain layer would see."""
    return torch.cat([(x.s + x.a) * ROOT, (x.s - x.a) * ROOT], -1)


def ready(layer) -> Any:
    return perturb(layer.double()).eval()


pointwise = {
    "linear": lambda width: FLOP.linear(width, 2 * width),
    "layer_norm": lambda width: FLOP.layer_norm(width, 1e-6),
    "gelu": lambda width: FLOP.activation(),
    "quick_gelu": lambda width: FLOP.activation("quick_gelu"),
    "depthwise": lambda width: FLOP.depthwise(2 * width, 7, "channels_last"),
    "depthwise-contiguous": lambda width: FLOP.depthwise(2 * width, 5, "contiguous"),
}


@pytest.mark.parametrize("name", pointwise)
@given(
    half=st.integers(2, 5),
    rows=st.integers(1, 3),
    columns=st.integers(2, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_layers_are_equivariant(name, half, rows, columns, seed):
    layer = pointwise[name](2 * half)
    width = 4 * half if "depthwise" in name else 2 * half
    assert_equivariant(layer, halves(2, rows, columns, width, seed=seed))


@given(half=st.integers(2, 4), rows=st.integers(1, 2), columns=st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_downsampling_is_equivariant(half, rows, columns):
    assert_equivariant(FLOP.downsample(2 * half, 4 * half), halves(2, 2 * rows, 2 * columns, 2 * half))


@given(
    patch_size=st.integers(2, 5),
    rows=st.integers(1, 2),
    columns=st.integers(1, 3),
    half=st.integers(1, 3),
    normalise=st.booleans(),
)
@settings(max_examples=10, deadline=None)
def test_patch_embedding_is_equivariant(patch_size, rows, columns, half, normalise):
    layer = FLOP.patch_embed(3, 2 * half, patch_size, normalise=normalise)
    assert_equivariant(layer, torch.randn(2, 3, rows * patch_size, columns * patch_size))


@given(rows=st.integers(1, 3), columns=st.integers(2, 5), half=st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_position_embedding_is_equivariant(rows, columns, half):
    assert_equivariant(FLOP.position_embedding(2 * half, (rows, columns)), halves(2, rows, columns, 2 * half))


@pytest.mark.parametrize("scale", [None, 0.1])
def test_residual_is_equivariant(scale):
    layer = FLOP.residual(6, layer_scale=scale, drop_path=0.5)
    assert_equivariant(layer, (halves(2, 2, 3, 6), halves(2, 2, 3, 6, seed=1)))


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("fused", [True, False])
def test_attention_is_equivariant(heads, fused):
    from flopbench.models.layers import Attention

    class OnGrid(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = Attention(FLOP, 12, heads, fused=fused)

        def forward(self, x):
            tokens = each(lambda part: part.flatten(1, 2), x)
            return each(lambda part: part.unflatten(1, (2, 3)), self.attention(tokens))

    assert_equivariant(OnGrid(), halves(2, 2, 3, 12))


def test_change_of_basis_swaps_and_invariantisation_keeps():
    x = halves(2, 2, 3, 8)

    def swap(y):
        return torch.cat(y.flip(2).chunk(2, -1)[::-1], -1) if isinstance(y, torch.Tensor) else flop(y)

    assert_equivariant(FLOP.change_of_basis(), x, action_out=swap)
    assert_equivariant(FLOP.invariantise(8), x, action_out=lambda y: y.flip(2))
    # Orthogonal: it keeps lengths.
    y = FLOP.change_of_basis()(x)
    torch.testing.assert_close(y.square().sum(), x.s.square().sum() + x.a.square().sum())


# Each layer against the dense layer that it equals after the change of basis.


def test_linear_equals_a_dense_layer_that_commutes_with_the_swap():
    layer, x = ready(FLOP.linear(6, 4)), halves(2, 5, 6, dtype=torch.double)
    w_s, w_a, b = layer.s.weight, layer.a.weight, layer.s.bias
    same, other = (w_s + w_a) / 2, (w_s - w_a) / 2
    weight = torch.cat([torch.cat([same, other], 1), torch.cat([other, same], 1)])
    bias = torch.cat([b, b]) * ROOT
    torch.testing.assert_close(dense(layer(x)), F.linear(dense(x), weight, bias))


def test_activation_equals_the_plain_one():
    x = halves(2, 5, 6, dtype=torch.double)
    torch.testing.assert_close(dense(FLOP.activation()(x)), F.gelu(dense(x)))
    quick = PLAIN.activation("quick_gelu")
    torch.testing.assert_close(dense(FLOP.activation("quick_gelu")(x)), quick(dense(x)))


def test_layer_norm_follows_the_formula():
    layer, x = ready(FLOP.layer_norm(6, 1e-3)), halves(4, 6, dtype=torch.double)
    s, a = (part - part.mean(-1, keepdim=True) for part in x)
    sigma = torch.sqrt(((s**2).mean(-1) + (a**2).mean(-1) + 1e-3) / 2).unsqueeze(-1)
    y = layer(x)
    torch.testing.assert_close(y.s, layer.weight_s * s / sigma + layer.bias)
    torch.testing.assert_close(y.a, layer.weight_a * a / sigma)


@pytest.mark.parametrize("patch_size", [2, 3, 4, 5])
def test_patch_embedding_equals_a_convolution_with_mirrored_kernels(patch_size):
    P = patch_size
    layer = ready(FLOP.patch_embed(3, 6, P))
    w_s, w_a = layer.weight_s, layer.weight_a
    zero = torch.zeros(3, 3, P, P % 2, dtype=torch.double)
    symmetric = torch.cat([w_s, w_s[..., : P // 2].flip(-1)], -1)
    antisymmetric = torch.cat([w_a, zero, -w_a.flip(-1)], -1)
    assert symmetric.shape == antisymmetric.shape == (3, 3, P, P)
    bias = torch.cat([layer.bias, torch.zeros(3, dtype=torch.double)])
    images = torch.randn(2, 3, 2 * P, 3 * P, dtype=torch.double)
    expected = F.conv2d(images, torch.cat([symmetric, antisymmetric]), bias, stride=P) * ROOT
    torch.testing.assert_close(torch.cat(layer(images), -1), expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_depthwise_equals_a_convolution_with_mirrored_kernels(grid, memory_format):
    layer = ready(FLOP.depthwise(8, 5, memory_format))
    zero = torch.zeros(2, 1, 5, 1, dtype=torch.double)
    kernels = []
    for half in (layer.weight_ss, layer.weight_as, layer.weight_sa, layer.weight_aa):
        if half.shape[-1] == 3:
            kernels.append(torch.cat([half, half[..., :2].flip(-1)], -1))
        else:
            kernels.append(torch.cat([half, zero, -half.flip(-1)], -1))
    x = halves(2, *grid, 8, dtype=torch.double)
    (s1, s2), (a1, a2) = (part.permute(0, 3, 1, 2).chunk(2, 1) for part in x)
    bias = torch.cat([layer.bias, torch.zeros(4, dtype=torch.double)])
    y = F.conv2d(torch.cat([s1, a1, s2, a2], 1), torch.cat(kernels), bias, padding=2, groups=8)
    torch.testing.assert_close(torch.cat(layer(x), -1), y.permute(0, 2, 3, 1))


def test_downsampling_equals_a_convolution_with_mirrored_kernels():
    layer, x = ready(FLOP.downsample(6, 8)), halves(2, 4, 6, 6, dtype=torch.double)

    def kernel(weight, sign):
        # [out, row, in] to [out, in, row, column].
        left = weight.transpose(1, 2).unsqueeze(-1)
        return torch.cat([left, sign * left], -1)

    w_s, w_a = layer.weight_s, layer.weight_a
    to_s = torch.cat([kernel(w_s[..., :3], 1), kernel(w_s[..., 3:], -1)], 1)
    to_a = torch.cat([kernel(w_a[..., 3:], -1), kernel(w_a[..., :3], 1)], 1)
    bias = torch.cat([layer.bias, torch.zeros(4, dtype=torch.double)])
    y = F.conv2d(torch.cat(x, -1).permute(0, 3, 1, 2), torch.cat([to_s, to_a]), bias, stride=2)
    torch.testing.assert_close(torch.cat(layer(x), -1), y.permute(0, 2, 3, 1))


def test_scores_are_the_sum_over_the_irreps_of_a_head():
    qkv = halves(2, 5, 24, dtype=torch.double)
    # Of head 1 of two, from the second half of the rows of either irrep of q and k.
    scores_s, scores_a = (part[..., 2:4] @ part[..., 6:8].mT for part in qkv)
    weights = ((scores_s + scores_a) / 2).softmax(-1)
    for part, mixed in zip(qkv, attention_parts(list(qkv), 2), strict=True):
        torch.testing.assert_close(mixed[..., 2:], weights @ part[..., 10:12])


def test_drop_path_drops_both_halves_of_a_sample():
    torch.manual_seed(0)
    layer = FLOP.residual(4, layer_scale=None, drop_path=0.5).train()
    zero = Halves(torch.zeros(64, 3, 2), torch.zeros(64, 3, 2))
    ones = Halves(torch.ones(64, 3, 2), torch.ones(64, 3, 2))
    y = layer(zero, ones)
    assert set(y.s.unique().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(y.s, y.a)
    kept = y.s[:, 0, 0].count_nonzero().item()
    assert 16 < kept < 48


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FLOP.linear(5, 4), "multiple of 2 channels, got 5"),
        (lambda: FLOP.depthwise(6, 7, "channels_last"), "multiple of 4 channels"),
        (lambda: FLOP.depthwise(8, 4, "channels_last"), "kernel of odd size"),
        (lambda: FLOP.residual(4, layer_scale=1.0, drop_path=1.0), "drop_path must lie"),
    ],
)
def test_what_does_not_split_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_what_a_symmetry_has_not_is_not_pretended():
    with pytest.raises(NotImplementedError, match="the symmetry flop has no affine layer"):
        FLOP.affine(4)


def test_mirror_refuses_what_it_cannot_tell():
    with pytest.raises(TypeError, match="state the action"):
        flop(halves(2, 5, 6))
    with pytest.raises(TypeError, match="state the action"):
        flop(torch.zeros(2, 5, 6))


def test_kernels_are_mirrored():
    half = torch.tensor([[1.0, 2.0, 3.0]])
    assert symmetric_kernel(half).tolist() == [[1, 2, 3, 2, 1]]
    assert antisymmetric_kernel(half).tolist() == [[1, 2, 3, 0, -3, -2, -1]]
