"""What an operator costs, from the shapes of what it reads and writes.

Three kinds of operators, and a fourth that is nobody's wish:

- products (`PRODUCTS`): matrix products, convolutions, attention. Counted in MACs.
- elementwise work and normalisation (`elementwise_names`): counted in operations, apart from the MACs.
- no arithmetic (`free_names`): views, copies, concatenations, constants; dropout, as networks are counted in
  evaluation mode.
- anything else is *uncounted* and reported by name.

Products are in this file, what has none in `elementwise`. Names are those of ATen and torchvision without the
namespace and without the underscore of an in-place version.
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


def halves(shapes: Sequence[Shape]) -> int:
    """MACs of the products of halves `[..., in/2]` with weights `[out/2, in/2]`, the third shape."""
    return 2 * prod(shapes[0]) * shapes[2][0]


def linear_gelu(shapes: Sequence[Shape]) -> int:
    """MACs of the products of 1, 2 or 4 parts `[..., in]` with 1 or 2 weights `[out, in]`, then biases."""
    parts = _parts_of(shapes)
    return parts * prod(shapes[0]) * shapes[parts][0]


def _parts_of(shapes: Sequence[Shape]) -> int:
    # Of as many tensors there are a part and a weight, two of each, or four parts and two weights.
    return 1 if len(shapes) < 4 else 2 if len(shapes) < 6 else 4


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


def attention_parts(shapes: Sequence[Shape]) -> int:
    """MACs of attention from the parts of query, key and value together, `[B, N, 3·C_p]` each."""
    batch, tokens, _ = shapes[0]
    return 2 * batch * tokens**2 * sum(part[-1] // 3 for part in shapes)


def attention_parts_backward(shapes: Sequence[Shape]) -> int:
    """MACs of its gradient, counted as `attention_backward` counts it."""
    return attention_parts(_qkv(shapes)) * 5 // 2


def _qkv(shapes: Sequence[Shape]) -> Sequence[Shape]:
    # They come between the gradients and what was mixed, of as many parts each; then a number per query.
    parts = len(shapes) // 3
    return shapes[parts : 2 * parts]


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


def _norm_halves(shape: Shape) -> int:
    # An element of either half: two means, centre, square, scale, gain; bias on one; four steps a row.
    return 13 * prod(shape) + (1 + 1 + 4 + 4) * prod(shape[:-1])


def _norm_halves_backward(shape: Shape) -> int:
    return 2 * NORMALISATION["native_layer_norm_backward"] * prod(shape)


def _mirror(shapes: Sequence[Shape], options: Sequence[Any], backward: bool = False) -> int:
    pointwise = 6 if "quick_gelu" in options else PER_OUTPUT["gelu"]
    # Four quarters, or two halves, in which no token has a partner.
    paired = prod(shapes[1]) if len(shapes) == (8 if backward else 4) else 0
    # Two transforms of four elements, 12 operations each. The gradient goes there once more and multiplies.
    quadruples = (24 + 4 * pointwise + 16 * backward) * paired
    # To mirror pairs of channels and back, two elements at a time.
    return quadruples + (8 + 2 * pointwise + 6 * backward) * (prod(shapes[0]) - paired)


def _heads(qkv: Sequence[Shape], heads: int) -> tuple[Shape, Shape]:
    # Those of query and key.
    batch, tokens, _ = qkv[0]
    shape = batch, heads, tokens, sum(part[-1] for part in qkv) // (3 * heads)
    return shape, shape


def _linear_gelu(shapes: Sequence[Shape], options: Sequence[Any]) -> int:
    parts = _parts_of(shapes)
    hidden = (*shapes[0][:-1], shapes[parts][0])
    if parts == 1:
        return (6 if "quick_gelu" in options else PER_OUTPUT["gelu"]) * prod(hidden)
    return _mirror([hidden] * parts, options)


# Elementwise operations of our fused operators, from the shapes of the tensors that they read and from their
# other arguments. Forward they are those of the eager operations; the gradients' are the kernels' own, which
# are fewer than what autograd makes of the eager ones.
FUSED: dict[str, Callable[[Sequence[Shape], Sequence[Any]], int]] = {
    # How many tensors are read tells whether a branch was added, and whether it was scaled.
    "layer_norm_halves": lambda shapes, options: (
        _norm_halves(shapes[0]) + {5: 0, 7: 2, 9: 4}[len(shapes)] * prod(shapes[0])
    ),
    "layer_norm_halves_backward": lambda shapes, options: (
        _norm_halves_backward(shapes[0]) + {6: 0, 8: 2, 12: 8}[len(shapes)] * prod(shapes[0])
    ),
    "mirror_gelu": _mirror,
    "mirror_gelu_backward": lambda shapes, options: _mirror(shapes, options, backward=True),
    "linear_gelu": _linear_gelu,
    # How many heads there are is the last argument.
    "flash_attention_parts": lambda shapes, options: attention_elementwise(*_heads(shapes, options[-1])),
    "flash_attention_parts_backward": lambda shapes, options: attention_backward_elementwise(
        *_heads(_qkv(shapes), options[-1])
    ),
}


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

# Ours: the products of all parts of a feature, and attention.
OURS: dict[str, Callable[[Sequence[Shape]], int]] = {
    "linear_halves": halves,
    "linear_gelu": linear_gelu,
    "flash_attention_parts": attention_parts,
    "flash_attention_parts_backward": attention_parts_backward,
}

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
    **{name: lambda shapes, out, macs=macs: macs(shapes) for name, macs in OURS.items()},
    **dict.fromkeys(("tensordot", "inner"), lambda shapes, out: tensordot(shapes[0], shapes[1], out)),
    "addbmm": lambda shapes, out: prod(shapes[1]) * shapes[2][-1],
}
