"""From the profiler's events to seconds by group, operator and part of the network.

Only own time counts, so that the sums add up: on a CPU an operator's time less that of the operators it
calls, on CUDA the time of kernels and copies, each under the operator that launched it. A device's trace
also holds copies of the host's ranges (`record_function`, an optimiser's step), as long as all that
runs within them: these count for nothing. What no operator launched (a graph's kernels, ours) goes by its
own name. Ranges that hooks open (`flopbench.layer:PATH`) say which layer an event belongs to; in the
backward pass the number that links a gradient to the operator whose gradient it is.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from flopbench.profiling.classify import group_of, is_host_call
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
    busy: float | None = None
    """In which the device does something; None on a CPU."""
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
            `self_cpu_time_total` (µs), `device_type`, `sequence_nr`; on CUDA `id`, which a kernel has in
            common with the call that launched it, and `is_user_annotation`.
        cuda: take the time of kernels instead of that of the host.
        norms: paths of the layers that normalise.

    Returns:
        Means over the middle half of the calls by duration: a neighbour's burst stays out. Parts are
        empty where no layer was marked.
    """
    norms = frozenset(norms)
    ranges = (event.time_range for event in events if event.name == STEP and not _is_device(event))
    steps = sorted((range_.start, range_.end) for range_ in ranges)
    if not steps:
        return Summary()
    kept = _middle_half(steps)
    starts = [start for start, _ in steps]

    def step_of(event: Any) -> int | None:
        index = bisect_right(starts, event.time_range.start) - 1
        inside = index >= 0 and event.time_range.start < steps[index][1]
        return index if inside and index in kept else None

    layers = _Layers(events)
    launches = _launches(events) if cuda else {}
    times: dict[tuple[str, Group], list[float]] = {}
    spans: list[tuple[float, float]] = []
    summary = Summary(calls=len(steps))
    scale = 1e-6 / len(kept)
    for event in events:
        if step_of(event) is None or not _counts(event, cuda=cuda):
            continue
        span = event.time_range
        spans.append((span.start, span.end))
        seconds = (span.end - span.start if cuda else event.self_cpu_time_total) * scale
        source = launches.get(event.id) if cuda else event
        layer = layers.of(source)
        name, group = _named(event, source if cuda else None, within_norm=layer in norms)
        total = times.setdefault((_plain(name), group), [0.0, 0.0])
        total[0] += seconds
        total[1] += 1 / len(kept)
        if layer is not None:
            _add(summary.parts, part_of(layer), seconds)
        _add(summary.stacks, layers.stack(event, source, layer), seconds * 1e6)
    if cuda:
        summary.busy = covered(spans) * scale
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


def _counts(event: Any, *, cuda: bool) -> bool:
    """Whether an event is work: on CUDA what the device does, and not its copy of a range of the host's."""
    if cuda:
        return _is_device(event) and not event.is_user_annotation
    return not _is_device(event) and not event.name.startswith((STEP, LAYER))


def _launches(events: Sequence[Any]) -> dict[int, Any]:
    """The call of the runtime or the driver that launched each kernel, by the number that both have.

    Operators count their numbers on their own. A call within a call is of no interest.
    """
    calls: dict[int, Any] = {}
    for event in events:
        if not _is_device(event) and is_host_call(event.name):
            calls.setdefault(event.id, event)
    return calls


def _named(event: Any, call: Any, *, within_norm: bool) -> tuple[str, Group]:
    """What an event counts as: a kernel as the operator around the `call` that launched it, if one is."""
    operator = next((caller for caller in _callers(call) if not is_host_call(caller.name)), None)
    if operator is not None:
        group = group_of(operator.name, within_norm=within_norm)
        if group != "other":
            return operator.name, group
    return event.name, group_of(event.name, within_norm=within_norm, kernel=_is_device(event))


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of some intervals: kernels on several streams may overlap."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def _add(totals: dict[Any, float], key: str, value: float) -> None:
    totals[key] = totals.get(key, 0.0) + value


def _upwards(event: Any) -> Iterator[Any]:
    """The event and its callers, from the innermost; nothing of None."""
    while event is not None:
        yield event
        event = event.cpu_parent


def _callers(event: Any) -> Iterator[Any]:
    return _upwards(event.cpu_parent) if event is not None else iter(())


class _Layers:
    """Which layer an event belongs to: the range around it, or around what it is the gradient of."""

    def __init__(self, events: Sequence[Any]) -> None:
        self._by_number: dict[int, str] = {}
        marks = [event for event in events if event.name.startswith(LAYER) and not _is_device(event)]
        self._marks = sorted(marks, key=_start)
        if not self._marks:
            return
        for event in events:
            number = event.sequence_nr
            if number >= 0 and not event.name.startswith("autograd::"):
                layer = self._around(event)
                if layer is not None:
                    # The operator that makes the node is the last one to see its number.
                    self._by_number[number] = layer

    def of(self, event: Any) -> str | None:
        """Path of the layer; None where no layer is known, "" for what the network does itself.

        Of a kernel, `event` is the call that launched it, None if it is not in the trace.
        """
        if not self._marks:
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

    def stack(self, event: Any, source: Any, layer: str | None) -> str:
        """The event's callers from the outermost, below its part and layer; a kernel's are its launch's."""
        callers = _upwards(event) if source is event else (event, *_callers(source))
        own = takewhile(lambda caller: not caller.name.startswith((STEP, LAYER)), callers)
        frames = [re.sub(r"[;\s]+", "_", caller.name) for caller in own]
        place = [] if layer is None else list(dict.fromkeys((part_of(layer), layer or "(network)")))
        return ";".join([*place, *reversed(frames)])

    def _around(self, event: Any) -> str | None:
        around = _callers(event)
        if event is not None and event.cpu_parent is None and is_host_call(event.name):
            # Kernels launched without an operator: the profiler knows the time of the call, not its thread.
            around = self._open_at(event.time_range.start)
        names = (caller.name for caller in around)
        return next((name.removeprefix(LAYER) for name in names if name.startswith(LAYER)), None)

    def _open_at(self, time: float) -> Iterator[Any]:
        """The ranges of layers that are open at a time, from the innermost: they are nested."""
        index = bisect_right(self._marks, time, key=_start) - 1
        started = _upwards(self._marks[index]) if index >= 0 else iter(())
        return (event for event in started if event.time_range.end > time)


def _start(event: Any) -> float:
    return event.time_range.start
