"""Values that a group acts on in ways of their own: one action stands for all generators, no other passes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.models.factory import create_model
from flopbench.symmetries import Halves
from flopbench.testing import (
    BOXES,
    INVARIANT,
    SCALARS,
    VECTORS,
    assert_equivariant,
    heat_maps,
    keypoints,
)

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
# Points, or maps, of the left, the upper, the right and the lower half: a turn to the left moves each by one.
SWAPPED = {"flop": [2, 1, 0, 3], "quarter turn": [1, 2, 3, 0]}


def segmented(x: Tensor) -> Tensor:
    return x.square()


def flow(x: Tensor) -> Tensor:
    """Where it grows brighter: `[B, 2, H, W]`, x to the right and y down."""
    x = x.mean(1)
    return torch.stack([x.roll(-1, axis) - x.roll(1, axis) for axis in (-1, -2)], dim=1)


def normals(x: Tensor) -> Tensor:
    """With a third component, which nothing turns around."""
    return torch.cat([flow(x), x.mean(1, keepdim=True)], dim=1)


def mean_along(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Centre and spread of positive weights `[..., H, W]` along an axis, as shares of its length."""
    weights = x.movedim(axis, -1).sum(-2)
    weights = weights / weights.sum(-1, keepdim=True)
    places = (torch.arange(x.shape[axis]).to(x) + 0.5) / x.shape[axis]
    centre = weights @ places
    return centre, (weights * (places - centre[..., None]).square()).sum(-1).sqrt()


def boxes(x: Tensor) -> Tensor:
    """One per channel, `[B, 3, 4]`."""
    (cx, w), (cy, h) = (mean_along(x.exp(), axis) for axis in (-1, -2))
    return torch.stack([cx, cy, w, h], -1)


def halves(x: Tensor) -> Tensor:
    """What is in each half of the image, `[B, 4, H, W]`, and nothing elsewhere."""
    first = (torch.arange(x.shape[-1]) < x.shape[-1] // 2).to(x).expand(x.shape[-2:])
    masks = [first, first.T, first.flip(1), first.T.flip(0)]
    return x.mean(1, keepdim=True).exp() * torch.stack(masks)


def points(x: Tensor) -> Tensor:
    """The centre of each half with how bright it is, `[B, 4, 3]`."""
    centres = [mean_along(halves(x), axis)[0] for axis in (-1, -2)]
    return torch.stack([*centres, halves(x).sum((-2, -1))], -1)


def detections(x: Tensor) -> dict[str, Any]:
    return {"boxes": list(boxes(x)), "labels": x.sum((2, 3)).argsort(1), "scores": x.mean((2, 3))}


RIGHT: dict[str, tuple[Callable[[Tensor], Any], Any]] = {
    "segmentation": (segmented, SCALARS),
    "flow": (flow, VECTORS),
    "normals": (normals, VECTORS),
    "boxes": (boxes, BOXES),
    "detections": (detections, {"boxes": BOXES, "labels": INVARIANT, "scores": INVARIANT}),
    "keypoints": (points, keypoints(SWAPPED)),
    "heat maps": (halves, heat_maps(SWAPPED)),
    "several": (lambda x: (flow(x), [segmented(x)]), (VECTORS, [SCALARS])),
}


@pytest.mark.parametrize("symmetry", ["flop", "octic"])
@pytest.mark.parametrize("kind", RIGHT)
def test_what_moves_as_its_kind_does_passes(kind: str, symmetry: str):
    function, action = RIGHT[kind]
    assert_equivariant(function, IMAGES, action_out=action, symmetry=symmetry)


def scaled(function: Callable[[Tensor], Tensor], factors: list[Any]) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x) * torch.tensor(factors).to(x)


