"""The symmetry of whole networks, as suites name them: on noise and on a photograph, in fp32 and fp64."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError
from flopbench.models.catalog import ModelName, label_of, parse_name
from flopbench.models.factory import create_model, perturb
from flopbench.suites import available_suites, load_suite
from flopbench.symmetries import Halves, mirror
from flopbench.testing.invariance import TOLERANCE, invariance_error, photo, random_images

DTYPES = {"fp32": torch.float32, "fp64": torch.float64}


@dataclass(frozen=True)
class Verification:
    """The errors of one network, relative to the deviation of what was compared.

    Attributes:
        name: as in suite files.
        label: the paper's.
        what: "logits" of a network that is invariant, "first half" of one that is equivariant up to there.
        errors: by images ("random", "photo") and dtype ("fp32", "fp64"); infinite where the output was
            not finite, all the same or blind to the input.
    """

    name: str
    label: str
    what: str
    errors: dict[tuple[str, str], float]

    @property
    def passed(self) -> bool:
        """Whether every error is within the tolerance of its dtype."""
        return all(error <= TOLERANCE[dtype] for (_, dtype), error in self.errors.items())


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
    """Build a network, perturb its weights, and compare what it makes of images and of their mirror images.

    Args:
        name: of a network with a symmetry, e.g. `vit_b16.flop`, `vit_b16.hybrid`.
        image_size: pixels, one number for square images or (height, width). By default four cells of the
            coarsest grid each way: the network is the same, and checked in seconds.

    Raises:
        FlopbenchError: an unknown name or size, or a network that promises no symmetry.
    """
    parsed = parse_name(name)
    if parsed.spec is None or not parsed.has_symmetry:
        raise FlopbenchError(f"{name} promises no symmetry: verify e.g. {parsed.base}.flop")
    size = image_size or 4 * parsed.spec.stride
    with torch.device("meta"):
        model = create_model(name, size)
    model = perturb(model.to_empty(device="cpu")).eval()
    errors = {}
    for dtype, torch_dtype in DTYPES.items():
        model.to(torch_dtype)
        pictures = {
            "random": random_images(2, size, torch_dtype),
            "photo": photo(size, dtype=torch_dtype),
        }
        for kind, images in pictures.items():
            if parsed.invariant:
                errors[kind, dtype] = invariance_error(model, images)
            else:
                errors[kind, dtype] = _first_half_error(model, images, parsed)
    return Verification(name, label_of(name), "logits" if parsed.invariant else "first half", errors)


def verify_suite(suite: str, *, quick: bool = False, image_size: int | None = None) -> Iterator[Verification]:
    """`verify_model` of all `candidates`, one after the other.

    Raises:
        FlopbenchError: no such suite, or it measures no network with a symmetry.
    """
    for name in candidates(suite, quick=quick):
        yield verify_model(name, image_size)


class _Joined(Exception):  # noqa: N818  (a signal, not an error)
    """The forward pass has come to where the halves are joined."""


@torch.no_grad()
def _first_half_error(model: nn.Module, images: Tensor, name: ModelName) -> float:
    """Largest |f(flop x) − flop f(x)| over the deviation, f the network up to the change of basis."""
    join = next(module for path, module in model.named_modules() if path.endswith("join") and _joins(module))
    seen: list[Any] = []

    def stop(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])
        raise _Joined

    handle = join.register_forward_pre_hook(stop)
    try:
        for x in (images, images.flip(-1)):
            try:
                model(x)
            except _Joined:
                continue
    finally:
        handle.remove()
    feature, mirrored = seen
    assert name.spec is not None
    if name.spec.family == "vit":
        columns = images.shape[-1] // name.spec.patch_size
        expected = _mirror_with_class_token(feature, columns)
    else:
        expected = mirror(feature)
    return max(_error(got, wanted) for got, wanted in zip(mirrored, expected, strict=True))


def _joins(module: nn.Module) -> bool:
    return not isinstance(module, nn.Identity)


def _mirror_with_class_token(x: Halves, columns: int) -> Halves:
    """A flop of row-major tokens `[B, 1 + H·W, C]`, the first of which is the class token."""
    grid = mirror(Halves(*(part[:, 1:].unflatten(1, (-1, columns)) for part in x)))
    return Halves(
        torch.cat([x.s[:, :1], grid.s.flatten(1, 2)], dim=1),
        torch.cat([-x.a[:, :1], grid.a.flatten(1, 2)], dim=1),
    )


def _error(got: Tensor, expected: Tensor) -> float:
    spread = expected.std().item()
    error = (got - expected).abs().max().item() / spread if spread else math.inf
    return error if math.isfinite(error) else math.inf
