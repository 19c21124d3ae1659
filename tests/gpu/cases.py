"""What is looked at on a GPU: sizes of networks, and every operation that has a Triton kernel, once.

A new kernel is checked on a GPU once it has its case here, and a test says so where it has none. With
DEVICE=cpu all is tiny, for Triton's interpreter (TRITON_INTERPRET=1).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from flopbench.kernels.attention import attention_parts
from flopbench.kernels.dispatch import choose
from flopbench.kernels.gelu import gelu
from flopbench.kernels.layer_norm import add_layer_norm_parts, layer_norm_parts
from flopbench.kernels.linear import LINEAR_GELU, Maps, linear_gelu_parts, linear_parts
from flopbench.kernels.transform import HALVES, POINT, QUARTERS

Impl = Literal["eager", "triton", "fused"]

DEVICE: Literal["cpu", "cuda"] = "cpu" if os.environ.get("DEVICE") == "cpu" else "cuda"
CUDA = DEVICE == "cuda"


class Size(NamedTuple):
    """Of a ViT."""

    channels: int
    tokens: int
    heads: int


SIZES = (
    {
        "S": Size(384, 197, 6),
        "B": Size(768, 197, 12),
        "L": Size(1024, 197, 16),
        # Its heads have 80 channels, which is no power of two.
        "H": Size(1280, 257, 16),
    }
    if CUDA
    else {"tiny": Size(32, 5, 2)}
)

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

    def gains(self, count: int) -> list[Tensor]:
        """Vectors about 1 for the channels of a half."""
        return [1 + 0.1 * self.noise(self.size.channels // 2) for _ in range(count)]

    def linear(self, widen: int, parts: int = 2) -> list[Tensor]:
        """Parts, their weights, and the biases of what is invariant."""
        channels = self.size.channels
        out = widen * channels // 2
        weights = [channels**-0.5 * self.noise(out, channels // 2) for _ in range(min(parts, 2))]
        return [*self.parts(parts), *weights, *(self.noise(out) for _ in range(2 if parts == 4 else 1))]


@dataclass(frozen=True)
class Case:
    """An operation and what it is given.

    Attributes:
        call: `(implementation, size, *tensors)` runs it.
        inputs: its tensors.
        backward: whether it has gradients.
        slack: times the error that is allowed.
    """

    call: Callable[..., Tensor | Sequence[Tensor]]
    inputs: Callable[[Inputs], list[Tensor]]
    backward: bool = True
    slack: float = 1.0


def linear(impl: Impl, s: Tensor, a: Tensor, w_s: Tensor, w_a: Tensor, bias: Tensor) -> Sequence[Tensor]:
    """The linear map of both halves."""
    return linear_parts((s, a), Maps((w_s, w_a), (0, 1), (bias, None)), impl)


OF = {1: (0,), 2: (0, 1), 4: (0, 0, 1, 1)}
TRANSFORMS = {1: POINT, 2: HALVES, 4: QUARTERS}


def linear_gelu(impl: Impl, parts: int, *x: Tensor) -> Sequence[Tensor]:
    """The same with the GELU after it, of one part, two halves or four quarters."""
    end = parts + min(parts, 2)
    first, *last = x[end:]
    biases = [first, *[None] * (parts - 1 - len(last)), *last]
    maps = Maps(x[parts:end], OF[parts], biases)
    given = x[:parts], maps, TRANSFORMS[parts], "gelu"
    which = choose(LINEAR_GELU, impl, *given).name if impl == "fused" else impl
    return LINEAR_GELU.specification(*given) if which == "eager" else linear_gelu_parts(*given, which)


CASES = {
    "layer_norm": Case(
        lambda impl, _, *x: layer_norm_parts(x[:2], x[2:], 1e-6, (1, 1), impl),
        lambda i: [*i.parts(2), *i.gains(3)],
    ),
    "add_layer_norm": Case(
        lambda impl, _, *x: add_layer_norm_parts(x[:2], x[2:4], x[4:6], x[6:], 1e-6, (1, 1), impl),
        lambda i: [*i.parts(4), *i.gains(5)],
    ),
    "gelu of halves": Case(lambda impl, _, *x: gelu(x, HALVES, "gelu", impl), lambda i: i.parts(2, 2)),
    "gelu of quarters": Case(lambda impl, _, *x: gelu(x, QUARTERS, "gelu", impl), lambda i: i.parts(4)),
    "attention": Case(
        lambda impl, size, *x: attention_parts(x, size.heads, impl), lambda i: i.parts(1, 3), slack=2
    ),
    "attention of halves": Case(
        lambda impl, size, *x: attention_parts(x, size.heads, impl), lambda i: i.parts(2, 1.5), slack=2
    ),
    "linear": Case(lambda impl, _, *x: linear(impl, *x), lambda i: i.linear(4), slack=4),
    **{
        f"linear_gelu of {parts} parts": Case(
            lambda impl, _, *x, parts=parts: linear_gelu(impl, parts, *x),
            lambda i, parts=parts: i.linear(4, parts),
            backward=False,
            slack=4,
        )
        for parts in (1, 2, 4)
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
