"""From the profiler's events to seconds by group, operator and part of the network.

Only own time counts, so that the sums add up: on a CPU an operator's time less that of the operators it
calls, on CUDA the time of kernels. Ranges that hooks open (`flopbench.layer:PATH`) say which layer an
event belongs to; in the backward pass the number that links a gradient to the operator whose gradient
it is.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from flopbench.profiling.classify import group_of
from flopbench.results import Group, OperatorTime

STEP = "flopbench.step"
LAYER = "flopbench.layer:"
# What `flops.layer_costs` calls the optimiser's step.
OPTIMISER = "(optimiser)"


@dataclass
class Summary:
    """Seconds a call."""

    groups: dict[Group, float] = field(default_factory=dict)
    operators: tuple[OperatorTime, ...] = ()
    parts: dict[str, float] = field(default_factory=dict)
    calls: int = 0
    stacks: dict[str, float] = field(default_factory=dict)
    """Folded stacks (`part;layer;operator`) to microseconds a call."""


def part_of(path: str) -> str:
    """The part of a network that a layer belongs to: `blocks.3.attn.qkv` is of `blocks.*.attn`.

    Up to the first name after the last number, numbers as `*`; without a number the first name.
    """
    names = path.split(".")
    last = max((index for index, name in enumerate(names) if name.isdigit()), default=-1)
    return ".".join("*" if name.isdigit() else name for name in names[: last + 2]) or "(network)"


def summarise(events: Sequence[Any], *, cuda: bool, norms: Iterable[str] = ()) -> Summary:
    """Sum up what ran within the ranges named `STEP`, a call each.

    Args:
        events: the profiler's `FunctionEvent`s: `name`, `time_range`, `cpu_parent`,
            `self_cpu_time_total` (µs), `device_type`, `kernels`, `sequence_nr`.
        cuda: take the time of kernels instead of that of the host.
        norms: paths of the layers that normalise.

    Returns:
        Means over the middle half of the calls by duration: a neighbour's burst stays out. Parts are
        empty where no layer was marked.
    """
    norms = frozenset(norms)
    spans = (event.time_range for event in events if event.name == STEP and not _is_device(event))
    steps = sorted((span.start, span.end) for span in spans)
    if not steps:
        return Summary()
    kept = _middle_half(steps)
    starts = [start for start, _ in steps]

    def step_of(event: Any) -> int | None:
        index = bisect_right(starts, event.time_range.start) - 1
        inside = index >= 0 and event.time_range.start < steps[index][1]
        return index if inside and index in kept else None

    layers = _Layers(events)
    times: dict[tuple[str, Group], list[float]] = {}
    summary = Summary(calls=len(steps))
    scale = 1e-6 / len(kept)
    for event in events:
        if step_of(event) is None:
            continue
        if cuda and not _is_device(event) and event.kernels and (launcher := layers.of(event)) is not None:
            launched = sum(kernel.duration for kernel in event.kernels)
            _add(summary.parts, part_of(launcher), launched * scale)
        if event.name.startswith((STEP, LAYER)) or cuda != _is_device(event):
            continue
        span = event.time_range
        seconds = (span.end - span.start if cuda else event.self_cpu_time_total) * scale
        layer = None if cuda else layers.of(event)
        group = group_of(event.name, within_norm=layer in norms)
        if group == "other" and cuda and event.name.startswith(("aten::", "## ")):
            continue
        total = times.setdefault((_plain(event.name), group), [0.0, 0.0])
        total[0] += seconds
        total[1] += 1 / len(kept)
        if layer is not None:
            _add(summary.parts, part_of(layer), seconds)
        _add(summary.stacks, layers.stack(event, layer), seconds * 1e6)
    for (_, group), (seconds, _) in times.items():
        _add(summary.groups, group, seconds)
    summary.operators = tuple(
        OperatorTime(name=name, group=group, seconds=seconds, calls=calls)
        for (name, group), (seconds, calls) in sorted(times.items(), key=lambda item: -item[1][0])
    )
    return summary


def _plain(name: str) -> str:
    """Without what differs from process to process: hashes of graphs and numbers of regions."""
    name = re.sub(r"(CompiledFxGraph) \w{20,}", r"\1", name)
    return re.sub(r"(Torch-Compiled Region): \d+/\d+", r"\1", name)


def folded(stacks: dict[str, float]) -> str:
    """Stacks in the folded format that flame graph tools read: a stack and its whole microseconds a line."""
    return "".join(f"{stack} {round(micro)}\n" for stack, micro in sorted(stacks.items()) if round(micro))


def _middle_half(steps: Sequence[tuple[float, float]]) -> frozenset[int]:
    order = sorted(range(len(steps)), key=lambda index: steps[index][1] - steps[index][0])
    cut = len(steps) // 4
    return frozenset(order[cut : len(steps) - cut])


def _is_device(event: Any) -> bool:
    return "CPU" not in str(event.device_type)


def _add(totals: dict[Any, float], key: str, value: float) -> None:
    totals[key] = totals.get(key, 0.0) + value


def _upwards(event: Any) -> Iterator[Any]:
    """The event and its callers, from the innermost."""
    while event is not None:
        yield event
        event = event.cpu_parent


class _Layers:
    """Which layer an event belongs to: the range around it, or around what it is the gradient of."""

    def __init__(self, events: Sequence[Any]) -> None:
        self._by_number: dict[int, str] = {}
        self._marked = any(event.name.startswith(LAYER) for event in events)
        if not self._marked:
            return
        for event in events:
            number = event.sequence_nr
            if number >= 0 and not event.name.startswith("autograd::"):
                layer = self._around(event)
                if layer is not None:
                    # The operator that makes the node is the last one to see its number.
                    self._by_number[number] = layer

    def of(self, event: Any) -> str | None:
        """Path of the layer; None where no layer is known, "" for what the network does itself."""
        if not self._marked:
            return None
        layer = self._around(event)
        if layer is not None:
            return layer
        for caller in _upwards(event):
            if caller.name.startswith("Optimizer."):
                return OPTIMISER
            if caller.name.startswith("autograd::") and caller.sequence_nr >= 0:
                return self._by_number.get(caller.sequence_nr, "")
        return ""

    def stack(self, event: Any, layer: str | None) -> str:
        """The event's callers from the outermost, below its part and layer."""
        callers = takewhile(lambda caller: not caller.name.startswith((STEP, LAYER)), _upwards(event))
        frames = [re.sub(r"[;\s]+", "_", caller.name) for caller in callers]
        place = [] if layer is None else list(dict.fromkeys((part_of(layer), layer or "(network)")))
        return ";".join([*place, *reversed(frames)])

    def _around(self, event: Any) -> str | None:
        names = (caller.name for caller in _upwards(event.cpu_parent))
        return next((name.removeprefix(LAYER) for name in names if name.startswith(LAYER)), None)
