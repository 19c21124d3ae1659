from typing import Any

import pytest
import torch

from flopbench.errors import FlopbenchError
from flopbench.recipes import RIVALS, Race, Recipe
from flopbench.results.trainings import Entrant
from flopbench.training.entrants import SLACK, entrants_of, pair_of, possible_rivals
from flopbench.training.preparing import build
from tests.support.training import recipe

SMALL: dict[str, dict[str, Any]] = {
    "vit_ti16*": {"patch_size": 7, "width": 96, "depth": 4, "heads": 3},
    "resmlp_t12*": {"patch_size": 7, "width": 96, "depth": 4},
    "convnext_iso_s*": {"patch_size": 7, "widths": [96], "depths": [4]},
    "convnext_t*": {"widths": [32, 64, 128, 256], "depths": [2, 2, 4, 2]},
}


def small(**fields: Any) -> Recipe:
    settings = {"image_size": (28, 28), "options": SMALL, "augmentation": {"mirror": 0.0}}
    return recipe(**{**settings, **fields})


def found(pair: str, rivals: tuple[str, ...] = RIVALS, **fields: Any) -> dict[str, Entrant]:
    race = Race.model_validate({"recipe": "tiny", "pair": pair, "data": "noise", "rivals": rivals})
    return {entrant.key: entrant for entrant in entrants_of(race, small(**fields), 10)}


@pytest.mark.parametrize(
    ("name", "pixels"), [("vit_ti16", 28), ("resmlp_t12", 28), ("convnext_iso_s", 28), ("convnext_t", 32)]
)
def test_rivals_spend_as_much_in_another_way(name: str, pixels: int):
    entrants = found(f"{name}.flop", image_size=(pixels, pixels))
    assert list(entrants) == ["baseline", "candidate", *RIVALS]
    x, e = entrants["baseline"], entrants["candidate"]
    assert entrants["wide"].macs == pytest.approx(x.macs, rel=0.12)
    assert entrants["wide"].linear_parameters == pytest.approx(x.linear_parameters, rel=0.12)
    assert entrants["half-width"].macs == pytest.approx(e.macs, rel=0.12)
    assert entrants["half-depth"].macs == pytest.approx(e.macs, rel=0.3)
    assert entrants["mirror"].model_copy(update={"key": "baseline", "mirror": 0.0}) == x
    assert [entrant.mirror for entrant in entrants.values()] == [0, 0, 0.5, 0, 0, 0]


def test_labels_say_the_size():
    labels = {key: one.label for key, one in found("vit_ti16.flop", ("wide", "half-depth")).items()}
    assert labels["candidate"] == "E(ViT-96×4/7)"
    assert labels["wide"] == "E(ViT-136×4/7)"
    assert labels["half-depth"] == "ViT-96×2/7"
    wide = found("convnext_t.flop", ("wide",), image_size=(32, 32))["wide"]
    assert wide.label == "E(ConvNeXt-T) of width 44 of 10 blocks"


def test_heads_keep_their_channels_and_widths_suit_processors():
    options = {"vit_s16*": {"depth": 2}}
    entrants = found("vit_s16.flop", ("wide", "half-width"), image_size=(32, 32), options=options)
    for key, target in (("wide", "baseline"), ("half-width", "candidate")):
        size = entrants[key].options
        channels = size["width"] / size["heads"]
        assert 48 <= channels <= 80
        assert channels % 4 == 0
        assert entrants[key].macs == pytest.approx(entrants[target].macs, rel=SLACK)


def test_an_octic_network_is_widened_in_steps_of_its_group():
    options = {"vit_ti16*": {"patch_size": 8, "width": 96, "depth": 2, "heads": 3}}
    entrants = found("vit_ti16.octic", ("wide",), image_size=(32, 32), options=options)
    width = entrants["wide"].options["width"]
    assert width % 8 == 0
    assert 2 < width / 96 < 2.6


def test_where_the_recipe_mirrors_x_is_the_rival():
    entrants = found("vit_ti16.flop", ("mirror",), augmentation={"mirror": 0.5})
    assert list(entrants) == ["baseline", "candidate"]
    assert entrants["baseline"].mirror == 0.5


def test_networks_without_a_size_have_no_rivals_of_another():
    race = Race(recipe="tiny", pair="torch.nn:Flatten@torch.nn:Flatten", data="noise")
    assert possible_rivals(pair_of(race), small()) == ("mirror",)
    mixed = Race(recipe="tiny", pair="vit_ti16.flop@timm:deit_tiny_patch16_224", data="noise")
    assert possible_rivals(pair_of(mixed), small()) == ("mirror", "wide")
    with pytest.raises(FlopbenchError, match="the size of timm:deit_tiny_patch16_224 is not free"):
        found("vit_ti16.flop@timm:deit_tiny_patch16_224", ("half-width",), image_size=(224, 224), options={})


def test_weights_are_those_of_the_seed():
    entrant = found("vit_ti16.flop", ())["candidate"]
    states = [build(entrant.name, entrant.options, small(), 10, seed).state_dict() for seed in (0, 0, 1)]
    assert all(states[0][name].equal(states[1][name]) for name in states[0])
    assert not states[0]["head.weight"].equal(states[2]["head.weight"])


class Failing(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 10)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such luck")


def test_a_network_that_fails_is_named():
    name = f"{__name__}:Failing"
    with pytest.raises(FlopbenchError, match=rf"{name} cannot be raced: RuntimeError: no such luck"):
        found(f"{name}@{name}", ())
