"""Any group, and networks that take and return anything: what commutes passes, and what does not is named."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flopbench.errors import FlopbenchError
from flopbench.inputs import Inputs
from flopbench.symmetries import FLOP
from flopbench.testing import BY_SYMMETRY, assert_equivariant


class SetTransformer(nn.Module):
    """Attention among items `[B, N, 8]`, which have no order, unless they are told their `places`."""

    def __init__(self, *, places: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.places = nn.Parameter(torch.zeros(6, 8)) if places else None

    def forward(self, items: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        x = items if self.places is None else items + self.places
        return self.attention(x, x, x, key_padding_mask=key_padding_mask)[0]


class Rotating(nn.Module):
    """A convolution whose kernel is the mean over its quarter turns and mirror images, or is not."""

    def __init__(self, *, symmetric: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3, 3, 3))
        self.symmetric = symmetric

    def forward(self, images: Tensor) -> Tensor:
        turns = [self.weight.rot90(k, (2, 3)) for k in range(4)]
        mean = torch.stack([*turns, *(turn.flip(3) for turn in turns)]).mean(0)
        return F.conv2d(images, mean if self.symmetric else self.weight, padding=1)


class Reversible(nn.Module):
    """A bidirectional LSTM whose directions have the same weights: backward in time it gives the same."""

    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.there = nn.LSTM(5, 4, batch_first=True)
        self.back = self.there if tied else nn.LSTM(5, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.there(x)[0] + self.back(x.flip(1))[0].flip(1)


def circular(mode: Literal["circular", "zeros"]) -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 3, 5, padding=2, padding_mode=mode), nn.GELU())


def rolled(x: Tensor) -> Tensor:
    return x.roll(1, -1)


def turned(x: Tensor) -> Tensor:
    return x.rot90(1, (2, 3))


def permuted(x: Tensor) -> Tensor:
    return x[:, [2, 0, 1, 5, 3, 4]]


def backwards(x: Tensor) -> Tensor:
    return x.flip(1)


GROUPS: dict[str, tuple[nn.Module, nn.Module, Tensor, Any]] = {
    "permutations": (SetTransformer(), SetTransformer(places=True), torch.randn(2, 6, 8), permuted),
    "quarter turns": (Rotating(), Rotating(symmetric=False), torch.randn(2, 3, 6, 6), turned),
    "translations": (circular("circular"), circular("zeros"), torch.randn(2, 2, 7), rolled),
    "time reversal": (Reversible(), Reversible(tied=False), torch.randn(2, 6, 5), backwards),
}


@pytest.mark.parametrize("group", GROUPS)
def test_any_group_is_a_line(group: str):
    right, wrong, x, action = GROUPS[group]
    assert_equivariant(right, x, action, action)
    with pytest.raises(AssertionError, match="not equivariant: output"):
        assert_equivariant(wrong, x, action, action)


def test_arguments_have_an_action_each():
    items, mask = torch.randn(2, 6, 8), torch.tensor([[False] * 4 + [True] * 2] * 2)
    named = {"items": items, "key_padding_mask": mask}
    both = {"items": permuted, "key_padding_mask": permuted}
    network = SetTransformer()
    assert_equivariant(network, named, both, permuted)
    assert_equivariant(network, (items, mask), (permuted, permuted), permuted)
    assert_equivariant(
        network, Inputs(items, key_padding_mask=mask), {0: permuted, "key_padding_mask": permuted}, permuted
    )
    assert_equivariant(
        network, (items, mask), lambda given: tuple(permuted(x) for x in given), permuted, gradients=False
    )
    with pytest.raises(AssertionError, match="not equivariant: output"):
        assert_equivariant(network, named, {"items": permuted}, permuted)
    with pytest.raises(AssertionError, match="not equivariant: output"):
        assert_equivariant(network, (items, mask), (permuted, None), permuted)


def test_an_action_for_what_is_not_there_is_refused():
    with pytest.raises(FlopbenchError, match=r"an action for part 'maks'.*\['items'\]"):
        assert_equivariant(SetTransformer(), {"items": torch.randn(2, 6, 8)}, {"maks": permuted})
    with pytest.raises(TypeError, match="state the action"):
        assert_equivariant(SetTransformer(), torch.randn(2, 6, 8))


class Tokens(nn.Module):
    """Token ids `[B, N]` to the mean of their embeddings, or to one that depends on their order."""

    def __init__(self, *, ordered: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.ordered = ordered

    def forward(self, ids: Tensor, scale: float = 1.0, layers: list[int] | None = None) -> Tensor:
        x = self.embedding(ids) * scale
        return x.cumsum(1).mean(1) if self.ordered else x.mean(1)


@pytest.mark.parametrize("ids", [torch.arange(6).repeat(2, 1), torch.randint(11, (2, 6))])
def test_tokens_are_neither_cast_nor_differentiated(ids: Tensor):
    assert_equivariant(Tokens(), ids, permuted, None)
    assert_equivariant(Tokens(), (ids, 2.0, [1, 2]), (permuted, None, None), None)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(Tokens(ordered=True), ids, permuted, None)
    with pytest.raises(AssertionError, match="does not depend on the input"):
        assert_equivariant(lambda ids: torch.arange(3.0), ids, permuted, None)
    with pytest.raises(AssertionError, match="its own image"):
        assert_equivariant(Tokens(), torch.ones(2, 6, dtype=torch.long), permuted, None)


@dataclass
class Found:
    """What a detector finds."""

    boxes: list[Tensor]
    scores: Tensor


class Detector(nn.Module):
    """Images `[B, 3, H, 8]` to one box `x0, x1` per image, of its mean column, and a score."""

    def __init__(self, *, shift: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.shift = shift

    def forward(self, images: Tensor) -> Found:
        columns = torch.einsum("bchw,c->bw", images, self.weight).softmax(-1)
        centre = columns @ (torch.arange(8).to(columns) + 0.5) + self.shift
        width = columns.amax(-1)
        return Found([torch.stack([centre - width, centre + width], -1)], columns.square().sum(-1))


def mirrored(boxes: Tensor) -> Tensor:
    """Boxes `[B, 2]` in an image of width 8."""
    return 8 - boxes.flip(-1)


def test_the_part_that_is_off_is_named():
    images, action = torch.randn(2, 3, 4, 8), {"boxes": [mirrored]}
    assert_equivariant(Detector(), images, action_out=action)
    with pytest.raises(
        AssertionError, match=r"not equivariant under a flop: output boxes\.0 \(2, 2\) is off by"
    ):
        assert_equivariant(Detector(shift=0.1), images, action_out=action)
    with pytest.raises(AssertionError, match=r"not equivariant under a flop: output boxes\.0"):
        assert_equivariant(Detector(), images, action_out=None)
    with pytest.raises(AssertionError, match=r"output 1 does not depend on the input"):
        assert_equivariant(lambda x: (x, torch.arange(4.0)), images)
    with pytest.raises(AssertionError, match=r"output a\.0 is not finite"):
        assert_equivariant(lambda x: {"a": (x / 0,)}, images)


def test_outputs_of_other_parts_are_not_the_same():
    def network(x: Tensor) -> dict[str, Tensor]:
        return {"left" if x[..., 0].sum() > x[..., -1].sum() else "right": x}

    with pytest.raises(AssertionError, match=r"parts \['(left|right)'\]"):
        assert_equivariant(network, torch.randn(2, 3, 4, 8))


def test_whole_numbers_are_the_same_or_not():
    def classes(x: Tensor) -> dict[str, Tensor]:
        scores = x.flatten(1)
        return {"scores": x, "large": scores.argmax(1) + 1_000_000}

    images = torch.randn(2, 3, 4, 8)
    with pytest.raises(AssertionError, match="not equivariant under a flop: output large"):
        assert_equivariant(classes, images, action_out={"scores": BY_SYMMETRY})
    assert_equivariant(classes, images, action_out=lambda y: classes(FLOP.generators[0](y["scores"])))


def test_a_gradient_that_is_off_names_its_input():
    class Blind(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return gradients[0].cumsum(-1)

    def network(x: Tensor, y: Tensor) -> Tensor:
        return x * y + Blind.apply(y)  # pyright: ignore[reportOperatorIssue]

    given = {"x": torch.randn(2, 3, 4, 5), "y": torch.randn(2, 3, 4, 5)}
    assert_equivariant(network, given, {"x": BY_SYMMETRY, "y": BY_SYMMETRY}, gradients=False)
    with pytest.raises(AssertionError, match="not equivariant under a flop: gradient of the input y"):
        assert_equivariant(network, given)


def test_what_writes_into_its_input_is_checked_and_harms_nothing():
    x = torch.randn(2, 3, 4, 5)
    before = x.clone()
    assert_equivariant(lambda x: x.mul_(2).exp(), x)
    assert torch.equal(x, before)
    assert not x.requires_grad


def test_actions_that_are_not_orthogonal_have_gradients_too():
    assert_equivariant(lambda x: x.abs(), torch.randn(2, 5), lambda x: 3 * x, lambda y: 3 * y)
    with pytest.raises(AssertionError, match="not equivariant: output"):
        assert_equivariant(lambda x: x.square(), torch.randn(2, 5), lambda x: 3 * x, lambda y: 3 * y)
