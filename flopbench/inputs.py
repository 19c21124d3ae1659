"""What a network is called with: any number of arguments of any structure, the same for both of a pair."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from flopbench.errors import FlopbenchError, in_one_line
from flopbench.models.catalog import GIVEN
from flopbench.models.foreign import load
from flopbench.pairs import Pair
from flopbench.structures import mapped, tensors
from flopbench.testing.invariance import random_images


@dataclass(frozen=True, init=False)
class Inputs:
    """The arguments of a call: `Inputs(tokens, mask=mask)` for `network(tokens, mask=mask)`.

    Attributes:
        args: by position.
        kwargs: by name.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", kwargs)

    @classmethod
    def of(cls, given: Any) -> "Inputs":
        """What a user gives: a tuple holds arguments by position, a mapping by name; all else is one.

        A list is one argument, as detectors take one of images. For a mapping that is one argument, give
        `Inputs(mapping)`.
        """
        if isinstance(given, Inputs):
            return given
        if isinstance(given, tuple) and not hasattr(given, "_fields"):
            return cls(*given)
        if isinstance(given, Mapping) and all(isinstance(key, str) for key in given):
            return cls(**given)
        return cls(given)

    def call(self, network: Callable[..., Any]) -> Any:
        """What the network makes of them."""
        return network(*self.args, **self.kwargs)

    def map(self, fn: Callable[[Any], Any], kinds: Any = Tensor) -> "Inputs":
        """The same with every tensor, or object of `kinds`, replaced, whatever it lies in.

        One that comes twice stays one.
        """
        made: dict[int, Any] = {}

        def once(x: Any) -> Any:
            if id(x) not in made:
                made[id(x)] = fn(x)
            return made[id(x)]

        return Inputs(*mapped(self.args, once, kinds), **mapped(dict(self.kwargs), once, kinds))

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None = None) -> "Inputs":
        """On a device, floating point in `dtype`; tokens and masks keep theirs. None changes nothing."""

        def moved(x: Tensor | PackedSequence) -> Any:
            return x.to(device=device, dtype=dtype if x.data.is_floating_point() else None)  # pyright: ignore[reportCallIssue]

        # A packed sequence moves itself: recurrent layers want its batch sizes on the CPU, wherever it is.
        return self.map(moved, (Tensor, PackedSequence))

    def __str__(self) -> str:
        """What they are, without values: `int64 [4, 16], mask: bool [4, 16]`."""
        named = [*(("", one) for one in self.args), *self.kwargs.items()]
        return ", ".join(f"{name}: {_told(one)}" if name else _told(one) for name, one in named)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of `structures.leaves`."""
        return tensors((self.args, dict(self.kwargs)))

    @property
    def batch_size(self) -> int:
        """How many items a call works on: the length of the first argument's list, or of its first tensor."""
        first = next(iter((*self.args, *self.kwargs.values())), None)
        if isinstance(first, PackedSequence):
            return int(first.batch_sizes[0])
        if isinstance(first, list):
            return len(first)
        found = [x for x in self.tensors if x.ndim]
        return len(found[0]) if found else 1


def _told(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return f"{str(argument.dtype).removeprefix('torch.')} {list(argument.shape)}"
    held = len(tensors(argument))
    return f"{type(argument).__name__} of {held} tensors" if held else type(argument).__name__


def make_inputs(
    pair: Pair | None,
    batch_size: int,
    image_size: tuple[int, int],
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    seed: int = 0,
    channels: int = 3,
) -> Inputs:
    """What both networks of a pair are called with: its own inputs, by default images `[B, channels, H, W]`.

    Images are normal noise. A function that makes inputs is called with the batch size, and with `image_size`
    where it has a parameter of that name, after the random numbers were seeded: the same every time. Own
    inputs are copied, so that neither their values nor their gradients are written to; those that require
    gradients do so here, too.

    Args:
        pair: whose `inputs` say what; None is one without any.
        batch_size: B.
        image_size: H, W in pixels.
        device: where they are to be; on the meta device they have no values. None leaves own inputs where
            they are.
        dtype: of floating-point tensors; None leaves them as they come.
        seed: chooses the random numbers.
        channels: of images.

    Raises:
        FlopbenchError: the pair's function cannot be found, or raises.
    """
    if pair is None or pair.inputs is None:
        device = torch.get_default_device() if device is None else torch.device(device)
        if device.type == "meta":
            return Inputs(torch.empty(batch_size, channels, *image_size, device="meta", dtype=dtype))
        images = random_images(batch_size, image_size, seed=seed, channels=channels)
        return Inputs(images.to(device, dtype or torch.float32))
    given = load(pair.inputs)
    if _makes_inputs(given):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                sized = "image_size" in inspect.signature(given).parameters
                given = given(batch_size, **({"image_size": image_size} if sized else {}))
            except (Exception, SystemExit) as error:
                own = "" if pair.inputs.startswith(f"{GIVEN}:") else f" {pair.inputs}"
                why = in_one_line(error)
                raise FlopbenchError(f"cannot make the inputs{own} of {pair.spoken}: {why}") from error
    inputs = Inputs.of(given)
    if not inputs.tensors:
        raise FlopbenchError(
            f"the inputs of {pair.spoken} hold no tensor: give a tensor, a tuple or a dict of them"
        )
    return inputs.to(device, dtype).map(lambda x: x.detach().clone().requires_grad_(x.requires_grad))


def are_fixed(pair: Pair) -> bool:
    """Whether a pair's inputs are given as they are, in one batch size, not by a function of it.

    Raises:
        FlopbenchError: they cannot be found.
    """
    return pair.inputs is not None and not _makes_inputs(load(pair.inputs))


def _makes_inputs(given: Any) -> bool:
    return callable(given) and not isinstance(given, nn.Module | Mapping | Sequence | Tensor)


def inputs_for(
    model: nn.Module,
    pair: Pair | None = None,
    batch_size: int = 1,
    image_size: tuple[int, int] = (224, 224),
    *,
    channels: int = 3,
    seed: int = 0,
) -> Inputs:
    """`make_inputs` for a network as it is: on its device, and of its dtype unless the pair casts nothing.

    A network without weights takes own inputs where they are, images on the default device, and the default
    dtype.
    """
    weights = [*model.parameters(), *model.buffers()]
    dtype = next((w.dtype for w in weights if w.is_floating_point()), torch.get_default_dtype())
    return make_inputs(
        pair,
        batch_size,
        image_size,
        device=weights[0].device if weights else None,
        dtype=None if pair and pair.inputs is not None and not pair.cast else dtype,
        seed=seed,
        channels=channels,
    )
