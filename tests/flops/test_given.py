"""`count_flops`: what is given from Python is counted as it is, and left as it was."""

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flopbench import Inputs, count_flops
from flopbench.cli.flops import flops
from flopbench.errors import FlopbenchError
from flopbench.flops.audit import FLOP_COUNTER, FVCORE, count_macs

TOKENS = torch.tensor([[1, 2, 3], [4, 5, 0]])
MACS = 2 * 3 * (8 * 8 + 8 * 5)


class Tagger(nn.Module):
    """Two products a token, a buffer that is written to, and a frozen embedding."""

    def __init__(self, inner: int = 8):
        super().__init__()
        self.embed = nn.Embedding(9, 8).requires_grad_(False)
        self.inner = nn.Linear(8, inner)
        self.head = nn.Linear(inner, 5)
        self.calls = nn.Buffer(torch.zeros(()))

    def forward(self, ids, mask=None):
        self.calls += 1
        x = self.inner(self.embed(ids))
        return {"scores": self.head(x if mask is None else x * mask[..., None])}


def tagger():
    return Tagger()


def tokens(batch_size):
    return {"ids": torch.randint(9, (batch_size, 3)), "mask": torch.ones(batch_size, 3)}


def loss(output, inputs):
    return F.cross_entropy(output["scores"].flatten(0, 1), inputs.kwargs["ids"].flatten() % 5)


@pytest.mark.parametrize("inputs", [TOKENS, (TOKENS, torch.ones(2, 3)), {"ids": TOKENS}, Inputs(ids=TOKENS)])
def test_a_network_is_counted_on_whatever_it_takes(inputs):
    counts = count_flops(Tagger(), inputs)
    assert counts.macs == MACS
    assert counts.labels == ("Tagger",)
    assert counts.frame()["macs"].iloc[-1] == MACS
    assert list(counts.frame()["layer"]) == ["network itself", "embed", "inner", "head", "total"]
    assert counts.caption.startswith("forward pass, inputs [2, 3]")


class Decides(Tagger):
    """Its path depends on values, so that it runs where it is."""

    def forward(self, ids, mask=None):
        return super().forward(ids, mask if ids.sum().item() else None)


@pytest.mark.parametrize("make", [Tagger, Decides])
@pytest.mark.parametrize("training", [True, False])
def test_a_network_is_left_as_it_was(make, training):
    network = make().train(training)
    network.head.weight.grad = torch.ones_like(network.head.weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    counts = count_flops(network, TOKENS, pass_="train")
    assert counts.macs == counts.audits[0].train_macs
    assert any(note.partition(": ")[2].startswith("counted on the CPU") for note in counts.notes()) == (
        make is Decides
    )
    assert network.training is training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(network.head.weight.grad, torch.ones_like(network.head.weight))
    assert network.inner.weight.grad is None
    assert [p.requires_grad for p in network.parameters()] == [False, True, True, True, True]
    assert torch.equal(torch.get_rng_state(), generator)


def test_lazy_layers_stay_as_they_are():
    network = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    assert count_flops(network, torch.randn(3, 5)).macs == 3 * (5 * 4 + 4 * 2)
    assert isinstance(network[0], nn.LazyLinear)


def test_a_pair_is_counted_side_by_side_under_names_of_its_own():
    counts = count_flops(Tagger(4), TOKENS, baseline=Tagger())
    assert counts.labels == ("Tagger", "Tagger (network)")
    assert counts.macs == 2 * 3 * (8 * 4 + 4 * 5)
    assert counts.ratio == MACS / counts.macs
    assert {"baseline_macs", "candidate_macs", "macs_ratio"} <= set(counts.frame().columns)


def test_a_function_is_a_network():
    weight = torch.randn(8, 5, requires_grad=True)
    counts = count_flops(lambda x, scale=1.0: scale * (x @ weight), (torch.randn(3, 8),), pass_="backward")
    assert counts.labels == ("function",)
    assert counts.audits[0].macs == 3 * 8 * 5
    # The gradient of the weight, which it brings with it.
    assert counts.macs == 3 * 8 * 5


def test_what_a_function_takes_stays_where_it_is():
    counts = count_flops(lambda x: x @ x.mT, torch.randn(3, 8, device="meta"))
    assert counts.macs == 3 * 3 * 8
    assert not counts.notes()


def test_frozen_parts_and_shared_weights_count_for_what_they_are():
    network = Tagger()
    network.inner.requires_grad_(False)
    counts = count_flops(network, TOKENS, pass_="backward")
    # No gradient of the inner product's weights, nor of what comes before.
    assert counts.macs == 2 * 3 * 8 * 5
    assert counts.audits[0].parameters == 8 * 5 + 5
    (note,) = counts.notes()
    assert note == "Tagger: 45 of 189 parameters are trainable, the rest frozen"

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 8)
            self.head = nn.Linear(8, 9, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.embed(ids))

    counts = count_flops(Tied(), TOKENS)
    assert counts.audits[0].parameters == counts.frame()["parameters"].iloc[-1] == 9 * 8
    assert counts.macs == 2 * 3 * 8 * 9


