"""What there is to run: suites, recipes and models, as tables."""

from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from flopbench.models import label_of, list_models
from flopbench.models.catalog import parse_name
from flopbench.models.factory import create_model, num_parameters
from flopbench.modes import DeviceKind
from flopbench.pairs import Pair
from flopbench.recipes import RaceSuite, available_recipes, load_race_suite, load_recipe
from flopbench.report import text
from flopbench.report.table import Column, Table, words
from flopbench.suites import VARIANTS, Suite, available_race_suites, available_suites, load_suite


def suites_table() -> Table:
    """Every suite that ships with flopbench: its title, its devices, and its pairs."""
    columns = (
        words("suite", "name"),
        words("what it compares", "title", rank=1, wraps=True),
        words("profiles", _profiles, rank=2, wraps=True),
        words("pairs", _pairs, rank=2, wraps=True),
    )
    return Table("Suites", columns, [load_suite(name) for name in available_suites()])


def _profiles(suite: Suite) -> str:
    def named(device: DeviceKind) -> str:
        variants = ", ".join(variant for variant in VARIANTS if device in suite.variant(variant))
        return f"{device} ({variants} too)" if variants else device

    return ", ".join(map(named, suite.profiles))


def _pairs(suite: Suite) -> str:
    profiles = (*suite.profiles.values(), *suite.full.values())
    pairs = (pair.label for profile in profiles for pair in profile.pairs)
    return ", ".join(dict.fromkeys(pairs))


def races_table() -> Table:
    """Every suite of races that ships with flopbench: its title, and who runs on what."""
    columns = (
        words("suite of races", "name"),
        words("what it compares", "title", rank=1, wraps=True),
        words("races", _races, rank=2, wraps=True),
    )
    return Table("Races", columns, [load_race_suite(name) for name in available_race_suites()])


def _races(suite: RaceSuite) -> str:
    """`E(ViT-Ti/16) on digits, fashion-mnist`."""
    on: dict[str, list[str]] = {}
    for race in suite.races:
        on.setdefault(Pair.of(*race.pair.split("@", 1)).label, []).append(race.data)
    return "; ".join(f"{pair} on {', '.join(dict.fromkeys(data))}" for pair, data in on.items())


def recipes_table() -> Table:
    """Every recipe that ships with flopbench: what it is for, and how long and by what it trains."""
    columns = (
        words("recipe", "name"),
        words("what it is for", "title", rank=1, wraps=True),
        Column("epochs", write=lambda epochs: f"{epochs:g}"),
        Column("batch", "batch_size", text.exact),
        words("pixels", lambda recipe: "×".join(map(str, recipe.image_size)), rank=2),
        words("optimiser", lambda recipe: recipe.optimiser.name, rank=2),
        words("arithmetic", lambda recipe: f"{recipe.dtype} {recipe.mode}", rank=2),
    )
    return Table("Recipes", columns, [load_recipe(name) for name in available_recipes()])


def models_table(*, macs: bool = False) -> Table:
    """Every model of the catalogue with its trainable parameters, counted on the built network.

    With `macs` also the multiply-accumulates of an image of 224 × 224, for which each runs without a value.
    """
    columns = (
        words("name", lambda name: name),
        words("label", label_of),
        Column("parameters", _parameters, text.exact),
        *([Column("MACs", _macs, text.exact)] if macs else []),
    )
    return Table("Models", columns, list_models())


@cache
def _parameters(name: str) -> int:
    with torch.device("meta"):
        return num_parameters(create_model(name))


@cache
def _macs(name: str) -> int:
    spec = parse_name(name).spec
    depth = spec and spec.config.get("depth")
    if depth is None:
        return _counted(name)
    # Pairs of blocks, one of each half, are all alike: two networks of few tell what one of many has.
    two, four = (_counted(name, depth=blocks) for blocks in (2, 4))
    return two + (four - two) * (depth - 2) // 2


def _counted(name: str, **options: Any) -> int:
    with torch.device("meta"):
        model = create_model(name, **options).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, 224, 224))
    return counter.get_total_flops() // 2
