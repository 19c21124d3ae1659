"""What an operator costs, from the shapes of what it reads and writes.

Three kinds of operators, and a fourth that is nobody's wish:

- products (`PRODUCTS`): matrix products, convolutions, attention. Counted in MACs.
- elementwise work and normalisation (`elementwise_names`): counted in operations, apart from the MACs.
- no arithmetic (`free_names`): views, copies, concatenations, constants; dropout, as networks are counted in
  evaluation mode.
- anything else is *uncounted* and reported by name.

Products are in this file, what has none in `elementwise`, flopbench's own operators in `fused`. Names are
those of ATen and torchvision without the namespace and without the underscore of an in-place version.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isqrt, prod
from typing import Any

from flopbench.flops.elementwise import NORMALISATION, PER_OUTPUT

Shape = Sequence[int]


def contraction(left: Shape, out: Shape) -> int:
    """MACs of a product that sums over the last axis of `left`: each output element takes that many.

    Right for `mm`, `bmm`, `matmul` with broadcast batch axes, and `linear`.
    """
    return prod(out) * left[-1]


def convolution(weight: Shape, source: Shape, out: Shape, transposed: bool = False) -> int:
    """MACs of a convolution with `weight` `[out, in/groups, *kernel]` from `source` to `out` `[B, C, *grid]`.

    Padding counts like anything else: a product with zero is carried out. Transposed, each *input*
    element meets the whole of its slice of the kernel `[in, out/groups, *kernel]`.
    """
    return prod(source if transposed else out) * prod(weight[1:])


def attention(query: Shape, key: Shape, value: Shape) -> int:
    """MACs of softmax(q kᵀ) v for q `[..., L, E]`, k `[..., S, E]`, v `[..., S, F]`: L·S·(E + F) a head.

    The heads are the query's (grouped keys serve several of them). A causal mask saves nothing here:
    what it masks is counted, as the convention is.
    """
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def attention_backward(query: Shape, key: Shape, value: Shape) -> int:
    """MACs of its gradient by a fused kernel: the scores once more, then each product twice."""
    return 2 * attention(query, key, value) + prod(query) * key[-2]


def attention_elementwise(query: Shape, key: Shape) -> int:
    """Operations of the scaling of q and the softmax within a fused attention."""
    return prod(query) + NORMALISATION["softmax"] * prod(query[:-1]) * key[-2]


def attention_backward_elementwise(query: Shape, key: Shape) -> int:
    """Operations of its gradient: the softmax once more, and to multiply, sum, subtract and scale."""
    return attention_elementwise(query, key) + 4 * prod(query[:-1]) * key[-2]


def tensordot(left: Shape, right: Shape, out: Shape) -> int:
    """MACs of a contraction of any axes of two operands, none of them an axis of all three.

    Each axis, contracted or not, belongs to two of the three shapes.
    """
    return isqrt(prod(left) * prod(right) * prod(out))


def recurrent(source: Shape, weights: Sequence[Shape]) -> int:
    """MACs of a recurrent layer that reads `source` `[..., in]`: each step meets all of its weight matrices.

    Packed sequences are `[steps, in]`. What has fewer axes among the weights is a bias.
    """
    return prod(source[:-1]) * sum(prod(weight) for weight in weights if len(weight) == 2)


def einsum(equation: str, shapes: Sequence[Shape], path: Sequence[int] = ()) -> tuple[int, int]:
    """MACs and elementwise operations of a contraction of any number of operands, as torch carries it out.

    An index of one operand alone is summed first, which is elementwise work. Two operands then make a
    product if they share an index to sum over, and are multiplied element by element if they do not.

    Args:
        equation: as `torch.einsum` takes it, with or without an arrow.
        shapes: of the operands.
        path: positions of the operands to contract, two by two, the result of each going behind the others;
            empty: left to right.
    """
    terms, _, result = equation.replace(" ", "").partition("->")
    named = [_axes(term, len(shape)) for term, shape in zip(terms.split(","), shapes, strict=True)]
    sizes: dict[str, int] = {}
    for axes, shape in zip(named, shapes, strict=True):
        for axis, size in zip(axes, shape, strict=True):
            sizes[axis] = max(size, sizes.get(axis, 1))
    if "->" in equation:
        kept = set(_axes(result, len(result.replace("...", "")))) | {a for a in sizes if a.startswith("…")}
    else:
        every = [axis for axes in named for axis in axes]
        kept = {axis for axis in sizes if axis.startswith("…") or every.count(axis) == 1}
    # An axis of length 1 broadcasts: nothing is summed over it.
    operands = [
        {axis for axis, size in zip(axes, shape, strict=True) if size > 1}
        for axes, shape in zip(named, shapes, strict=True)
    ]
    order = iter(path)
    macs = elementwise = 0
    while len(operands) > 1:
        first, second = sorted((next(order, 0), next(order, 1)))
        right, left = operands.pop(second), operands.pop(first)
        needed = kept.union(*operands)
        for mine, other in ((left, right), (right, left)):
            if alone := mine - other - needed:
                elementwise += _size(mine, sizes)
                mine -= alone
        work = _size(left | right, sizes)
        if (left & right) - needed:
            macs += work
        else:
            elementwise += work
        # Left to right, the result is the next left operand.
        operands.insert(len(operands) if path else 0, (left | right) & needed)
    if operands[0] - kept:
        elementwise += _size(operands[0], sizes)
    return macs, elementwise


def _axes(term: str, length: int) -> list[str]:
    """Names of an operand's axes; those of an ellipsis are counted from its end."""
    before, dots, behind = term.partition("...")
    hidden = length - len(before) - len(behind) if dots else 0
    return [*before, *(f"…{hidden - i}" for i in range(hidden)), *behind]


def _size(axes: set[str], sizes: Mapping[str, int]) -> int:
    return prod(sizes[axis] for axis in axes)


# Products whose first two tensors are the factors, and those that add a third tensor before them.
_FACTORS_FIRST = ("mm", "bmm", "matmul", "linear", "mv", "dot", "vdot")
_FACTORS_SECOND = ("addmm", "baddbmm", "addmv")
ATTENTION: tuple[str, ...] = (
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)

# Recurrent layers and a step of one → elementwise operations per element of the state and step: to add what
# comes from the input to what comes from the state, the gates, and the new state from them.
_SIGMOID, _TANH = PER_OUTPUT["sigmoid"], PER_OUTPUT["tanh"]
RECURRENT: dict[str, int] = {
    name + kind: operations
    for name, operations in {
        "lstm": 4 + 3 * _SIGMOID + 2 * _TANH + 4,
        "gru": 3 + 2 * _SIGMOID + _TANH + 4,
        "rnn_tanh": 1 + _TANH,
        "rnn_relu": 1 + 1,
    }.items()
    for kind in ("", "_cell")
}

# From the shapes of the operator's tensors and of its first output to its MACs.
PRODUCTS: dict[str, Callable[[list[Any], Shape], int]] = {
    **dict.fromkeys(_FACTORS_FIRST, lambda shapes, out: contraction(shapes[0], out)),
    **dict.fromkeys(_FACTORS_SECOND, lambda shapes, out: contraction(shapes[1], out)),
    **dict.fromkeys(ATTENTION, lambda shapes, out: attention(*shapes[:3])),
    **dict.fromkeys(("tensordot", "inner"), lambda shapes, out: tensordot(shapes[0], shapes[1], out)),
    "addbmm": lambda shapes, out: prod(shapes[1]) * shapes[2][-1],
}
