"""Recipes: those that ship, what one takes over from another, and mistakes told in one line."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from flopbench.errors import FlopbenchError
from flopbench.loss import SUPERVISED
from flopbench.models import create_model
from flopbench.models.catalog import SPECS, label_of
from flopbench.models.tasks import LearntTask
from flopbench.recipes import available_recipes, load_recipe
from flopbench.report.published import published
from flopbench.results.measures import MEASURES
from flopbench.training.preparing import building

RECIPES = sorted(available_recipes())

MINIMAL = """
title = "Mine"
epochs = 2
batch_size = 8
image_size = 32
optimiser = { name = "adamw", learning_rate = 1e-3 }
"""


def test_the_recipes_of_the_paper_and_three_small_ones_ship():
    paper = {"deit3-400", "deit3-100", "resmlp-400", "convnext-300", "octic-400"}
    assert set(RECIPES) == {*paper, "proxy-cpu", "proxy-gpu", "segmentation-cpu"}


def test_what_is_learnt_has_a_measure_and_a_loss():
    assert get_args(LearntTask) == tuple(MEASURES)
    assert MEASURES.keys() <= SUPERVISED.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_every_network_that_it_has_options_for(name):
    recipe = load_recipe(name)
    for pattern in recipe.options:
        model = pattern.rstrip("*").rstrip("_")
        sizes = [size for size in SPECS if size.startswith(model.partition(".")[0])]
        assert sizes, pattern
        with torch.device("meta"):
            for version in (sizes[0], f"{sizes[0]}.flop"):
                create_model(version, **building(version, recipe.options_of(version), recipe, 10))


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_expected_is_what_the_paper_prints(name):
    printed = {
        (network.label, network.source.title.partition(":")[0]): network.top1 for network in published()
    }
    for model, expected in load_recipe(name).expected.items():
        assert printed[label_of(model), expected.source] == expected.top1


def test_sizes_have_the_stochastic_depth_of_the_paper():
    deit = load_recipe("deit3-400")
    rates = {name: deit.options_of(name).get("drop_path", 0.0) for name in ("vit_s16.flop", "vit_s16.hybrid")}
    assert rates == {"vit_s16.flop": 0.0, "vit_s16.hybrid": 0.1}
    assert deit.options_of("vit_h14.early_invariant") == {"drop_path": 0.5}
    resmlp = load_recipe("resmlp-400")
    assert resmlp.options_of("resmlp_t12.flop")["drop_path"] == 0.05
    assert resmlp.options_of("resmlp_s24")["drop_path"] == 0.2


def test_a_recipe_that_extends_another_is_that_but_for_what_it_says(tmp_path: Path):
    (tmp_path / "base.toml").write_text(
        MINIMAL
        + '[expected]\nvit_s16 = { top1 = 80, source = "somebody" }\n[mix]\nmixup = 0.8\ncutmix = 1.0\n'
    )
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\nepochs = 3\n[mix]\nmixup = 0.2\n')
    recipe = load_recipe(tmp_path / "mine.toml")
    assert (recipe.name, recipe.epochs, recipe.batch_size) == ("mine", 3, 8)
    assert (recipe.mix.mixup, recipe.mix.cutmix) == (0.2, 1.0)
    assert recipe.expected == {}


def test_a_recipe_extends_one_that_ships():
    short, long = load_recipe("deit3-100"), load_recipe("deit3-400")
    same = {"name": long.name, "title": long.title, "epochs": 400.0, "expected": long.expected}
    assert short.model_copy(update=same) == long
    assert short.digest != long.digest


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('extends = "mine.toml"', "mine.toml: recipes extend one another in a circle, over mine.toml"),
        ("extends = 3", "mine.toml: extends must be the name or the file of a recipe, got 3"),
        ('extends = "diet3-400"', "unknown recipe 'diet3-400'; did you mean deit3-400"),
        (MINIMAL + "[mix]\nmixpu = 1", "mine.toml: mix: unknown key 'mixpu'; did you mean mixup or cutmix?"),
        (MINIMAL.replace("epochs = 2", "epochs = 0"), "mine.toml: epochs: "),
        (
            MINIMAL + "[schedule]\nwarmup_epochs = 2",
            "mine.toml: schedule.warmup_epochs must be fewer than the 2 epochs, got 2",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, text: str, complaint: str):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(FlopbenchError) as raised:
        load_recipe(file)
    assert str(raised.value).startswith(complaint)
    assert "\n" not in str(raised.value)


def test_what_is_expected_of_a_recipe_is_not_of_one_with_other_values():
    recipe = load_recipe("deit3-400", {"epochs": 30})
    assert recipe.expected == {}
    assert load_recipe(load_recipe("deit3-400"), {"mix": {"mixup": 0.1}}).expected == {}
    assert load_recipe("deit3-400", {}).expected


def test_another_value_makes_another_digest_and_another_title_does_not():
    recipe = load_recipe("proxy-cpu")
    assert load_recipe("proxy-cpu", {"optimiser": {"learning_rate": 2e-3}}).digest != recipe.digest
    assert load_recipe("proxy-cpu", {"title": "Another"}).digest == recipe.digest
