"""The symmetry of whole networks, as suites name them: on noise and on a photograph, in fp32 and fp64."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.cells import AXES, Cell
from flopbench.errors import FlopbenchError
from flopbench.models.catalog import Spec, parse_name
from flopbench.models.factory import create_model, perturb
from flopbench.models.tasks import CLASSIFICATION, TASKS
from flopbench.suites import Profile, available_suites, load_suite
from flopbench.symmetries import Generator, each
from flopbench.symmetries.actions import OF_KIND, BySymmetry
from flopbench.testing.invariance import (
    TOLERANCE,
    equivariance_errors,
    error_of,
    photo,
    promised,
    random_images,
    scales_of,
)

DTYPES = {"fp32": torch.float32, "fp64": torch.float64}
# Logits; each of them is a row of one product.
_CLASSES = 10


@dataclass(frozen=True)
class Candidate:
    """A network with a symmetry, as a suite measures it.

    Attributes:
        name: as in suite files.
        options: of `create_model`: its task and decoder, its width, ...
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """`segmentation, conv decoder`; and what else the suite says of it."""
        said = {"task": CLASSIFICATION.name, **self.options}
        return ", ".join(AXES[name].say(value, usual=True) for name, value in said.items() if name in AXES)


@dataclass(frozen=True)
class Verification:
    """The errors of one network, relative to the deviation of what was compared.

    Attributes:
        candidate: which.
        label: the paper's.
        what: what was compared: "logits", "features", "segmentation", ..., as the task gives; "first half" of
            a network that has its symmetry up to there, "layer" of a single one.
        errors: by images ("random", "photo"), dtype ("fp32", "fp64") and the name of the generator, the
            largest of all sizes of images; infinite where the output was not finite, all the same or blind
            to the input.
    """

    candidate: Candidate
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


def candidates(suite: str, *, quick: bool = False) -> list[Candidate]:
    """The networks with a symmetry that a suite measures on any device, in each of their tasks.

    Args:
        suite: name or path of a suite, or "all".
        quick: those of the quick profiles only.

    Raises:
        FlopbenchError: no such suite, or it measures no network with a symmetry.
    """
    found: list[Candidate] = []
    for name in available_suites() if suite == "all" else [suite]:
        loaded = load_suite(name)
        for some in [loaded.quick] if quick else [loaded.profiles, loaded.full]:
            for device, profile in some.items():
                for cell in _networks_of(profile).cells(device):
                    found += [c for c in _candidates_of(cell) if c not in found]
    if not found:
        raise FlopbenchError(f"suite {suite!r} has no network with a symmetry to verify")
    return found


def _networks_of(profile: Profile) -> Profile:
    """What of a profile says which networks there are: all that they are made to do counts once."""
    others = [axis for axis in AXES.values() if axis.about != "network" or axis.name == "image_size"]
    once = {axis.plural: profile.values(axis)[:1] for axis in others}
    return profile.model_copy(update={**once, "passes": ("forward",)})


def _candidates_of(cell: Cell) -> list[Candidate]:
    found = []
    for name in (cell.pair.baseline, cell.pair.candidate):
        if parse_name(name).has_symmetry:
            options = cell.options(name)
            settings = [option for option in options if option in AXES and AXES[option].about == "setting"]
            options = {option: value for option, value in options.items() if option not in settings}
            found.append(Candidate(name, options))
    return found


def verify_model(name: str, image_size: int | tuple[int, int] | None = None, **options: Any) -> Verification:
    """Build a network, perturb its weights, and compare what it makes of images before and after a move.

    Every generator of its symmetry moves them in turn.

    Args:
        name: of a network with a symmetry, e.g. `vit_b16.flop`, `vit_b16.hybrid`; or of a layer.
        image_size: pixels, one number for square images or (height, width). By default four cells of the
            coarsest grid each way, and for tasks with a grid at their end three by five, too, where the
            symmetry takes them: the network is the same, and checked in seconds.
        options: of `create_model`, e.g. `task="segmentation"`.

    Raises:
        FlopbenchError: an unknown name, size or option, or a network that promises no symmetry.
    """
    parsed = parse_name(name)
    if parsed.spec is None:
        raise FlopbenchError(f"{name} promises no symmetry: check your own networks by assert_equivariant")
    if not parsed.has_symmetry:
        raise FlopbenchError(f"{name} promises no symmetry: verify e.g. {parsed.spec.names[1]}")
    task = TASKS[options.get("task", CLASSIFICATION.name)]
    what = task.answer if parsed.invariant else "layer" if parsed.is_layer else "first half"
    sizes: list[Any] = [image_size or 4 * parsed.spec.stride]
    if not (image_size or task.classifies or parsed.version.about.square_even):
        sizes.append((3 * parsed.spec.stride, 5 * parsed.spec.stride))
    errors: dict[tuple[str, str], dict[str, float]] = {}
    for size in sizes:
        with torch.device("meta"):
            model = create_model(name, size, _CLASSES, **options)
        model = perturb(model.to_empty(device="cpu")).eval()
        for dtype, torch_dtype in DTYPES.items():
            model.to(torch_dtype)
            pictures = {
                "random": random_images(2, size, torch_dtype),
                "photo": photo(size, dtype=torch_dtype),
            }
            for kind, images in pictures.items():
                match what:
                    case "layer":
                        found = _layer_errors(model, images)
                    case "first half":
                        found = _first_half_errors(model, images, parsed.spec)
                    case _:
                        found = equivariance_errors(model, images, promised(name), OF_KIND[task.kind])
                known = errors.setdefault((kind, dtype), {})
                known.update({name: max(error, known.get(name, 0.0)) for name, error in found.items()})
    return Verification(Candidate(name, options), parsed.label_with(options), what, errors)


def verify_suite(suite: str, *, quick: bool = False, image_size: int | None = None) -> Iterator[Verification]:
    """`verify_model` of all `candidates`, one after the other.

    Raises:
        FlopbenchError: no such suite, or it measures no network with a symmetry.
    """
    for candidate in candidates(suite, quick=quick):
        yield verify_model(candidate.name, image_size, **candidate.options)


class _Joined(Exception):  # noqa: N818  (a signal, not an error)
    """The forward pass has come to where one symmetry ends."""


def _first_half_errors(model: Any, images: Tensor, spec: Spec) -> dict[str, float]:
    """`equivariance_errors` of the network up to the join."""
    join = next(module for path, module in model.named_modules() if path.endswith("join") and _joins(module))
    grid = (images.shape[-2] // spec.patch_size, images.shape[-1] // spec.patch_size)
    seen: list[Any] = []

    def stop(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])
        raise _Joined

    def first_half(x: Tensor) -> Any:
        with suppress(_Joined):
            model(x)
        return seen.pop()

    action = BySymmetry("first half", lambda generator, x: _moved(generator, x, grid))
    with join.register_forward_pre_hook(stop):
        return equivariance_errors(first_half, images, model.first.generators, action)


@torch.no_grad()
def _layer_errors(model: Any, images: Tensor) -> dict[str, float]:
    """The same of a single layer, on what it takes from images."""
    seen: list[Any] = []
    with model.layer.register_forward_hook(lambda _, inputs, output: seen.extend((inputs, output))):
        model(images)
    inputs, output = seen
    scales = scales_of(output)
    return {
        g.name: error_of(model.layer(*(_moved(g, x) for x in inputs)), _moved(g, output), scales)
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
