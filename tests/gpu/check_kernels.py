"""Every Triton kernel, forward and backward, against the eager operation in fp64.

At real widths, dense and strided, in bf16 and fp32. With DEVICE=cpu tiny, in Triton's interpreter. Prints a
line per kernel on a GPU, else per disagreement; exits with 1 if there is one.
"""

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flopbench.kernels.heads import merge_heads, split_heads
from flopbench.kernels.layer_norm import add_layer_norm_halves, layer_norm_halves
from flopbench.kernels.linear import LINEAR_GELU, linear_gelu_parts, linear_parts
from flopbench.kernels.mirror_gelu import gelu

CUDA = os.environ.get("DEVICE", "cuda") == "cuda"
DEVICE = torch.device("cuda" if CUDA else "cpu")
BATCH, TOKENS = (64, 197) if CUDA else (2, 5)
WIDTHS = (384, 768, 1280) if CUDA else (32,)
# Largest error of a result relative to the reference's norm; that of products is four times as large.
ALLOWED = {torch.bfloat16: 1e-2, torch.float32: 2e-5}

Impl = Literal["eager", "triton"]


@dataclass(frozen=True)
class Case:
    """An operation and what it is given.

    Attributes:
        name: as it is printed.
        call: runs it as the implementation on tensors like `inputs`.
        inputs: in fp64.
        backward: whether it has gradients.
    """

    name: str
    call: Callable[..., Tensor | Sequence[Tensor]]
    inputs: Sequence[Tensor]
    backward: bool = True

    @property
    def product(self) -> bool:
        """Whether it is a matrix product."""
        return self.name.startswith("linear")


def noise(*shape: int, strided: bool = False) -> Tensor:
    """Normal noise in fp64; strided, a slice of a wider tensor."""
    wide = torch.randn(*shape[:-1], shape[-1] * (2 if strided else 1), dtype=torch.float64, device=DEVICE)
    return wide[..., : shape[-1]]


def linear(impl: Impl, s: Tensor, a: Tensor, w_s: Tensor, w_a: Tensor, bias: Tensor) -> Sequence[Tensor]:
    """The linear map of both halves."""
    return linear_parts((s, a), (w_s, w_a), (bias, None), impl)


def linear_gelu(impl: Impl, s: Tensor, a: Tensor, w_s: Tensor, w_a: Tensor, bias: Tensor) -> Sequence[Tensor]:
    """The same with the GELU after it."""
    given = (s, a), (w_s, w_a), (bias, None), "gelu"
    return LINEAR_GELU.specification(*given) if impl == "eager" else linear_gelu_parts(*given, impl)


def cases(channels: int, *, strided: bool) -> Iterator[Case]:
    """Every operation with so many channels."""
    half, heads = channels // 2, max(1, channels // 64)

    def feature(width: int, tokens: int = TOKENS) -> Tensor:
        return noise(BATCH, tokens, width, strided=strided)

    def parts(count: int, width: int, tokens: int = TOKENS) -> list[Tensor]:
        return [feature(width, tokens) for _ in range(count)]

    def gains(count: int) -> list[Tensor]:
        return [1 + 0.1 * noise(half) for _ in range(count)]

    yield Case(
        "layer_norm", lambda i, *x: layer_norm_halves(x[:2], x[2:], 1e-6, i), [*parts(2, half), *gains(3)]
    )
    yield Case(
        "add_layer_norm",
        lambda i, *x: add_layer_norm_halves(x[:2], x[2:4], x[4:6], x[6:], 1e-6, i),
        [*parts(4, half), *gains(5)],
    )
    yield Case("gelu of halves", lambda i, *x: gelu(x, "gelu", i), parts(2, 2 * channels))
    yield Case("gelu of quarters", lambda i, *x: gelu(x, "gelu", i), parts(4, half, tokens=98))
    yield Case("split_heads", lambda i, s, a: split_heads(s, a, heads, i), parts(2, 3 * half))
    yield Case(
        "merge_heads", lambda i, x: merge_heads(x, i), [noise(BATCH, heads, TOKENS, channels // heads)]
    )
    weights = [channels**-0.5 * noise(2 * channels, half) for _ in range(2)]
    given = [*parts(2, half), *weights, noise(2 * channels)]
    yield Case("linear", linear, given)
    yield Case("linear_gelu", linear_gelu, given, backward=False)


def results(case: Case, impl: Impl, inputs: Sequence[Tensor], upstream: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, and gradients of all inputs, in fp64."""
    leaves = [x.detach().requires_grad_(case.backward) for x in inputs]
    outputs = outputs_of(case, impl, leaves)
    gradients: Sequence[Tensor] = ()
    if case.backward:
        grads = [g.to(y.dtype) for g, y in zip(upstream, outputs, strict=True)]
        gradients = torch.autograd.grad(outputs, leaves, grads)
    return [x.detach().double() for x in (*outputs, *gradients)]


def outputs_of(case: Case, impl: Impl, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """What the operation gives, as a sequence whatever it is."""
    outputs = case.call(impl, *inputs)
    return [outputs] if isinstance(outputs, Tensor) else outputs


def error_of(case: Case, dtype: torch.dtype) -> float:
    """The largest error of a result relative to its norm, of inputs that are rounded to `dtype` for both."""
    inputs = [x.to(dtype) for x in case.inputs]
    wide = [x.double() for x in inputs]
    with torch.no_grad():
        upstream = [torch.randn_like(y) for y in outputs_of(case, "eager", wide)]
    pairs = zip(
        results(case, "triton", inputs, upstream), results(case, "eager", wide, upstream), strict=True
    )
    return max(float((got - right).norm() / (right.norm() + 1e-30)) for got, right in pairs)


def main() -> int:
    """Check all; the number of disagreements."""
    tried = wrong = 0
    for C, strided in itertools.product(WIDTHS, (False, True)):
        for case, dtype in itertools.product(cases(C, strided=strided), ALLOWED):
            if CUDA and case.product and dtype != torch.bfloat16:
                continue  # Autotuning them takes minutes.
            begun = time.monotonic()
            try:
                error = error_of(case, dtype)
                agrees, found = error <= ALLOWED[dtype] * (4 if case.product else 1), f"{error:.1e}"
            except Exception as problem:
                agrees, found = False, f"{type(problem).__name__}: {str(problem)[:200]}"
            tried += 1
            wrong += not agrees
            if CUDA or not agrees:
                layout = "strided" if strided else "dense"
                seconds = time.monotonic() - begun
                verdict = "ok " if agrees else "BAD"
                print(f"{verdict} {case.name} C={C} {layout} {dtype} {found} ({seconds:.1f} s)")
    print(f"{tried - wrong} of {tried} agree")
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
