"""Layer norm of a feature's parts with one common deviation (paper: see `symmetries.irreps`)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flopbench.kernels import Impl, Name
from flopbench.kernels.dispatch import (
    Operation,
    Why,
    choose,
    cpp,
    exported,
    inductor,
    library_is_faster,
    one_part,
    triton,
    unlike_rows,
)
from flopbench.kernels.inductor import compiled
from flopbench.kernels.residual import add_scaled

MOST_PARTS = 8
"""Of a feature in C++."""


def irreps_of_parts(dimensions: Sequence[int]) -> tuple[int, ...]:
    """The irrep of each part: one of dimension d has d rows, which are a part each."""
    return tuple(index for index, dimension in enumerate(dimensions) for _ in range(dimension))


def layer_norm_parts(
    x: Sequence[Tensor],
    affine: Sequence[Tensor],
    eps: float,
    dimensions: tuple[int, ...],
    impl: Impl | Name = "auto",
    *,
    centred: bool = False,
) -> list[Tensor]:
    """Centre each part over its own channels, divide all by their common deviation, scale and shift.

    σ² = (Σ var(x_p) / d_p + ε) / Σ d², where d_p is the dimension of the irrep of which x_p is a row, and the
    second sum is over the irreps: the order of the group. Statistics in fp32.

    Args:
        x: the parts `[..., C_p]`.
        affine: γ of each irrep `[C_p]`, which its rows share, then β of the first part, the one that is
            invariant: no other can be shifted.
        eps: ε.
        dimensions: d of each irrep.
        impl: what it runs as, see `flopbench.kernels.dispatch`.
        centred: the parts have mean 0 already, so that nothing need centre them.

    Returns:
        The parts in the dtype they came in.
    """
    which = choose(LAYER_NORM, impl, x, affine).name
    if which == "cpp":
        return _in_cpp(x, [], [], affine, eps, dimensions)
    if which == "triton":
        from flopbench.kernels.triton import layer_norm as kernels

        return kernels.layer_norm_parts(list(x), [], [], list(affine), list(dimensions), eps)
    if which == "joined":
        return joined(x, affine, eps, dimensions, centred)
    run = compiled(norm_parts, *x) if which == "inductor" else norm_parts
    return run(x, affine, eps, dimensions, centred)


def norm_parts(
    x: Sequence[Tensor],
    affine: Sequence[Tensor],
    eps: float,
    dimensions: tuple[int, ...],
    centred: bool = False,
) -> list[Tensor]:
    """What `layer_norm_parts` computes, in torch's operators."""
    of, dtype = irreps_of_parts(dimensions), x[0].dtype
    wide = [_wide(part) if centred else _centred(_wide(part)) for part in x]
    first, *others = (_variance(part, dimensions[i]) for part, i in zip(wide, of, strict=True))
    variance = sum(others, start=first)
    scale = torch.rsqrt((variance + eps) / sum(d * d for d in dimensions))
    *gains, bias = affine
    normed = [part * scale * gains[i] for part, i in zip(wide, of, strict=True)]
    return [part.to(dtype) for part in (normed[0] + bias, *normed[1:])]


def joined(
    x: Sequence[Tensor],
    affine: Sequence[Tensor],
    eps: float,
    dimensions: tuple[int, ...],
    centred: bool = False,
) -> list[Tensor]:
    """What `norm_parts` computes, as one layer norm of C channels: the centred parts side by side.

    Those have mean 0, and variance Σ C_p var(x_p) / C. Each is scaled so that this is Σ var(x_p) / (d_p Σ d²)
    instead, and its γ by the inverse. In the regular representation the scale is 1/d_p, 1 for halves.
    """
    of, dtype, order = irreps_of_parts(dimensions), x[0].dtype, sum(d * d for d in dimensions)
    widths = [part.shape[-1] for part in x]
    scales = [
        (sum(widths) / (order * width * dimensions[i])) ** 0.5 for width, i in zip(widths, of, strict=True)
    ]
    wide = [_wide(part) if centred else _centred(_wide(part)) for part in x]
    # No operator for a part that has nothing to do.
    wide = [part if scale == 1 else part * scale for part, scale in zip(wide, scales, strict=True)]
    side_by_side = torch.cat(wide, dim=-1)
    *gains, shift = (vector.to(side_by_side.dtype) for vector in affine)
    gain = torch.cat(
        [gains[i] if scale == 1 else gains[i] / scale for scale, i in zip(scales, of, strict=True)]
    )
    bias = F.pad(shift, (0, sum(widths[1:])))
    normed = F.layer_norm(side_by_side, [sum(widths)], gain, bias, eps / order)
    return [part.to(dtype) for part in normed.split(widths, dim=-1)]


