"""Who runs in a race: X, E(X), and rivals that spend as much in another way."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flopbench.errors import FlopbenchError, in_one_line
from flopbench.flops.dispatch import observe
from flopbench.flops.meta import build_on_meta
from flopbench.inputs import Inputs
from flopbench.models.catalog import ModelName, heads_of, parse_name
from flopbench.models.factory import create_model, num_parameters
from flopbench.pairs import Pair
from flopbench.recipes import RIVALS, Race, Recipe, Rival
from flopbench.results.trainings import Entrant, Role
from flopbench.training.preparing import building

MIRROR = 0.5
"""The share of images that the rival with mirrored images sees mirrored."""

SLACK = 0.03
"""How far the MACs of a network of another width may be from those that it is to have, where that gives it
channels that are a multiple of a higher power of two, with which processors and kernels compute faster."""

# A multiple of this is as good as one of a higher power of two.
_ENOUGH = 16

# No network is widened or deepened beyond so many times its size; widths that are looked at either way.
_MOST, _AROUND = 8, 4


def pair_of(race: Race) -> Pair:
    """The pair that a race names: the candidate, or `CANDIDATE@BASELINE`.

    Raises:
        FlopbenchError: an unknown name, or a plain candidate without a baseline.
    """
    return Pair.of(*race.pair.split("@", 1))


def possible_rivals(pair: Pair, recipe: Recipe) -> tuple[Rival, ...]:
    """The rivals that a pair can have.

    Where the recipe mirrors images, X itself is the one with mirrored images.
    """
    baseline, candidate = pair.names
    free = {
        "wide": _is_sized(candidate),
        "half-width": _is_sized(baseline),
        "half-depth": _is_sized(baseline),
    }
    free["mirror"] = recipe.augmentation.mirror == 0
    return tuple(rival for rival in RIVALS if free[rival])  # pyright: ignore[reportReturnType]


def entrants_of(race: Race, recipe: Recipe, classes: int) -> tuple[Entrant, ...]:
    """Who runs, in order: X, E(X), and the rivals.

    `wide` is E(X) at the width that gives it X's MACs. For mirroring that is √2 wider, and the linear
    parameters are as many as X's, too; for the octic group it is some 2.3 times wider, and they are two
    thirds of X's. `half-width` is X at the width that gives it E(X)'s MACs, `half-depth` X of as many blocks.
    Of widths that come within `SLACK` it is the one that suits processors best, else the nearest; heads have
    about as many channels as before. The rival `mirror` is left out where the recipe mirrors images, for then
    X is it.

    Args:
        race: its pair and its rivals.
        recipe: what it is trained by, for options and the size of images.
        classes: logits.

    Raises:
        FlopbenchError: an unknown name, an option that a network does not take, or a rival that the pair
            cannot have.
    """
    pair = pair_of(race)
    possible = possible_rivals(pair, recipe)
    baseline, candidate = (_Network(name, recipe, classes) for name in (pair.baseline, pair.candidate))
    found = [baseline.entrant("baseline"), candidate.entrant("candidate")]
    of_x, of_e = (entrant.macs for entrant in found)
    makers: dict[Rival, Callable[[], Entrant]] = {
        "mirror": lambda: baseline.entrant("mirror", mirror=MIRROR),
        "wide": lambda: candidate.entrant("wide", candidate.as_wide_as(of_x)),
        "half-width": lambda: baseline.entrant("half-width", baseline.as_wide_as(of_e)),
        "half-depth": lambda: baseline.entrant("half-depth", baseline.as_deep_as(of_e)),
    }
    for rival in RIVALS:
        if rival not in race.rivals or (rival == "mirror" and rival not in possible):
            continue
        if rival not in possible:
            name = pair.candidate if rival == "wide" else pair.baseline
            raise FlopbenchError(f"there is no rival {rival!r} of {pair.id}: the size of {name} is not free")
        found.append(makers[rival]())
    return tuple(found)


def linear_parameters(model: nn.Module) -> int:
    """The weights of linear maps and convolutions: all but vectors, tokens and embeddings of positions."""
    leave_out = getattr(model, "no_weight_decay", set)()
    return sum(p.numel() for name, p in model.named_parameters() if p.ndim > 1 and name not in leave_out)


def _shape(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A network on the meta device; somebody else's may need values to be built."""
    return build_on_meta(name, **arguments) if parse_name(name).spec else create_model(name, **arguments)


def _image(model: nn.Module, image_size: tuple[int, int]) -> Inputs:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return Inputs(torch.zeros(1, 3, *image_size, device=device))


def _is_sized(name: ModelName) -> bool:
    return name.spec is not None and not name.is_layer


