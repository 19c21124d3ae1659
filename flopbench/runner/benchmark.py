"""What `flopbench.benchmark` is given, read: pairs with names of their own, and a suite of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from flopbench.cells import AXES, DeviceKind, DType, Pair, complaint
from flopbench.errors import FlopbenchError, NothingMeasuredError, brief, unknown
from flopbench.inputs import Inputs, make_inputs
from flopbench.models import foreign
from flopbench.models.catalog import GIVEN, parse_name
from flopbench.results import Run
from flopbench.runner.begin import Request, begin, device_kind
from flopbench.runner.given import Launcher
from flopbench.runner.here import networks_of
from flopbench.runner.sweep import Observer, sweep
from flopbench.suites import Profile, Suite, override

_DTYPES: dict[torch.dtype, DType] = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

# What else than a network a name may stand for.
_RESERVED = ("inputs", "loss", "same")


class Given:
    """What was given from Python: `objects` by name, and the `suite` that names them.

    Args:
        baseline: a network: an `nn.Module`, a function, or a name.
        candidate: another, or several by name.
        inputs: what they are called with, as of `flopbench.benchmark`; None for images.
        pair: further fields of each pair: `loss`, `same`, `tolerance`, `perturb`.
        changes: fields of the profile, the values of its axes among them; None leaves one as it is.

    Raises:
        FlopbenchError: what is given cannot be measured.
    """

    def __init__(
        self, baseline: Any, candidate: Any, inputs: Any, pair: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> None:
        known = Profile.model_fields.keys() | {"devices", "budget", "threads", "progress", *pair}
        for name in changes.keys() - Profile.model_fields.keys():
            raise unknown("argument", name, known - {"pairs", "budget_seconds", "memory_frontier"})
        self.objects: dict[str, Any] = {}
        self.given_inputs = inputs is not None
        changes = {name: value for name, value in changes.items() if value is not None}
        named = self._named(baseline, candidate)
        fields = {**pair, "inputs": self._inputs(inputs), "perturb": pair["perturb"]}
        for what in ("loss", "same"):
            fields[what] = self._stated(what, pair.get(what))
        own = bool(self._networks) and "dtypes" not in changes
        try:
            pairs = [Pair(baseline=named[0], candidate=name, cast=not own, **fields) for name in named[1]]
        except ValidationError as error:
            raise FlopbenchError(complaint(error)) from None
        usual = Profile.model_validate(
            {
                "batch_sizes": self._batch_sizes(changes),
                "passes": "forward",
                "modes": "eager",
                "cell_seconds": 5.0,
            }
        )
        profile = override(usual, pairs=tuple(pairs), **changes)
        if own:
            profile = override(profile, dtypes=self._own_dtype(pairs[0], profile))
        labels = [pairs[0].labels[0], *(each.labels[1] for each in pairs)]
        self.suite = Suite(
            name="benchmark",
            title=f"{', '.join(labels[1:])} against {labels[0]}",
            profiles={"cpu": profile, "cuda": profile},
        )

    @property
    def _networks(self) -> list[Any]:
        return [one for name, one in self.objects.items() if name not in _RESERVED]

    def _named(self, baseline: Any, candidate: Any) -> tuple[str, list[str]]:
        """The names of the baseline and the candidates; of objects they are `python:NAME`."""
        if isinstance(baseline, Mapping):
            raise FlopbenchError("baseline is a dict: give one network; several candidates are a dict")
        if isinstance(candidate, Mapping) and not candidate:
            raise FlopbenchError("candidate is an empty dict: give a network, or several by name")
        if isinstance(candidate, Mapping):
            # Names that were chosen stay as they are.
            names = [self._name(f"candidate {key!r}", one, str(key)) for key, one in candidate.items()]
            return self._name("baseline", baseline), names
        return self._name("baseline", baseline), [self._name("candidate", candidate)]

    def _name(self, role: str, network: Any, key: str = "") -> str:
        if isinstance(network, str):
            return parse_name(network).raw
        if isinstance(network, type):
            name = network.__name__
            raise FlopbenchError(f"{role} is the class {name}: give an instance of it, {name}(...)")
        if isinstance(network, Tensor) or not callable(network):
            kind = type(network).__name__
            raise FlopbenchError(
                f"{role} is of type {kind}: give a torch.nn.Module, a function, or a model's name"
            )
        name = key or _title(network)
        if name in self.objects or name in _RESERVED:
            name = next(other for other in _others(name, role) if other not in self.objects)
        self.objects[name] = network
        return f"{GIVEN}:{name}"

    def _inputs(self, inputs: Any) -> str | None:
        if inputs is None or isinstance(inputs, str):
            return inputs
        if isinstance(inputs, nn.Module | type):
            raise FlopbenchError("inputs is a network: give what the networks are called with")
        if not callable(inputs):
            inputs = Inputs.of(inputs)
            if not inputs.tensors:
                raise FlopbenchError("inputs hold no tensor: give a tensor, a tuple or a dict of them")
            # Of its own: what it was computed from is no part of what is measured.
            inputs = inputs.map(lambda x: x.detach().requires_grad_(x.requires_grad))
        self.objects["inputs"] = inputs
        return f"{GIVEN}:inputs"

    def _stated(self, what: str, given: Any) -> str | None:
        if given is None or isinstance(given, str):
            return given
        if not callable(given):
            raise FlopbenchError(
                f"{what} is {brief(given)}: give a function, or the name of a part of the output"
            )
        self.objects[what] = given
        return f"{GIVEN}:{what}"

    def _batch_sizes(self, changes: Mapping[str, Any]) -> Any:
        """What is measured where no batch size is given."""
        fixed = self.objects.get("inputs")
        if not isinstance(fixed, Inputs):
            return 1, 16
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
        weights = (w for network in networks_of(self._networks) for w in network.parameters(recurse=False))
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


def _title(network: Any) -> str:
    """What a network is called: its class, or the function's name."""
    if isinstance(network, partial):
        return _title(network.func)
    if isinstance(network, nn.Module):
        return type(getattr(network, "_orig_mod", network)).__name__
    name = getattr(network, "__name__", type(network).__name__)
    return "function" if name == "<lambda>" else name


def _others(name: str, role: str) -> Iterator[str]:
    """Names to tell one from another of the same name."""
    yield f"{name} ({role.partition(' ')[0]})"
    number = 2
    while True:
        yield f"{name} ({number})"
        number += 1


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
