"""The symmetry of whole networks, as suites name them: on noise and on a photograph, in fp32 and fp64."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError
from flopbench.models.catalog import label_of, parse_name
from flopbench.models.factory import create_model, perturb
from flopbench.suites import available_suites, load_suite
from flopbench.symmetries import Generator, each, parts_of
from flopbench.testing.invariance import TOLERANCE, equivariance_errors, photo, promised, random_images

DTYPES = {"fp32": torch.float32, "fp64": torch.float64}


@dataclass(frozen=True)
class Verification:
    """The errors of one network, relative to the deviation of what was compared.

    Attributes:
        name: as in suite files.
        label: the paper's.
        what: "logits" of a network that is invariant, "first half" of one that is equivariant up to there,
            "layer" of a single one.
        errors: by images ("random", "photo"), dtype ("fp32", "fp64") and the name of the generator;
            infinite where the output was not finite, all the same or blind to the input.
    """

    name: str
    label: str
    what: str
    errors: dict[tuple[str, str], dict[str, float]]

    @property
    def broken(self) -> tuple[str, ...]:
        """The generators with an error beyond the tolerance of its dtype."""
        return tuple(
            dict.fromkeys(
                generator
                for (_, dtype), errors in self.errors.items()
                for generator, error in errors.items()
                if not error <= TOLERANCE[dtype]
            )
        )

    @property
    def passed(self) -> bool:
        """Whether it has all of its symmetry."""
        return not self.broken


def candidates(suite: str, *, quick: bool = False) -> list[str]:
    """The networks with a symmetry that a suite measures on any device.

    Args:
        suite: name or path of a suite, or "all".
        quick: those of the quick profiles only.

    Raises:
        FlopbenchError: no such suite, or it measures no network with a symmetry.
    """
    found: list[str] = []
    for name in available_suites() if suite == "all" else [suite]:
        loaded = load_suite(name)
        profiles = [loaded.quick] if quick else [loaded.profiles, loaded.full]
        pairs = [pair for some in profiles for profile in some.values() for pair in profile.pairs]
        for model in (model for pair in pairs for model in (pair.baseline, pair.candidate)):
            if parse_name(model).has_symmetry and model not in found:
                found.append(model)
    if not found:
        raise FlopbenchError(f"suite {suite!r} has no network with a symmetry to verify")
    return found


def verify_model(name: str, image_size: int | tuple[int, int] | None = None) -> Verification:
    """Build a network, perturb its weights, and compare what it makes of images before and after a move.

    Every generator of its symmetry moves them in turn.

    Args:
        name: of a network with a symmetry, e.g. `vit_b16.flop`, `vit_b16.hybrid`; or of a layer.
        image_size: pixels, one number for square images or (height, width). By default four cells of the
            coarsest grid each way: the network is the same, and checked in seconds.

    Raises:
        FlopbenchError: an unknown name or size, or a network that promises no symmetry.
    """
    parsed = parse_name(name)
    if parsed.spec is None:
        raise FlopbenchError(f"{name} promises no symmetry: check your own networks by assert_equivariant")
    if not parsed.has_symmetry:
        raise FlopbenchError(f"{name} promises no symmetry: verify e.g. {parsed.spec.names[1]}")
    size = image_size or 4 * parsed.spec.stride
    with torch.device("meta"):
        model = create_model(name, size)
    model = perturb(model.to_empty(device="cpu")).eval()
    what = "logits" if parsed.invariant else "layer" if parsed.is_layer else "first half"
    errors = {}
    for dtype, torch_dtype in DTYPES.items():
        model.to(torch_dtype)
        pictures = {
            "random": random_images(2, size, torch_dtype),
            "photo": photo(size, dtype=torch_dtype),
        }
        for kind, images in pictures.items():
            match what:
                case "logits":
                    found = equivariance_errors(model, images, promised(name))
                case "layer":
                    found = _layer_errors(model, images)
                case _:
                    found = _first_half_errors(model, images, parsed.spec.patch_size)
            errors[kind, dtype] = found
    return Verification(name, label_of(name), what, errors)


def verify_suite(suite: str, *, quick: bool = False, image_size: int | None = None) -> Iterator[Verification]:
    """`verify_model` of all `candidates`, one after the other.

    Raises:
        FlopbenchError: no such suite, or it measures no network with a symmetry.
    """
    for name in candidates(suite, quick=quick):
        yield verify_model(name, image_size)


class _Joined(Exception):  # noqa: N818  (a signal, not an error)
    """The forward pass has come to where one symmetry ends."""


@torch.no_grad()
def _first_half_errors(model: Any, images: Tensor, patch_size: int) -> dict[str, float]:
    """Largest |f(g x) − g f(x)| over the deviation for each generator g, f the network up to the join."""
    join = next(module for path, module in model.named_modules() if path.endswith("join") and _joins(module))
    grid = (images.shape[-2] // patch_size, images.shape[-1] // patch_size)
    seen: list[Any] = []

    def stop(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])
        raise _Joined

    def first_half(x: Tensor) -> Any:
        with suppress(_Joined):
            model(x)
        return seen.pop()

    with join.register_forward_pre_hook(stop):
        feature = first_half(images)
        return {
            g.name: _error(first_half(g.images(images)), _moved(g, feature, grid))
            for g in model.first.generators
        }


@torch.no_grad()
def _layer_errors(model: Any, images: Tensor) -> dict[str, float]:
    """The same of a single layer, on what it takes from images."""
    seen: list[Any] = []
    with model.layer.register_forward_hook(lambda _, inputs, output: seen.extend((inputs, output))):
        model(images)
    inputs, output = seen
    return {
        g.name: _error(model.layer(*(_moved(g, x) for x in inputs)), _moved(g, output))
        for g in model.first.generators
    }


def _joins(module: nn.Module) -> bool:
    return not isinstance(module, nn.Identity)


def _moved(generator: Generator, x: Any, grid: tuple[int, int] | None = None) -> Any:
    """Images or a feature; of tokens those of a `grid`, row by row and last. Others stay at their places."""
    if isinstance(x, Tensor) or x[0].ndim == 4 or not generator.on_grid:
        return generator(x)
    if grid is None:
        return generator.channels(x)
    # A class token comes before the grid, and is moved by its channels alone.
    before = x[0].shape[1] - grid[0] * grid[1]
    others = generator.channels(each(lambda part: part[:, :before], x))
    cells = generator.features(each(lambda part: part[:, before:].unflatten(1, grid), x))
    return each(lambda one, two: torch.cat([one, two.flatten(1, 2)], dim=1), others, cells)


def _error(got: Any, expected: Any) -> float:
    """The largest of any part, infinite where there is none to be found honestly."""
    errors = [
        (one - other).abs().max().item() / (other.std().item() or math.nan)
        for one, other in zip(parts_of(got), parts_of(expected), strict=True)
    ]
    return max((error if math.isfinite(error) else math.inf) for error in errors)