def test_gradients_are_those_of_the_loss():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x):
            return {"a": self.a(x), "b": self.b(x)}

    x = torch.randn(5, 4)
    assert count_flops(Two(), x, pass_="backward").macs == 5 * 4 * (2 + 3)
    one = count_flops(Two(), x, pass_="backward", loss=lambda output, inputs: output["a"].sum())
    assert one.macs == 5 * 4 * 2
    assert any("gradients do not reach 2 of 4 parameters, the first b.weight" in note for note in one.notes())

    # What the loss multiplies is counted, too: [5, 2] by [2, 5], and the gradients of both factors.
    def gram(output: Any, inputs: Inputs):
        assert inputs.args[0].shape == (5, 4)
        return (output["a"] @ output["a"].mT).sum()

    assert count_flops(Two(), x, pass_="backward", loss=gram).macs == 5 * 4 * 2 + 2 * 5 * 2 * 5
    assert count_flops(Two(), x, pass_="train", loss=gram).macs == 5 * 4 * (2 + 3) + 5 * 4 * 2 + 3 * 5 * 2 * 5


def test_a_loss_that_depends_on_values_is_counted_with_values():
    def matched(output: Any, inputs: Inputs):
        return output["scores"][inputs.args[0] == inputs.args[0].max().item()].sum()

    counts = count_flops(Tagger(), TOKENS, loss=matched)
    assert counts.audits[0].backward[FLOP_COUNTER].macs > 0
    assert any("counted on the CPU with values" in note for note in counts.notes())


def test_operators_that_no_count_holds_are_named_wherever_it_is_told():
    counts = count_flops(lambda x: torch.cdist(x, x) + torch.linalg.inv(x), torch.eye(4))
    assert counts.audits[0].forward[FVCORE].uncounted == {"cdist": 1, "linalg_inv": 1}
    (note,) = (note for note in counts.notes() if "no count holds" in note)
    for name in counts.audits[0].forward[FLOP_COUNTER].uncounted:
        assert f"{name} ×1" in note
    for form in ("markdown", "json"):
        assert note in counts.text(form)
    assert "cdist ×1" in counts.tables()[0].markdown()
    assert f"note: {note}" in str(counts).replace("\n", " ")
    assert "linalg_inv ×1" in counts._repr_html_()


def test_names_of_ones_own_count_in_a_process_of_their_own_on_named_inputs(capsys):
    here = f"{__name__}:"
    flops(
        f"{here}tagger",
        inputs=f"{here}tokens",
        loss=f"{here}loss",
        pass_="train",
        batch_size=4,
        output="json",
    )
    told = json.loads(capsys.readouterr().out)
    assert told["labels"] == [f"{here}tagger"]
    assert told["rows"][-1]["macs"] == told["networks"][0]["train_macs"]
    assert told["networks"][0]["macs"] == 2 * MACS
    assert told["networks"][0]["frozen_parameters"] == 9 * 8
    assert told["notes"][-1].endswith("117 of 189 parameters are trainable, the rest frozen")


def test_macs_of_a_pair_are_an_items_whatever_a_call_holds():
    assert count_macs(Tagger(), Inputs(TOKENS)).macs == MACS / 2


def _takes_any_dtype() -> bool:
    try:
        F.embedding(torch.empty(1, device="meta"), torch.empty(1, 1, device="meta"))
    except RuntimeError:
        return False
    return True


looks_at_dtypes = pytest.mark.skipif(_takes_any_dtype(), reason="this torch embeds any dtype on meta")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"inputs": {"mask": torch.ones(2, 3)}},
            r"cannot run Tagger on inputs \[2, 3\]: TypeError: .*missing 1 required positional argument: "
            r"'ids' \(it takes \(ids, mask=None\), test_given\.py:\d+\)$",
        ),
        ({"inputs": {"ids": TOKENS, "extra": 1}}, r"unexpected keyword argument 'extra' \(it takes \(ids, "),
        pytest.param(
            {"inputs": torch.randn(2, 3)},
            r"cannot run Tagger .*\(test_given\.py:\d+ in forward\)$",
            marks=looks_at_dtypes,
        ),
        ({"inputs": (TOKENS, torch.ones(7, 3))}, r"cannot run Tagger .*\(test_given\.py:\d+ in forward\)$"),
        pytest.param(
            {"inputs": None},
            r"cannot run Tagger on 1 image of 3x224x224: .*\(test_given\.py:\d+ in forward\)$",
            marks=looks_at_dtypes,
        ),
        ({"inputs": Tagger()}, "inputs is a network"),
        ({"inputs": "no tensor"}, "module:callable"),
        ({"inputs": [1, 2]}, "hold no tensor"),
        ({"inputs": lambda n: 1 / 0}, r"cannot make the inputs of .*ZeroDivisionError.*test_given\.py"),
        ({"inputs": TOKENS, "batch_size": 5}, "inputs are 2 at once, not 5"),
        ({"inputs": TOKENS, "loss": 3.5}, "loss is 3.5: give a function"),
        ({"inputs": TOKENS, "loss": "nothing", "pass_": "backward"}, "no part 'nothing'"),
        ({"network": Tagger, "inputs": TOKENS}, r"network is the class Tagger: give an instance"),
        ({"network": TOKENS}, "network is of type Tensor"),
    ],
)
def test_what_does_not_suit_is_one_line(arguments, message):
    given: dict[str, Any] = {"network": Tagger(), **arguments}
    with pytest.raises(FlopbenchError, match=message) as caught:
        count_flops(**given)
    assert "\n" not in str(caught.value)