class _Network:
    """A network of a recipe's options, and the same in other sizes."""

    def __init__(self, name: str, recipe: Recipe, classes: int) -> None:
        self.name, self.recipe, self.classes = parse_name(name), recipe, classes
        self.options = recipe.options_of(name)
        self.config = {**(self.name.spec.config if self.name.spec else {}), **self.options}
        self._costs: dict[tuple[Any, ...], int] = {}

    def entrant(
        self, key: Role, size: Mapping[str, Any] | None = None, mirror: float | None = None
    ) -> Entrant:
        """As it runs, in another size where one is given."""
        options = {**self.options, **(size or {})}
        model = self._build(options)
        return Entrant(
            key=key,
            name=self.name.raw,
            label=self.name.label_with(options),
            options=options,
            mirror=self.recipe.augmentation.mirror if mirror is None else mirror,
            parameters=num_parameters(model),
            linear_parameters=linear_parameters(model),
            macs=self._macs(model),
        )

    def as_wide_as(self, macs: int) -> dict[str, Any]:
        """The options of the width with so many MACs; see `entrants_of` for which."""
        first = self.config["widths"][0] if "widths" in self.config else self.config["width"]
        # As cells have them, which suits all layers of all families.
        step = math.lcm(4, self.name.version.about.divisor)
        every = [self._of_width(width) for width in range(step, _MOST * first + 1, step)]
        sizes = [size for size in every if self._has_heads_alike(size)]
        nearest = self._nearest(macs, sizes)
        around = sizes[max(0, nearest - _AROUND) : nearest + _AROUND + 1]
        even = [size for size in around if abs(self._cost(size) / macs - 1) <= SLACK]
        return min(
            even or [sizes[nearest]], key=lambda size: (*self._unsuited(size), abs(self._cost(size) - macs))
        )

    def as_deep_as(self, macs: int) -> dict[str, Any]:
        """The options of the depth whose MACs are nearest."""
        deepest = max(self.config["depths"]) if "depths" in self.config else self.config["depth"]
        sizes = [self._of_depth(depth) for depth in range(1, _MOST * deepest + 1)]
        return sizes[self._nearest(macs, sizes)]

    def _nearest(self, macs: int, sizes: Sequence[dict[str, Any]]) -> int:
        """Which has the MACs that are nearest, by halving, for each has more than the one before."""
        low, high = 0, len(sizes) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._cost(sizes[middle]) < macs else (low, middle)
        return min((low, high), key=lambda index: abs(self._cost(sizes[index]) - macs))

    def _cost(self, size: Mapping[str, Any]) -> int:
        """MACs of the forward pass in another size, by torch's counter alone, which is quick."""
        key = tuple(size.values())
        if key not in self._costs:
            model = self._build({**self.options, **size, "impl": "eager"})
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                _image(model, self.recipe.image_size).call(model)
            self._costs[key] = counter.get_total_flops() // 2
        return self._costs[key]

    def _unsuited(self, size: Mapping[str, Any]) -> tuple[int, int]:
        """The less, the better the channels of an irrep, then those of a head, suit processors."""
        width = size["widths"][0] if "widths" in size else size["width"]
        irrep = _twos(width // self.name.version.about.divisor)
        return -min(irrep, _ENOUGH), -min(_twos(width // size.get("heads", 1)), _ENOUGH)

    def _has_heads_alike(self, size: Mapping[str, Any]) -> bool:
        """Whether a head's channels are within a quarter of what they are, which decides about kernels."""
        if "heads" not in size:
            return True
        own = self.config["width"] / self.config["heads"]
        return 0.75 * own <= size["width"] / size["heads"] <= 1.25 * own

    def _of_width(self, width: int) -> dict[str, Any]:
        if "widths" in self.config:
            first = self.config["widths"][0]
            return {"widths": tuple(width * own // first for own in self.config["widths"])}
        if "heads" not in self.config:
            return {"width": width}
        channels = self.config["width"] / self.config["heads"]
        return {"width": width, "heads": heads_of(width, self.name.version.about.divisor, channels)}

    def _of_depth(self, depth: int) -> dict[str, Any]:
        if "depths" in self.config:
            most = max(self.config["depths"])
            return {"depths": tuple(max(1, round(own * depth / most)) for own in self.config["depths"])}
        return {"depth": depth}

    def _build(self, options: Mapping[str, Any]) -> nn.Module:
        return _shape(self.name.raw, building(self.name.raw, options, self.recipe, self.classes))

    def _macs(self, model: nn.Module) -> int:
        try:
            return observe(model, _image(model, self.recipe.image_size)).macs
        except Exception as error:  # networks raise what they like
            raise FlopbenchError(f"{self.name.raw} cannot be raced: {in_one_line(error)}") from error


def _twos(number: int) -> int:
    """The highest power of two that divides a number."""
    return number & -number