def add_layer_norm_parts(
    x: Sequence[Tensor],
    branch: Sequence[Tensor],
    gammas: Sequence[Tensor],
    affine: Sequence[Tensor],
    eps: float,
    dimensions: tuple[int, ...],
    impl: Impl | Name = "auto",
    *,
    centred: bool = False,
) -> list[Tensor]:
    """Add a residual branch to each part, `add_scaled`, and normalise the sums, `layer_norm_parts`.

    Args:
        x: the parts `[..., C_p]`.
        branch: what is added to each `[..., C_p]`.
        gammas: its scale for each irrep `[C_p]`; none stand for 1.
        affine: of the norm.
        eps: ε of the norm.
        dimensions: d of each irrep.
        impl: what it runs as, see `flopbench.kernels.dispatch`.
        centred: the sums have mean 0 already, so that nothing need centre them.

    Returns:
        All sums, then the norms of all.
    """
    which = choose(ADD_LAYER_NORM, impl, (*x, *branch), (*gammas, *affine)).name
    if which == "cpp":
        return _in_cpp(x, branch, gammas, affine, eps, dimensions)
    if which == "triton":
        from flopbench.kernels.triton import layer_norm as kernels

        lists = list(x), list(branch), list(gammas), list(affine), list(dimensions)
        return kernels.layer_norm_parts(*lists, eps)
    if which == "joined":
        sums = _sums(x, branch, gammas, dimensions)
        return [*sums, *joined(sums, affine, eps, dimensions, centred)]
    run = compiled(add_norm_parts, *x) if which == "inductor" else add_norm_parts
    return run(x, branch, gammas, affine, eps, dimensions, centred)


def add_norm_parts(
    x: Sequence[Tensor],
    branch: Sequence[Tensor],
    gammas: Sequence[Tensor],
    affine: Sequence[Tensor],
    eps: float,
    dimensions: tuple[int, ...],
    centred: bool = False,
) -> list[Tensor]:
    """What `add_layer_norm_parts` computes, in torch's operators."""
    sums = _sums(x, branch, gammas, dimensions)
    return [*sums, *norm_parts(sums, affine, eps, dimensions, centred)]


def _sums(
    x: Sequence[Tensor], branch: Sequence[Tensor], gammas: Sequence[Tensor], dimensions: tuple[int, ...]
) -> list[Tensor]:
    of = irreps_of_parts(dimensions)
    return [
        add_scaled(part, more, gammas[i] if gammas else None)
        for part, more, i in zip(x, branch, of, strict=True)
    ]


def _in_cpp(
    x: Sequence[Tensor],
    branch: Sequence[Tensor],
    gammas: Sequence[Tensor],
    affine: Sequence[Tensor],
    eps: float,
    dimensions: tuple[int, ...],
) -> list[Tensor]:
    from flopbench.kernels.cpp.layer_norm import layer_norm_rows as kernel

    return kernel(list(x), list(branch), list(gammas), list(affine), dimensions, eps)


def _not_in_cpp(parts: Sequence[Tensor], vectors: Sequence[Tensor] = (), features: int = 1) -> Why:
    if len(parts) > features * MOST_PARTS:
        return f"more than {MOST_PARTS} parts"
    if torch.is_grad_enabled() and any(x.requires_grad for x in (*parts, *vectors)):
        return "gradients"
    if any(x.dtype != parts[0].dtype for x in (*parts, *vectors)):
        return "tensors of several dtypes"
    return one_part(parts) or unlike_rows(parts)


def _not_both_in_cpp(parts: Sequence[Tensor], vectors: Sequence[Tensor] = ()) -> Why:
    return _not_in_cpp(parts, vectors, features=2)


def _unlike_rows(parts: Sequence[Tensor], vectors: Sequence[Tensor] = ()) -> Why:
    return unlike_rows(parts)


_JOINED = exported("joined", _unlike_rows)

LAYER_NORM = Operation(
    "layer_norm",
    norm_parts,
    (triton(one_part), _JOINED, cpp(cannot=_not_in_cpp, slower=library_is_faster), inductor(one_part)),
)
"""Of one part it is `torch.nn.LayerNorm`."""

ADD_LAYER_NORM = Operation(
    "add_layer_norm",
    add_norm_parts,
    (triton(), _JOINED, cpp(cannot=_not_both_in_cpp, slower=library_is_faster), inductor()),
    composed=True,
)
"""Its parts are those of the feature and of the branch."""


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def _variance(centred: Tensor, rows: int) -> Tensor:
    """Of one row of an irrep: they count as one together."""
    variance = centred.square().mean(-1, keepdim=True)
    return variance if rows == 1 else variance / rows


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
