"""What `flopbench.benchmark` is given, read: pairs with names of their own, and a suite of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from flopbench.cells import AXES
from flopbench.errors import FlopbenchError, NothingMeasuredError, unknown
from flopbench.given import Objects
from flopbench.inputs import Inputs, make_inputs
from flopbench.models import foreign
from flopbench.modes import DeviceKind, DType
from flopbench.pairs import Pair
from flopbench.report.text import joined
from flopbench.results import Run
from flopbench.runner.begin import Request, begin, device_kind
from flopbench.runner.given import Launcher
from flopbench.runner.here import networks_of
from flopbench.runner.sweep import Observer, sweep
from flopbench.suites import Profile, Suite, first_mistake, override

_DTYPES: dict[torch.dtype, DType] = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

# What else `flopbench.benchmark` takes by name.
_OTHERS = {"devices", "precision", "cell_seconds", "replicates", "serving", "budget", "threads", "progress"}


class Given:
    """What was given from Python: `objects` by name, and the `suite` that names them.

    Args:
        baseline: a network: an `nn.Module`, a function, or a name.
        candidate: another, or several by name.
        inputs: what they are called with, as of `flopbench.benchmark`; None for images.
        pair: further fields of each pair: `loss`, `same`, `tolerance`, `perturb`.
        axes: the values of axes of the profile, by their plural.
        changes: other fields of the profile. None leaves one, or an axis, as it is.

    Raises:
        FlopbenchError: what is given cannot be measured.
    """

    def __init__(
        self,
        baseline: Any,
        candidate: Any,
        inputs: Any,
        *,
        pair: Mapping[str, Any],
        axes: Mapping[str, Any],
        **changes: Any,
    ) -> None:
        known = {axis.plural for axis in AXES.values()}
        for name in axes.keys() - known:
            raise unknown("argument", name, known | _OTHERS | pair.keys())
        self.objects = Objects()
        self.given_inputs = inputs is not None
        changes = {name: value for name, value in {**axes, **changes}.items() if value is not None}
        named = self._named(baseline, candidate)
        stated = {what: self.objects.function(what, pair[what]) for what in ("loss", "same")}
        fields = {**pair, **stated, "inputs": self.objects.inputs(inputs)}
        own = bool(self.objects.networks) and "dtypes" not in changes
        try:
            pairs = [Pair(baseline=named[0], candidate=name, cast=not own, **fields) for name in named[1]]
        except ValidationError as error:
            raise FlopbenchError(first_mistake(error)) from None
        usual = Profile.model_validate(
            {
                "batch_sizes": self._batch_sizes(changes),
                "passes": "forward",
                "modes": "eager",
                "cell_seconds": 5.0,
                "precision": 0.02,
            }
        )
        profile = override(usual, pairs=tuple(pairs), **changes)
        if own:
            profile = override(profile, dtypes=self._own_dtype(pairs[0], profile))
        labels = [pairs[0].labels[0], *(each.labels[1] for each in pairs)]
        self.suite = Suite(
            name="benchmark",
            title=f"{_in_short(labels[1:])} against {labels[0]}",
            profiles={"cpu": profile, "cuda": profile},
        )

    def _named(self, baseline: Any, candidate: Any) -> tuple[str, list[str]]:
        """The names of the baseline and the candidates; of objects they are `python:NAME`."""
        if isinstance(baseline, Mapping):
            raise FlopbenchError("baseline is a dict: give one network; several candidates are a dict")
        if isinstance(candidate, Mapping) and not candidate:
            raise FlopbenchError("candidate is an empty dict: give a network, or several by name")
        name = self.objects.network
        if isinstance(candidate, Mapping):
            # Names that were chosen stay as they are.
            names = [name(f"candidate {key!r}", one, str(key)) for key, one in candidate.items()]
            return name("baseline", baseline), names
        return name("baseline", baseline), [name("candidate", candidate)]

    def _batch_sizes(self, changes: Mapping[str, Any]) -> Any:
        """What is measured where no batch size is given."""
        fixed = self.objects.get("inputs")
        if not isinstance(fixed, Inputs):
            return 1, 16
        if any(x.is_meta for x in fixed.tensors):
            raise FlopbenchError("inputs are on the device meta, which keeps no values")
        if not fixed.batch_size:
            raise FlopbenchError(f"inputs are empty ({fixed}): give a batch of at least one")
        given = changes.get("batch_sizes")
        if isinstance(given, Sequence) and len(given) > 1:
            raise FlopbenchError(
                "inputs are of one batch size: for several give a function of it, "
                "inputs=lambda n: torch.randn(n, 3, 224, 224)"
            )
        return fixed.batch_size

    def _own_dtype(self, pair: Pair, profile: Profile) -> DType:
        """Of most of the weights; without any of the inputs."""
        sizes = Counter[torch.dtype]()
        networks = networks_of(self.objects.networks)
        weights = (weight for network in networks for weight in network.parameters(recurse=False))
        for tensor in list(weights) or self._input_tensors(pair, profile):
            if tensor.is_floating_point():
                sizes[tensor.dtype] += 1 if nn.parameter.is_lazy(tensor) else tensor.numel()
        dtype = sizes.most_common(1)[0][0] if sizes else torch.float32
        if dtype not in _DTYPES:
            name = str(dtype).removeprefix("torch.")
            raise FlopbenchError(
                f'the networks are in {name}: give dtypes="fp32", "bf16" or "fp16" to cast them'
            )
        return _DTYPES[dtype]

    def _input_tensors(self, pair: Pair, profile: Profile) -> list[Tensor]:
        if pair.inputs is None:
            return []
        foreign.put(self.objects)
        try:
            size, image = profile.values(AXES["batch_size"])[0], profile.values(AXES["image_size"])[0]
            return make_inputs(pair, size, image, device="cpu", dtype=None).tensors
        finally:
            foreign.put({})


def _in_short(names: Sequence[str]) -> str:
    """A few names, or how many there are."""
    return joined([*names]) if len(names) <= 3 else f"{len(names)} candidates"


def devices_of(devices: str | Sequence[str] | None) -> list[DeviceKind | None]:
    """The devices to measure on; None stands for a GPU if there is one.

    Raises:
        FlopbenchError: there is none of that name, or none was named.
    """
    if devices is None:
        return [None]
    given = [devices] if isinstance(devices, str) else list(devices)
    if not given:
        raise FlopbenchError("devices is empty: choose cpu or cuda, or both")
    return [device_kind(device, "devices") for device in dict.fromkeys(given)]


def measure(
    given: Given,
    devices: Sequence[DeviceKind | None],
    launch: Launcher,
    command: str,
    observer: Observer,
    runs: list[Run],
) -> None:
    """Measure what was given, in a run per device.

    Args:
        given: what.
        devices: on which; None for a GPU if there is one.
        launch: what calls the jobs.
        command: what the runs record as their origin.
        observer: told how far it is.
        runs: where the runs are added to, in temporary folders that last as long as they do.

    Raises:
        FlopbenchError: a device is not there, or a cell cannot run on it.
        NothingMeasuredError: no cell of any run ended well.
    """
    begun = [begin(Request(given.suite), device, None, command=command, launch=launch) for device in devices]
    failures = []
    for run in begun:
        runs.append(run)
        device = run.info.environment.device
        try:
            sweep(run, observer, launch=launch.on(device), flags=launch.flags)
        except NothingMeasuredError as error:
            failures.append(error)
    if len(failures) == len(begun):
        hint = (
            "" if given.given_inputs else "; inputs were not given, so the networks got images [B, 3, H, W]"
        )
        raise NothingMeasuredError(f"{failures[0]}{hint if given.objects else ''}")
