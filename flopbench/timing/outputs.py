"""Whether a pass computes what it must: outputs held against others, and inputs that stay what they are."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flopbench.modes import DeviceKind
from flopbench.private import version
from flopbench.structures import leaves, named_leaves, tensors

# Tensors are checked, and what else is here belongs to the network itself: nothing was computed.
_KNOWN = (Tensor, type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest |got − wanted| over the root mean square of `wanted`.

    Of logits, whose mean is about zero, that is their deviation; unlike it, it also serves for a single
    number and for outputs that are all the same.

    Returns:
        The error. Where all of `wanted` is zero, or nothing in it: 0 if `got` is the same, else infinite.
        Infinite for unlike shapes and for what is not finite.
    """
    if got.shape != wanted.shape:
        return math.inf
    if wanted.numel() == 0:
        return 0.0
    expected = numbers(wanted)
    error = (numbers(got) - expected).abs().max().item()
    size = expected.square().mean().sqrt().item()
    if error == 0 and size == 0:
        return 0.0
    relative = error / size if size else math.inf
    return relative if math.isfinite(relative) else math.inf


def relative_errors(got: Any, wanted: Any) -> list[float]:
    """`relative_error` of each tensor that two outputs have in common, in the order of `leaves`."""
    return [relative_error(*pair) for pair in zip(tensors(got), tensors(wanted), strict=False)]


def shapes(output: Any) -> list[torch.Size]:
    """Those of an output's tensors."""
    return [tensor.shape for tensor in tensors(output)]


class Common(NamedTuple):
    """What two outputs have in common, each part with its path, and what only one of them has.

    A part whose shape differs is in both of the latter.
    """

    both: list[tuple[str, Tensor, Tensor]]
    first: dict[str, Tensor]
    second: dict[str, Tensor]


def in_common(first: Any, second: Any) -> Common:
    """Tensors of the same path and shape; in their order where no path is the same and all shapes are."""
    one, other = ({path: x for path, x in named_leaves(y) if isinstance(x, Tensor)} for y in (first, second))
    if not one.keys() & other.keys() and shapes(first) == shapes(second):
        other = dict(zip(one, other.values(), strict=False))
    same = [path for path, x in one.items() if path in other and other[path].shape == x.shape]
    alone = ({path: x for path, x in parts.items() if path not in same} for parts in (one, other))
    return Common([(path, one[path], other[path]) for path in same], *alone)


def numbers(tensor: Tensor) -> Tensor:
    """The real numbers that a tensor of any layout and kind stands for, in double precision."""
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).double()


def strange_parts(output: Any) -> list[str]:
    """The classes of what an output holds beside tensors and constants: nothing can be said of these."""
    others = (leaf for leaf in leaves(output) if not isinstance(leaf, _KNOWN))
    return sorted({type(leaf).__name__ for leaf in others})


def state_of(inputs: Sequence[Tensor]) -> list[tuple[int, str]]:
    """What changes when one of the `inputs` is written to.

    Autograd counts what is written in place; what is written past it (`.data`, a kernel of one's own) shows
    in the sum.
    """
    return [(0 if x.is_inference() else version(x), _sum(x)) for x in inputs]


def _sum(x: Tensor) -> str:
    # In words, where NaN is like NaN; without a copy, for images fill much of a device.
    exact = torch.complex128 if x.is_complex() else torch.float64
    return str(numbers(x).sum().item() if x.is_quantized else x.detach().sum(dtype=exact).item())


@contextmanager
def seeded(device: DeviceKind, seed: int = 0) -> Iterator[None]:
    """Within it, random numbers are drawn from `seed` on; afterwards as if it had not been."""
    with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(seed)
        yield
