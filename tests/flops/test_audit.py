import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import flopbench
from flopbench.cost import Cost
from flopbench.errors import FlopbenchError
from flopbench.flops import build_on_meta
from flopbench.flops.audit import CLOSED_FORM, FLOP_COUNTER, FVCORE, audit
from flopbench.flops.closed_form import closed_form
from flopbench.flops.dispatch import observe
from flopbench.inputs import inputs_for
from flopbench.models.layers import Attention
from tests.flops.conftest import NAMES

DATA = Path(flopbench.__file__).parent / "data"
VERSIONS = {"X": "", "E(X)": ".flop", "H(X)": ".hybrid", "I(X)": ".early_invariant"}
OCTIC = {"D8(X)": ".octic", "H8(X)": ".octic_hybrid", "I8(X)": ".octic_early_invariant"}


def reference(family, size, version):
    with (DATA / "models.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["family"], row["size"], row["version"]) == (family, size, version):
                return int(row["macs"]), int(row["macs_plus_elementwise"])
    raise KeyError(family, size, version)


@pytest.mark.parametrize("name", NAMES)
def test_three_counts_agree_to_the_last_mac(build, name):
    model, size = build(name)
    result = audit(model, name, inputs_for(model, None, 2, size))
    assert {counted.macs for counted in result.forward.values()} == {result.macs}
    assert len({counted.macs for counted in result.backward.values()}) == 1
    assert set(result.forward) == {FVCORE, FLOP_COUNTER, CLOSED_FORM}
    for counted in [*result.forward.values(), *result.backward.values()]:
        assert counted.coverage == 1
        assert not counted.uncounted


@pytest.mark.parametrize("name", NAMES)
def test_operations_that_run_are_those_of_the_mathematics(build, name):
    model, size = build(name)
    # Many images, so that what is done to the weights does not show.
    result = audit(model, name, inputs_for(model, None, 64, size))
    # A bias is an operation of its own where it fits no product, as on the views of ResMLP.
    assert result.ran_elementwise == pytest.approx(
        result.elementwise, rel=0.11 if name == "resmlp_t12" else 0.03
    )


@pytest.mark.parametrize("name", ["vit_ti16.flop", "resmlp_t12.flop"])
def test_grids_of_odd_width_and_absolute_heads_agree_too(build, name):
    model, size = build(name, image_size=(32, 48), head="absolute")
    assert audit(model, name, inputs_for(model, None, 1, size)).disagreement == 0


@pytest.mark.parametrize(
    ("name", "family", "size", "version"),
    [
        ("vit_ti16", "ViT", "Ti/16", "E(X)"),
        ("resmlp_t12", "ResMLP", "T12", "X"),
        ("resmlp_t12", "ResMLP", "T12", "E(X)"),
        ("convnext_iso_s", "ConvNeXt-isotropic", "S", "E(X)"),
        ("convnext_t", "ConvNeXt", "T", "E(X)"),
    ],
)
def test_the_papers_convention_gives_the_authors_counts(name, family, size, version):
    macs, total = reference(family, size, version)
    model = build_on_meta(name + VERSIONS[version])
    result = audit(model, name, inputs_for(model))
    assert result.published == macs
    assert result.macs <= macs
    assert result.paper_sum == pytest.approx(total, rel=0.006)


@pytest.mark.parametrize(
    ("name", "size", "version"),
    [("vit_ti16", "Ti/16", "D8(X)"), ("vit_m16", "M/16", "H8(X)"), ("vit_ti16", "Ti/16", "I8(X)")],
)
def test_octic_networks_count_as_their_authors_definition(name, size, version):
    with (DATA / "octic-models.csv").open(encoding="utf-8") as file:
        (row,) = (row for row in csv.DictReader(file) if (row["size"], row["version"]) == (size, version))
    model = build_on_meta(name + OCTIC[version])
    ran = observe(model, inputs_for(model))
    costs, unknown = closed_form(model, ran.shapes)
    assert not unknown
    assert sum(cost.as_published for cost in costs.values()) == int(row["macs"])
    assert sum(cost.weighted + cost.mixing for cost in costs.values()) == ran.macs
    # At the end of D8 this makes one token invariant, the authors' network all of them.
    others = costs[""].published or 0
    assert ran.macs + others == int(row["macs_folded"])
    assert (others > 0) is (version == "D8(X)")


def test_polynomial_invariants_count_too(build):
    model, size = build("vit_ti16.octic", invariants="polynomial")
    result = audit(model, "polynomial", inputs_for(model, None, 64, size))
    assert result.disagreement == 0
    assert result.ran_elementwise == pytest.approx(result.elementwise, rel=0.03)


def test_elementwise_operations_of_the_plain_vit_are_the_authors_to_the_last():
    _, total = reference("ViT", "Ti/16", "X")
    model = build_on_meta("vit_ti16")
    result = audit(model, "vit_ti16", inputs_for(model))
    assert result.paper_sum is not None
    # They normalise all 197 tokens at the end, we the class token alone: 5 operations an element.
    assert result.paper_sum + 5 * 196 * 192 == total


def test_a_disagreement_is_an_error_that_names_the_layer_and_its_operators(build, monkeypatch):
    model, size = build("vit_ti16.flop")
    right = Attention.cost
    halved = lambda layer, shapes: Cost(mixing=right(layer, shapes).mixing // 2)  # noqa: E731
    monkeypatch.setattr(Attention, "cost", halved)
    with pytest.raises(
        FlopbenchError, match=r"blocks\.[01]\.attn \(Attention, .*flash_attention.*\), forward"
    ):
        audit(model, "vit_ti16.flop", inputs_for(model, None, 1, size))


class Foreign(nn.Module):
    """A network with a product that no closed form knows of."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2).mT
        x = F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]
        return self.head(x.mean(1))


def test_what_the_closed_form_does_not_know_is_coverage_not_disagreement():
    with torch.device("meta"):
        model = Foreign()
    result = audit(model, "foreign", inputs_for(model, None, 1, (16, 16)))
    products = 2 * 16 * 16 * 8
    assert result.macs == 16 * 8 * 48 + products + 8 * 5
    closed = result.forward[CLOSED_FORM]
    assert closed.macs == result.macs - products
    assert closed.uncounted == {f"{__name__}.Foreign": 1}
    assert closed.coverage == pytest.approx(1 - products / result.macs)
    assert result.forward[FVCORE].coverage == result.forward[FLOP_COUNTER].coverage == 1
    assert result.paper_sum is None


def test_frozen_weights_and_the_first_layer_have_fewer_gradients():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Flatten(), nn.Linear(8 * 16, 5))
    first, last = 16 * 8 * 48, 8 * 16 * 5
    assert (
        audit(model, "x", inputs_for(model, None, 1, (16, 16))).backward[FLOP_COUNTER].macs
        == first + 2 * last
    )
    model[0].requires_grad_(False)
    assert audit(model, "x", inputs_for(model, None, 1, (16, 16))).backward[FLOP_COUNTER].macs == last


class Doubled(nn.Module):
    """A layer that says what it costs."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.linear(x) * 2

    def cost(self, shapes):
        return Cost(elementwise=2 * shapes.written)


class Silent(Doubled):
    """Another forward pass, of which nothing is said."""

    def forward(self, x):
        return x @ x.mT @ super().forward(x)


class Priced(nn.Module):
    """Means something else by the word."""

    def forward(self, x):
        return x

    def cost(self, target, price):
        raise AssertionError


@pytest.mark.parametrize(
    ("layer", "unknown"), [(Doubled, {}), (Silent, {f"{__name__}.Silent": 1}), (Priced, {})]
)
def test_somebodys_own_layer_is_counted_as_it_says_itself(layer, unknown):
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 1), layer(), nn.Flatten())
    result = audit(model, "own", inputs_for(model, None, 1, (4, 4)))
    closed = result.forward[CLOSED_FORM]
    assert closed.uncounted == unknown
    assert (closed.coverage == 1) is (layer is not Silent)
    assert (result.published is None) is (layer is not Doubled)
    if layer is Doubled:
        assert result.elementwise == 2 * 16 * 8
        assert result.macs == closed.macs == result.published
