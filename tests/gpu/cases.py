"""What is looked at on a GPU: sizes of networks, and every operation that has a Triton kernel, once.

A new kernel is checked on a GPU once it has its case here, and a test says so where it has none. With
DEVICE=cpu all is tiny, for Triton's interpreter (TRITON_INTERPRET=1).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from flopbench.kernels.attention import attention_parts
from flopbench.kernels.dispatch import choose
from flopbench.kernels.gelu import gelu
from flopbench.kernels.layer_norm import add_layer_norm_parts, layer_norm_parts
from flopbench.kernels.linear import LINEAR_GELU, linear_gelu_parts, linear_parts
from tests.kernels.agreement import TRANSFORMS, linear_inputs, parts_and_maps

Impl = Literal["eager", "triton", "fused", "batched"]

DEVICE: Literal["cpu", "cuda"] = "cpu" if os.environ.get("DEVICE") == "cpu" else "cuda"
CUDA = DEVICE == "cuda"

# A dry run does not wait for a C++ compiler, whose code it would not look at.
BACKEND = "inductor" if CUDA else "aot_eager"

# Dimensions of the irreps of a mirroring, and of mirroring and quarter turns.
HALVES, OCTIC = (1, 1), (1, 1, 1, 1, 2)


class Size(NamedTuple):
    """Of a ViT."""

    channels: int
    tokens: int
    heads: int


ON_A_GPU = {
    "S": Size(384, 197, 6),
    "B": Size(768, 197, 12),
    "L": Size(1024, 197, 16),
    # Its heads have 80 channels, which is no power of two.
    "H": Size(1280, 257, 16),
}
ON_A_CPU = {"tiny": Size(32, 5, 2)}
SIZES = ON_A_GPU if CUDA else ON_A_CPU

# Rows enough for many tiles, and few enough for any GPU and for fp64.
BATCH = 16 if CUDA else 2

# How far a row of a result may be off, relative to the root mean square of all rows.
ALLOWED = {torch.bfloat16: 1e-2, torch.float32: 2e-5}


@dataclass(frozen=True)
class Inputs:
    """Normal noise in fp64 for an operation of a size; what it is given may be slices of wider tensors."""

    size: Size
    strided: bool
    batch: int = BATCH
    device: str = DEVICE

    def rounded(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """`x` as an operation gets it."""
        width = x.shape[-1]
        wide = torch.empty(*x.shape[:-1], width * (1 + self.strided), dtype=dtype, device=self.device)
        return wide[..., :width].copy_(x)

    def noise(self, *shape: int) -> Tensor:
        """Of a shape."""
        return torch.randn(*shape, dtype=torch.float64, device=self.device)

    def parts(self, count: int, width: float = 0.5) -> list[Tensor]:
        """Parts of a feature, of `width` times its channels."""
        C, N, _ = self.size
        return [self.noise(self.batch, N, int(width * C)) for _ in range(count)]

    def longer(self) -> Self:
        """One image of 512 pixels, which has one token more than whole blocks."""
        return replace(self, size=self.size._replace(tokens=1025 if CUDA else 17), batch=1)

    def octic(self, widen: int = 1) -> list[Tensor]:
        """The six parts of an octic feature, of `widen` times its channels."""
        return [part for d in OCTIC for _ in range(d) for part in self.parts(1, widen * d / 8)]

    def gains(self, dimensions: tuple[int, ...], times: int = 1) -> list[Tensor]:
        """Vectors about 1 for the channels of irreps, so many times, and at last one more for the first."""
        channels = self.size.channels // sum(d * d for d in dimensions)
        return [1 + 0.1 * self.noise(d * channels) for d in (*times * dimensions, 1)]

    def linear(self, parts: int) -> list[Tensor]:
        """Parts, their weights, and the biases of what is invariant, to four times the channels."""
        C, N, _ = self.size
        # Of four quarters each has half of the channels, of half of the tokens.
        channels = C // min(2, parts) if parts < 6 else C // 8
        return linear_inputs(parts, (self.batch, N), channels, 4 * channels, self.noise)


@dataclass(frozen=True)
class Case:
    """An operation and what it is given.

    Attributes:
        call: `(implementation, size, *tensors)` runs it.
        inputs: its tensors.
        backward: whether it has gradients.
        slack: times the error that is allowed.
        timed: whether it is one for the table of measurements, which knows elements and not tokens.
        batched: whether it is products of parts of one shape.
    """

    call: Callable[..., Tensor | Sequence[Tensor]]
    inputs: Callable[[Inputs], list[Tensor]]
    backward: bool = True
    slack: float = 1.0
    timed: bool = True
    batched: bool = False


def linear(impl: Impl, parts: int, *x: Tensor) -> Sequence[Tensor]:
    """The linear map of all parts."""
    return linear_parts(*parts_and_maps(parts, x), impl)


def linear_gelu(impl: Impl, parts: int, *x: Tensor) -> Sequence[Tensor]:
    """The same with the GELU after it."""
    given = *parts_and_maps(parts, x), TRANSFORMS[parts], "gelu"
    which = choose(LINEAR_GELU, impl, *given).name if impl == "fused" else impl
    return LINEAR_GELU.specification(*given) if which == "eager" else linear_gelu_parts(*given, which)


def add_layer_norm(impl: Impl, group: tuple[int, ...], *x: Tensor) -> Sequence[Tensor]:
    """The layer norm of a residual sum, of a group with irreps of such dimensions."""
    parts, affine = sum(group), -1 - len(group)
    given = x[:parts], x[parts : 2 * parts], x[2 * parts : affine], x[affine:]
    return add_layer_norm_parts(*given, 1e-6, group, impl)


def attention(impl: Impl, size: Size, *x: Tensor) -> Sequence[Tensor]:
    """Attention of heads of all parts."""
    return attention_parts(x, size.heads, impl)


def _gelu(impl: Impl, _: Size, *x: Tensor) -> Sequence[Tensor]:
    return gelu(x, TRANSFORMS[len(x)], "gelu", impl)


CASES = {
    "layer_norm": Case(
        lambda impl, _, *x: layer_norm_parts(x[:2], x[2:], 1e-6, HALVES, impl),
        lambda i: [*i.parts(2), *i.gains(HALVES)],
    ),
    "layer_norm of octic parts": Case(
        lambda impl, _, *x: layer_norm_parts(x[:6], x[6:], 1e-6, OCTIC, impl),
        lambda i: [*i.octic(), *i.gains(OCTIC)],
    ),
    "add_layer_norm": Case(
        lambda impl, _, *x: add_layer_norm(impl, HALVES, *x), lambda i: [*i.parts(4), *i.gains(HALVES, 2)]
    ),
    "add_layer_norm of octic parts": Case(
        lambda impl, _, *x: add_layer_norm(impl, OCTIC, *x),
        lambda i: [*i.octic(), *i.octic(), *i.gains(OCTIC, 2)],
    ),
    "gelu of halves": Case(_gelu, lambda i: i.parts(2, 2)),
    "gelu of quarters": Case(_gelu, lambda i: i.parts(4)),
    "gelu of octic parts": Case(_gelu, lambda i: i.octic(4)),
    "attention": Case(attention, lambda i: i.parts(1, 3), slack=2),
    "attention of halves": Case(attention, lambda i: i.parts(2, 1.5), slack=2),
    "attention of many tokens": Case(attention, lambda i: i.longer().parts(2, 1.5), slack=2, timed=False),
    **{
        f"linear of {parts} parts": Case(
            lambda impl, _, *x, parts=parts: linear(impl, parts, *x),
            lambda i, parts=parts: i.linear(parts),
            slack=4,
            batched=parts == 2,
        )
        for parts in (2, 6)
    },
    **{
        f"linear_gelu of {parts} parts": Case(
            lambda impl, _, *x, parts=parts: linear_gelu(impl, parts, *x),
            lambda i, parts=parts: i.linear(parts),
            backward=False,
            slack=4,
            batched=parts in (2, 4),
        )
        for parts in TRANSFORMS
    },
}


def error_of(case: Case, given: Inputs, dtype: torch.dtype) -> float:
    """The largest error of a row of an output or gradient, of inputs that are rounded to `dtype` for both.

    Relative to the root mean square of all rows, so that a single tile that is wrong is seen.
    """
    inputs = [given.rounded(x, dtype) for x in case.inputs(given)]
    wide = [x.double() for x in inputs]
    with torch.no_grad():
        outputs = outputs_of(case, "eager", given.size, wide)
    upstream = [given.rounded(given.noise(*y.shape), dtype) for y in outputs]
    ours = _results(case, "triton", given.size, inputs, upstream)
    wide_upstream = [g.double() for g in upstream]
    pairs = zip(ours, _results(case, "eager", given.size, wide, wide_upstream), strict=True)
    return max(_error(got, right) for got, right in pairs)


def outputs_of(case: Case, impl: Impl, size: Size, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """What the operation gives, as a sequence whatever it is."""
    outputs = case.call(impl, size, *inputs)
    return [outputs] if isinstance(outputs, Tensor) else outputs


def _error(got: Tensor, right: Tensor) -> float:
    assert got.shape == right.shape
    size = right.norm(dim=-1).square().mean().sqrt() + 1e-30
    return float(((got.double() - right).norm(dim=-1) / size).max())


def _results(
    case: Case, impl: Impl, size: Size, inputs: Sequence[Tensor], upstream: Sequence[Tensor]
) -> list[Tensor]:
    """Outputs, and gradients of all inputs."""
    leaves = [x.detach().requires_grad_(case.backward) for x in inputs]
    outputs = outputs_of(case, impl, size, leaves)
    gradients: Sequence[Tensor] = ()
    if case.backward:
        gradients = torch.autograd.grad(outputs, leaves, upstream)
    return [x.detach() for x in (*outputs, *gradients)]
