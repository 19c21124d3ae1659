"""Norms of parts in C++, with the residual sum before them and without."""

from typing import Any

import pytest
import torch

from flopbench.kernels.inductor import missing_compiler
from flopbench.kernels.layer_norm import (
    ADD_LAYER_NORM,
    LAYER_NORM,
    add_layer_norm_parts,
    add_norm_parts,
    layer_norm_parts,
    norm_parts,
)
from tests.kernels.agreement import check_operator, in_cpp

pytestmark = [
    pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
# Dimensions of irreps, and a row's channels for each: whole vectors, some more, and fewer than one.
FEATURES = [((1, 1), (48, 48)), ((1, 1), (5, 5)), ((1, 1, 1, 1, 2), (24, 24, 24, 24, 48)), ((1, 2), (3, 6))]


def random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    # A mean that is far from zero: the parts are centred first.
    return torch.randn(*shape, dtype=dtype) + 3


def operands(dimensions: tuple[int, ...], widths: tuple[int, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    rows = [width for width, d in zip(widths, dimensions, strict=True) for _ in range(d)]
    x, branch = ([random(2, 7, width, dtype=dtype) for width in rows] for _ in range(2))
    gammas = [random(width, dtype=dtype) for width in widths]
    return x, branch, gammas, [*(gamma.flip(0) for gamma in gammas), random(widths[0], dtype=dtype)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("dimensions", "widths"), FEATURES)
def test_they_are_what_is_specified(no_triton, dimensions, widths, dtype):
    x, branch, gammas, affine = operands(dimensions, widths, dtype)
    near: Any = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    norms = layer_norm_parts(x, affine, 0.5, dimensions, "cpp")
    torch.testing.assert_close(norms, norm_parts(x, affine, 0.5, dimensions), **near)
    for scales in (gammas, []):
        both = add_layer_norm_parts(x, branch, scales, affine, 0.5, dimensions, "cpp")
        torch.testing.assert_close(both, add_norm_parts(x, branch, scales, affine, 0.5, dimensions), **near)


def test_strided_parts_and_no_tokens(no_triton):
    x, *_, affine = operands((1, 1), (16, 16), torch.float64)
    strided = [part.transpose(0, 1) for part in x]
    got = layer_norm_parts(strided, affine, 1e-6, (1, 1), "cpp")
    torch.testing.assert_close(got, norm_parts(strided, affine, 1e-6, (1, 1)))
    empty = in_cpp("layer_norm_rows")([part[:0] for part in x], [], [], affine, (1, 1), 1e-6)
    assert [part.shape for part in empty] == [(0, 7, 16)] * 2


def test_operator():
    x, branch, gammas, affine = operands((1, 2), (16, 32), torch.float32)
    in_cpp("layer_norm_rows")(x, branch, gammas, affine, (1, 2), 1e-6)
    operator = torch.ops.flopbench.layer_norm_rows.default
    with torch.no_grad():
        check_operator(operator, x, branch, gammas, affine, (1, 2), 1e-6)
        check_operator(operator, x, [], [], affine, (1, 2), 1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimensions": (1, 1)}, "parts, of dimensions"),
        ({"dimensions": (1, 0)}, "dimensions of irreps"),
        ({"branch": 1}, "parts of a branch"),
        ({"gammas": 1}, "scales of a branch"),
        ({"affine": 2}, "gains and a shift"),
    ],
)
def test_wrong_operands_are_refused(change, message):
    x, branch, gammas, affine = operands((1, 2), (16, 32), torch.float32)
    given = {"branch": branch, "gammas": gammas, "affine": affine, "dimensions": (1, 2)}
    for name, value in change.items():
        given[name] = value if name == "dimensions" else given[name][:value]
    with pytest.raises(RuntimeError, match=message):
        in_cpp("layer_norm_rows")(x, *given.values(), 1e-6)


def test_more_parts_than_it_holds_are_left_to_torch(no_triton):
    irreps = 9
    x, branch, gammas, affine = operands((1,) * irreps, (16,) * irreps, torch.float32)
    for operation, parts in ((LAYER_NORM, x), (ADD_LAYER_NORM, (*x, *branch))):
        (in_cpp,) = (one for one in operation.implementations if one.name == "cpp")
        assert in_cpp.cannot(parts, affine) == "more than 8 parts"
        assert in_cpp.cannot(parts[: len(parts) - len(parts) // irreps], affine) == ""
    both = add_layer_norm_parts(x, branch, gammas, affine, 1e-6, (1,) * irreps, "cpp")
    torch.testing.assert_close(both, add_norm_parts(x, branch, gammas, affine, 1e-6, (1,) * irreps))


def test_gradients_are_not_its(no_triton):
    x, _, _, affine = operands((1, 1), (16, 16), torch.float32)
    x[0].requires_grad_()
    with pytest.raises(Exception, match="gradients"):
        layer_norm_parts(x, affine, 1e-6, (1, 1), "cpp")
