"""What two networks of somebody's own give: what they have in common, and what is stated to be the same."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.inputs import Inputs
from flopbench.models import foreign
from flopbench.pairs import Pair
from flopbench.structures import tensors
from flopbench.timing.bench import Bench
from flopbench.timing.checks import WrongOutputError
from flopbench.timing.outputs import in_common
from flopbench.timing.sampling import ROLES


@dataclass
class Answer:
    logits: Tensor
    features: list[Tensor]


class Net(nn.Module):
    """A linear layer with dropout before it, and whatever it makes of what that gives."""

    def __init__(self, make: Callable[[Tensor], Any] = lambda y: y, *, change: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dropout, self.linear, self.make = nn.Dropout(0.5), nn.Linear(4, 3), make
        with torch.no_grad():
            self.linear.weight.add_(change)

    def forward(self, x: Tensor) -> Any:
        return self.make(self.linear(self.dropout(x)))


def bench(
    baseline: nn.Module, candidate: nn.Module, *, inputs: Any = None, pass_: str = "forward", **stated: Any
) -> Bench:
    """The pair as it is built from Python; `same` may be a function."""
    if callable(stated.get("same")):
        foreign.put({})
        given = {"same": stated["same"]}
        stated["same"] = "python:same"
    else:
        given = {}
    inputs = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)) if inputs is None else inputs
    foreign.put({"a": baseline, "b": candidate, "inputs": inputs, **given})
    pair = Pair(
        baseline="python:a", candidate="python:b", inputs="python:inputs", perturb=False, cast=False, **stated
    )
    fields = {"device": "cpu", "batch_size": 2, "pass": pass_, "dtype": "fp32", "mode": "eager"}
    return Bench.of(Cell.model_validate({"pair": pair, **fields}))


def messages(pair: Bench) -> list[str]:
    return [flag.message for flag in pair.unchecked]


def test_what_only_one_network_gives_is_named():
    pair = bench(
        Net(lambda y: {"logits": y, "mask": y > 0}),
        Net(lambda y: {"logits": y, "boxes": [y[:, :2], y[:, 1:], y]}),
    )
    checked = pair.check()
    assert checked is not None
    assert checked.same is None
    assert messages(pair) == [
        "only a gives mask (2, 3); only b gives boxes.0 (2, 2), boxes.1 (2, 2), boxes.2 (2, 3): "
        "this was not compared"
    ]


def test_the_same_numbers_in_another_layout_are_no_difference():
    pair = bench(Net(), Net(lambda y: Answer(y[:, :1], [y[:, 1:]])))
    pair.check()
    assert pair.unchecked == []


SAME = {
    "all of it": ("output", lambda y: (y, {"features": [y + 1]})),
    "a key": ("logits", lambda y: {"logits": y, "else": torch.rand_like(y)}),
    "an attribute": ("features", lambda y: Answer(torch.rand_like(y), [y, 2 * y])),
    "an index": ("1", lambda y: (torch.rand_like(y), y)),
    "the last": ("-1", lambda y: [torch.rand_like(y), y]),
    "a part of a part": ("0.boxes", lambda y: [{"boxes": y, "noise": torch.rand_like(y)}]),
    "a function": (lambda a, b: torch.allclose(a, b, atol=1e-5), lambda y: y),
    "an assertion": (lambda a, b: torch.testing.assert_close(a, b), lambda y: y),
}


@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("kind", SAME)
def test_what_is_stated_to_be_the_same_is_held_to_it(kind: str, pass_: str):
    same, make = SAME[kind]
    loss = None if kind in ("all of it", "a function", "an assertion") else same
    loss = None if kind == "a part of a part" else loss
    pair = bench(Net(make), Net(make), pass_=pass_, same=same)
    checked = pair.check()
    assert checked is not None
    assert (checked.same is None) is callable(same)
    if not callable(same):
        assert checked.same == 0
    with pytest.raises(WrongOutputError, match=r"^b does not give the same as a") as caught:
        bench(Net(make), Net(make, change=0.1), pass_=pass_, same=same).check()
    assert "\n" not in str(caught.value)
    if not callable(same):
        assert "relative error" in str(caught.value)


def test_the_error_is_recorded_and_a_tolerance_allows_it():
    off = Net(change=1e-3)
    with pytest.raises(WrongOutputError, match=r"^b .* as a: output differs: .*, allowed 1e-04"):
        bench(Net(), off, same="output").check()
    checked = bench(Net(), off, same="output", tolerance=0.1).check()
    assert checked is not None
    assert checked.same is not None
    assert 1e-4 < checked.same < 0.1


def test_training_does_not_count_against_networks_that_were_the_same():
    """A step moves the weights of both, and dropout draws, which the check must not see."""

    class Halved(Net):
        def forward(self, x: Tensor) -> Any:
            return 2 * super().forward(x)

    halved = Halved()
    with torch.no_grad():
        for parameter in halved.parameters():
            parameter /= 2
    pair = bench(Net(), halved, pass_="train", same="output")
    checked = pair.check()
    assert checked is not None
    assert checked.same == 0
    weights = [pair.workloads[role].model.get_parameter("linear.weight") for role in ROLES]
    assert not torch.allclose(weights[0], 2 * weights[1], atol=1e-6)
    assert pair.workloads["candidate"].model.training


@pytest.mark.parametrize(
    ("same", "make", "message"),
    [
        ("loss", lambda y: {"logits": y}, r"^b: the output has no part 'loss': it has logits$"),
        ("0", lambda y: y, r"^b: the output has no part '0': it is a tensor \(2, 3\)$"),
        ("output", lambda y: y[:1], r"^b does not give the same as a: output is \(1, 3\), not \(2, 3\)$"),
        ("output", lambda y: {"x": y[:1]}, "the outputs have no tensor in common$"),
        (lambda a, b: False, lambda y: y, "^b does not give the same as a, by the function `same`$"),
    ],
)
def test_what_is_not_there_is_not_the_same(same: Any, make: Callable[[Tensor], Any], message: str):
    baseline = {"loss": lambda y: {"loss": y.sum()}, "0": lambda y: (y,)}.get(str(same), lambda y: y)
    with pytest.raises(WrongOutputError, match=message):
        bench(Net(baseline), Net(make), same=same).check()


@pytest.mark.parametrize("same", [lambda a: True, lambda a, b: a == b, lambda a, b: a["logits"] == b])
def test_a_function_that_cannot_say_is_a_mistake(same: Callable[..., Any]):
    with pytest.raises(FlopbenchError, match=r"^the function `same` cannot compare the outputs: ") as caught:
        bench(Net(), Net(), same=same).check()
    assert "\n" not in str(caught.value)


def test_what_only_one_gives_beside_the_same_is_named():
    pair = bench(Net(lambda y: {"x": y}), Net(lambda y: {"x": y, "more": y}), same="output")
    checked = pair.check()
    assert checked is not None
    assert checked.same == 0
    assert messages(pair) == ["only b gives more (2, 3): this was not compared"]
    # Of as many numbers, too.
    pair = bench(Net(lambda y: {"x": y, "mine": y}), Net(lambda y: {"x": y, "more": y}), same="output")
    pair.check()
    assert messages(pair) == ["only a gives mine (2, 3); only b gives more (2, 3): this was not compared"]


def test_a_detector_on_drawn_inputs_may_find_more():
    def found(y: Tensor) -> list[dict[str, Tensor]]:
        return [{"boxes": row[row > 0]} for row in y]

    def draw(batch_size: int) -> Tensor:
        return 3 * torch.randn(batch_size, 4)

    pair = bench(Net(found), Net(found, change=0.7), inputs=draw)
    pair.check()
    assert ["sizes of the output depend on the inputs" in message for message in messages(pair)] == [True]
    # Of inputs as they are no other can be drawn: what only one finds is named.
    pair = bench(Net(found), Net(lambda y: [{"boxes": row} for row in y]))
    pair.check()
    assert "only b gives" in messages(pair)[0]


def test_inputs_of_any_structure_are_watched():
    class Writing(nn.Module):
        def forward(self, x: dict[str, list[Tensor]]) -> Tensor:
            x["tokens"][0].add_(1)
            return x["tokens"][0].float()

    tokens = torch.zeros(2, 3, dtype=torch.int64)
    inputs = Inputs({"tokens": [tokens]})
    with pytest.raises(WrongOutputError, match=r"^a writes into its input"):
        bench(Writing(), Writing(), inputs=inputs).check()
    assert not tokens.any()


def test_outputs_have_in_common_what_has_one_path_and_shape():
    x, y = torch.zeros(2, 3), torch.ones(2, 4)
    both, first, second = in_common({"a": x, "b": [y, x]}, {"b": [y, y], "c": x})
    assert ([path for path, *_ in both], list(first), list(second)) == (["b.0"], ["a", "b.1"], ["b.1", "c"])
    # Another layout of the same.
    both, first, second = in_common((x, y), Answer(x, [y]))
    assert ([path for path, *_ in both], first, second) == (["0", "1"], {}, {})
    assert len(tensors([Answer(x, [y])])) == 2


def test_devices_and_dtypes_in_an_output_are_no_result():
    pair = bench(Net(lambda y: (y, {"device": y.device, "dtype": y.dtype})), Net())
    pair.check()
    assert pair.unchecked == []
