"""Fused operations against the eager ones that specify them."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import opcheck

from flopbench.cells import Cell
from flopbench.kernels import Impl
from flopbench.kernels.cpp import load
from flopbench.kernels.gelu import pointwise_parts
from flopbench.kernels.linear import Maps
from flopbench.kernels.transform import HALVES, POINT, QUARTERS
from flopbench.symmetries import OCTIC

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-2}

Operation = Callable[..., Any]

TRANSFORMS = {1: POINT, 2: HALVES, 4: QUARTERS, 6: OCTIC.transform}
"""By the number of parts."""

OF = {1: (0,), 2: (0, 1), 4: (0, 0, 1, 1), 6: (0, 1, 2, 3, 4, 4)}
"""The weight of each part, likewise."""

BIASED = {1: (0,), 2: (0,), 4: (0, 3), 6: (0,)}
"""The parts that are invariant, likewise."""

PARTS = tuple(TRANSFORMS)


def gelus(*parts: Tensor) -> Sequence[Tensor]:
    """The exact GELU of parts, as it is specified."""
    return pointwise_parts(parts, TRANSFORMS[len(parts)], "gelu")


def linear_inputs(
    parts: int, front: Sequence[int], inner: int, out: int, normal: Callable[..., Tensor]
) -> list[Tensor]:
    """Parts, weights and biases of a linear map of `inner` to `out` channels for every slice of a part."""
    slices, of = TRANSFORMS[parts].slices, OF[parts]
    widths = [slices[of.index(weight)] for weight in range(max(of) + 1)]
    return [
        *(normal(*front, inner * count) for count in slices),
        *((normal(out * n, inner * n) * (inner * n) ** -0.5).detach() for n in widths),
        *(normal(out * slices[p]) for p in BIASED[parts]),
    ]


def parts_and_maps(parts: int, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Maps]:
    """What `linear_inputs` gives, as operations take it."""
    last = parts + max(OF[parts]) + 1
    biases: list[Tensor | None] = [None] * parts
    for part, bias in zip(BIASED[parts], tensors[last:], strict=True):
        biases[part] = bias
    return tensors[:parts], Maps(tensors[parts:last], OF[parts], biases)


def in_cpp(operator: str) -> Operation:
    """One of our operators in C++, those included that nothing in Python calls."""

    def call(*arguments: Any) -> Any:
        load()
        return getattr(torch.ops.flopbench, operator).default(*arguments)

    return call


def normal(*shape: int, dtype: torch.dtype = torch.float64, device: Any = "cpu") -> Tensor:
    """Normal noise that takes a gradient."""
    return torch.randn(*shape, dtype=dtype, device=device).requires_grad_()


def fused_cell() -> Cell:
    """A small uncompiled cell on the CPU that asks for fused kernels."""
    return Cell.model_validate(
        {
            "pair": {"baseline": "vit_ti16", "candidate": "vit_ti16.flop"},
            "device": "cpu",
            "batch_size": 1,
            "pass": "forward",
            "dtype": "fp32",
            "mode": "eager",
            "image_size": (32, 32),
            "impl": "fused",
        }
    )


def assert_agrees(operation: Operation, inputs: Sequence[Tensor | None], impl: Impl = "fused") -> None:
    """`operation(*inputs, impl)` is what it is eager, values and gradients.

    The eager one is taken in double precision: what is left is the other one's own error, relative to the
    largest element, or to 1 where that is smaller. The inputs have to be of size 1.
    """
    given = [x for x in inputs if x is not None]
    fused = _tensors(operation(*inputs, impl))
    wide = [None if x is None else x.detach().double().requires_grad_() for x in inputs]
    eager = _tensors(operation(*wide, "eager"))
    for got, expected in zip(fused, eager, strict=True):
        assert got.shape == expected.shape
        _close(got, expected, given[0].dtype)
    grads = [torch.randn_like(y) for y in fused]
    got = torch.autograd.grad(fused, given, grads)
    expected = torch.autograd.grad(eager, [x for x in wide if x is not None], [g.double() for g in grads])
    for x, one, two in zip(given, got, expected, strict=True):
        assert (one.dtype, one.shape) == (x.dtype, x.shape)
        _close(one, two, given[0].dtype)


def assert_traceable(operation: Operation, inputs: Sequence[Tensor]) -> None:
    """torch.compile and torch.export take the fused operation whole, and it stays what it is."""
    outputs = _tensors(operation(*inputs, "fused"))
    compiled = torch.compile(operation, fullgraph=True, backend="aot_eager")
    again = _tensors(compiled(*inputs, "fused"))
    torch.testing.assert_close(again, outputs)
    grads = [torch.randn_like(y) for y in outputs]
    torch.testing.assert_close(
        torch.autograd.grad(again, inputs, grads), torch.autograd.grad(outputs, inputs, grads)
    )

    class Layer(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Any:
            return operation(*inputs, "fused")

    detached = tuple(x.detach() for x in inputs)
    exported = torch.export.export(Layer(), detached)
    assert any("flopbench" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(_tensors(exported.module()(*detached)), outputs)


def check_operator(operator: Any, *args: Any) -> None:
    """torch's own checks of a custom operator: schema, shape function, autograd, tracing."""
    with warnings.catch_warnings():
        # They look at the gradients of tensors that have none.
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        opcheck(operator, args)


def _tensors(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


def _close(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    # Inputs are of size 1, and so are the terms that may cancel in a result: rounding goes by them.
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(got.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)