WRONG: dict[str, tuple[Callable[[Tensor], Any], Any, str]] = {
    "a segmentation of other places": (lambda x: x.roll(1, -1), SCALARS, "flop"),
    "the sign of x forgotten": (lambda x: flow(x).abs(), VECTORS, "flop"),
    "a vector taken for two numbers": (flow, SCALARS, "flop"),
    "numbers taken for a vector": (lambda x: x[:, :2], VECTORS, "flop"),
    "1 − cx forgotten": (lambda x: boxes(x) * 0.5, BOXES, "flop"),
    "boxes taken for what stays": (boxes, INVARIANT, "flop"),
    "wrists in their places": (points, keypoints({"flop": range(4), "quarter turn": range(4)}), "flop"),
    "maps in their places": (halves, heat_maps({"flop": range(4), "quarter turn": range(4)}), "flop"),
    "width and height told apart": (scaled(boxes, [1, 1, 2, 1]), BOXES, "quarter turn"),
    "x and y told apart": (
        lambda x: flow(x) * torch.tensor([[[2.0]], [[1.0]]]).to(x),
        VECTORS,
        "quarter turn",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_one_slip_is_found_under_the_generator_that_shows_it(what: str):
    function, action, shown = WRONG[what]
    if shown == "quarter turn":
        assert_equivariant(function, IMAGES, action_out=action, dtypes=[torch.float64])
    with pytest.raises(AssertionError, match=r"^not equivariant under a (flop|quarter turn): output"):
        assert_equivariant(function, IMAGES, action_out=action, symmetry="octic")
    if shown == "flop":
        with pytest.raises(AssertionError, match=r"^not equivariant under a flop: output"):
            assert_equivariant(function, IMAGES, action_out=action)


def test_kinds_are_of_inputs_too():
    warp = {"flow": VECTORS, "images": SCALARS}
    given = {"flow": flow(IMAGES), "images": IMAGES}

    def along(flow: Tensor, images: Tensor) -> Tensor:
        return flow * images.mean(1, keepdim=True)

    assert_equivariant(along, given, warp, VECTORS, symmetry="octic")
    with pytest.raises(AssertionError, match="not equivariant under a flop"):
        assert_equivariant(along, given, {**warp, "flow": SCALARS}, VECTORS)


def test_a_network_with_a_task_of_its_own():
    options: dict[str, Any] = {"task": "segmentation", "width": 32, "depth": 2, "heads": 2}
    network = create_model("vit_ti16.flop", (48, 80), 4, **options)
    images = torch.randn(2, 3, 48, 80)
    assert_equivariant(network, images, action_out=SCALARS, gradients=False)
    plain = create_model("vit_ti16", (48, 80), 4, **options)
    with pytest.raises(AssertionError, match="not equivariant under a flop: output"):
        assert_equivariant(plain, images, action_out=SCALARS, gradients=False)


@pytest.mark.parametrize(
    ("function", "action", "message"),
    [
        (lambda x: x[:, :1], VECTORS, r"vectors are \[\.\.\., 2 or more, H, W\], got .*\(2, 1, 6, 6\)"),
        (lambda x: x.mean((2, 3)), VECTORS, r"vectors are .*, got .*\(2, 3\)"),
        (lambda x: x.mean((2, 3)).repeat(1, 2)[:, :5], BOXES, r"boxes are \[\.\.\., 4\], .*, got .*\(2, 5\)"),
        (points, keypoints({"flop": [1, 0]}), r"keypoints under a flop need .* of 0 to 3, got \[1, 0\]"),
        (points, keypoints({}), r"keypoints under a flop need a permutation of 0 to 3, got \[\]"),
        (halves, heat_maps({"flop": [0, 0, 1, 2]}), r"heat maps under a flop need a permutation of 0 to 3"),
        (lambda x: x.mean((1, 2, 3)), keypoints({"flop": [0]}), r"keypoints have 2 axes .* got .*\(2,\)"),
        (lambda x: x.mean((2, 3))[..., :1], keypoints({"flop": [0, 1]}), r"points are \[\.\.\., 2 or more\]"),
        (lambda x: x.mean((1, 2, 3)), SCALARS, r"a flop acts on a grid of rows and columns, got .*\(2,\)"),
    ],
)  # fmt: skip
def test_wrong_shapes_are_told_in_a_line(function: Any, action: Any, message: str):
    with pytest.raises(FlopbenchError, match=f"^{message}") as caught:
        assert_equivariant(function, IMAGES, action_out=action, gradients=False)
    assert "\n" not in str(caught.value)


def test_a_feature_has_no_pixels():
    feature = Halves(torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5))
    for action, message in (
        (SCALARS, "a flop acts on a grid .*"),
        (VECTORS, "vectors .*"),
        (BOXES, "boxes .*"),
    ):
        with pytest.raises(FlopbenchError, match=f"^{message} got a Halves$"):
            assert_equivariant(lambda x: x, feature, action_out=action)
