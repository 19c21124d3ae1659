"""Three counts side by side: where they agree, what each left out, and an error where they differ."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from torch import nn

from flopbench.errors import FlopbenchError, in_one_line, out_of_memory
from flopbench.flops import operators
from flopbench.flops.closed_form import Cost, closed_form
from flopbench.flops.costs import fused_bytes
from flopbench.flops.dispatch import Observation, observe
from flopbench.flops.meta import initialised
from flopbench.flops.trace import count_forward
from flopbench.inputs import Inputs
from flopbench.loss import Loss
from flopbench.modes import Pass

TOLERANCE = 1e-3
"""Largest disagreement between two counts, relative to the network's MACs."""

FVCORE, FLOP_COUNTER, CLOSED_FORM = "fvcore", "FlopCounterMode", "closed form"


@dataclass(frozen=True)
class Counted:
    """One counter's result for one pass.

    Attributes:
        macs: multiply-accumulates.
        coverage: of fvcore and FlopCounterMode, the share of the operators met that have a rule; of the
            closed form, the share of FlopCounterMode's MACs that lie in layers with a form.
        uncounted: operator without a rule, or type of layer with products but no form, → how often it came.
    """

    macs: int
    coverage: float
    uncounted: dict[str, int]


@dataclass(frozen=True)
class Audit:
    """What three counters say of one network.

    Attributes:
        name: of the model.
        parameters: trainable, each once.
        frozen_parameters: the others.
        forward: counter → its count; a counter that failed is missing, and in the notes.
        backward: the same for the gradients alone, which fvcore does not count; empty without any.
        elementwise: elementwise and normalisation operations forward, in closed form where that is complete,
            else of the operators that ran.
        ran_elementwise: those of the operators that ran.
        bytes_read, bytes_written: forward, by the operators that ran, one by one.
        fused_bytes: forward, each layer one kernel: what must be moved at least.
        published: MACs of the same network as the paper defines it; None without a complete closed form.
        batch_size, dtype_bytes: what it was counted for.
        notes: what is doubtful: where counters disagree, and which of them could not count and why.
        observed: pass → every operator that ran.
    """

    name: str
    parameters: int
    frozen_parameters: int
    forward: dict[str, Counted]
    backward: dict[str, Counted]
    elementwise: int
    ran_elementwise: int
    bytes_read: int
    bytes_written: int
    fused_bytes: int
    published: int | None
    batch_size: int = 1
    dtype_bytes: int = 4
    notes: tuple[str, ...] = ()
    observed: dict[Pass, Observation] = field(default_factory=dict, repr=False, compare=False)

    @property
    def macs(self) -> int:
        """Forward MACs, of the operators that ran."""
        return self.forward[FLOP_COUNTER].macs

    @property
    def train_macs(self) -> int | None:
        """MACs of the forward and the backward pass, if there is one; the optimiser has no products."""
        return self.macs + self.backward[FLOP_COUNTER].macs if self.backward else None

    @property
    def paper_sum(self) -> int | None:
        """What the paper plots as FLOPs: MACs with kernels at full width, plus elementwise operations."""
        return None if self.published is None else self.published + self.elementwise

    @property
    def disagreement(self) -> float:
        """Largest relative difference of two counters, over both passes; incomplete ones left out."""
        return max(_spread(self.forward), _spread(self.backward))


def _spread(counts: Mapping[str, Counted]) -> float:
    macs = [count.macs for count in counts.values() if count.coverage == 1.0]
    return (max(macs) - min(macs)) / max(macs) if macs and max(macs) else 0.0


def audit(
    model: nn.Module,
    name: str,
    inputs: Inputs,
    *,
    dtype_bytes: int = 4,
    strict: bool = True,
    loss: Loss | None = None,
) -> Audit:
    """Count a network three ways, forward and backward, and compare.

    Args:
        model: best built on the meta device.
        name: what errors call it.
        inputs: what it is called with, on its device; everything is for the whole batch.
        dtype_bytes: bytes an element of floating point.
        strict: whether a doubt is an error, as it is for our own networks, or one of the notes.
        loss: what is differentiated; by default all outputs.

    Raises:
        FlopbenchError: strict, and a counter fails, or two counts of the same thing differ by more than
            0.1 % of the network's MACs; it names the layer, its operators and what each makes of it.
    """
    initialised(model, inputs)
    forward = observe(model, inputs, "forward", dtype_bytes)
    observed: dict[Pass, Observation] = {"forward": forward}
    counts: dict[Pass, dict[str, Counted]] = {"forward": {}, "backward": {}}
    notes: list[str] = []
    with _noting(notes, "backward pass not counted"):
        observed["backward"] = observe(model, inputs, "backward", dtype_bytes, loss)
    with _noting(notes, f"{FVCORE} left out"):
        traced = count_forward(model, inputs)
        counts["forward"][FVCORE] = Counted(traced.macs, traced.coverage, traced.uncounted)
        differing = _disagreement("forward", model, traced.by_module, inclusive(forward), FVCORE, forward)
        if differing and traced.uncounted:
            names = ", ".join(sorted(traced.uncounted))
            differing = [f"{FVCORE} left out of the comparison: it cannot count {names}"]
        notes += differing
    for pass_, observation in observed.items():
        counts[pass_][FLOP_COUNTER] = Counted(
            observation.macs, _operator_coverage(observation), observation.uncounted
        )
        with _noting(notes, f"{CLOSED_FORM} left out, {pass_}"):
            counted, by_path, seen = _by_closed_form(model, observation, pass_)
            counts[pass_][CLOSED_FORM] = counted
            notes += _disagreement(pass_, model, by_path, seen, CLOSED_FORM, observation)
    if strict and notes:
        raise FlopbenchError(f"counts of {name}: {notes[0]}")
    if not strict and "backward" in observed:
        # In our own networks, invariant heads leave half of the norm before them idle.
        notes += _doubts(model, observed["backward"])
    forms, unknown = closed_form(model, forward.shapes)
    ran = sum(call.elementwise or 0 for call in forward.calls)
    return Audit(
        name=name,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        frozen_parameters=sum(p.numel() for p in model.parameters() if not p.requires_grad),
        forward=counts["forward"],
        backward=counts["backward"],
        elementwise=ran if unknown else sum(cost.elementwise for cost in forms.values()),
        ran_elementwise=ran,
        bytes_read=sum(operand.size for call in forward.calls for operand in call.reads),
        bytes_written=sum(operand.size for call in forward.calls for operand in call.writes),
        fused_bytes=sum(fused_bytes(forward).values()),
        published=None if unknown else sum(cost.as_published for cost in forms.values()),
        batch_size=inputs.batch_size,
        dtype_bytes=dtype_bytes,
        notes=tuple(notes),
        observed=observed,
    )


def count_macs(model: nn.Module, inputs: Inputs, items: int | None = None) -> Counted:
    """Forward MACs of an item: of a call over the items that `inputs` hold, where it is not said how many.

    By fvcore, or by FlopCounterMode where that leaves out less or can alone.
    """
    initialised(model, inputs)
    counts = []
    with _noting([], ""):  # of a network that cannot be traced torch and fvcore raise all kinds
        traced = count_forward(model, inputs)
        counts.append(Counted(traced.macs, traced.coverage, traced.uncounted))
    if not counts or counts[0].uncounted:
        ran = observe(model, inputs)
        counts.append(Counted(ran.macs, _operator_coverage(ran), ran.uncounted))
    fullest = min(counts, key=lambda counted: sum(counted.uncounted.values()))
    return replace(fullest, macs=round(fullest.macs / (items or inputs.batch_size)))


@contextmanager
def _noting(notes: list[str], what: str) -> Iterator[None]:
    """Within it, an error is a note: what one counter cannot do costs no other's count."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if out_of_memory(error):
            raise
        notes.append(f"{what}: {in_one_line(error)}")


def _doubts(model: nn.Module, backward: Observation) -> list[str]:
    """What a count of gradients has to say of itself: which of them, and in which mode."""
    notes = []
    if backward.training:
        notes.append("gradients counted in training mode: in evaluation mode they reach fewer parameters")
    if backward.unreached:
        trainable = sum(parameter.requires_grad for parameter in model.parameters())
        notes.append(
            f"gradients do not reach {len(backward.unreached)} of {trainable} parameters, "
            f"the first {backward.unreached[0]}"
        )
    return notes


def _by_closed_form(
    model: nn.Module, observation: Observation, pass_: Pass
) -> tuple[Counted, dict[str, int], dict[str, int]]:
    """The third count; of path → MACs, its own and FlopCounterMode's of the same layers."""
    forms, unknown = closed_form(model, observation.shapes)
    expected = {path: _in_pass(model, path, cost, observation, pass_) for path, cost in forms.items()}
    ran = inclusive(observation)
    for path, macs in expected.items():
        if pass_ == "backward" and macs and not ran.get(path):
            # Its output was thrown away or detached.
            unknown.setdefault(f"{_type_name(model, path)} that no gradient reached", []).append(path)
    paths = {path for paths in unknown.values() for path in paths}
    by_path = _inclusive({path: macs for path, macs in expected.items() if path not in paths})
    seen = inclusive(observation, leaving_out=paths)
    products = {call.module for call in observation.calls if call.macs}
    # Of layers without gradients none has products, of others only those with some are worth a name.
    left_out = {
        kind: sum(path in products or path in expected for path in paths) for kind, paths in unknown.items()
    }
    if again := sum(call.again and call.macs > 0 for call in observation.calls):
        left_out["products computed again"] = again
    return (
        Counted(
            by_path[""],
            seen[""] / observation.macs if observation.macs else 1.0,
            {kind: count for kind, count in left_out.items() if count},
        ),
        by_path,
        seen,
    )


def _type_name(model: nn.Module, path: str) -> str:
    return type(dict(model.named_modules())[path]).__name__


def _in_pass(model: nn.Module, path: str, cost: Cost, observation: Observation, pass_: str) -> int:
    weights = model.get_submodule(path).parameters()
    return cost.macs(
        forward=pass_ == "forward",
        backward=pass_ == "backward",
        input_gradient=observation.shapes[path].input_needs_gradient,
        weight_gradient=any(weight.requires_grad for weight in weights),
    )


def _inclusive(own: Mapping[str, int]) -> dict[str, int]:
    """Path → the sum over the module and all beneath it that have a figure."""
    sums = {"": 0}
    for path, macs in own.items():
        for prefix in _prefixes(path):
            sums[prefix] = sums.get(prefix, 0) + macs
    return sums


def _prefixes(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return [".".join(parts[:length]) for length in range(len(parts) + 1)]


def inclusive(
    observation: Observation, leaving_out: set[str] | frozenset[str] = frozenset()
) -> dict[str, int]:
    """Path → MACs of the operators of the module and all beneath it, but for the own work of some modules.

    What a checkpoint computes again in the backward pass is left out, too.
    """
    own: dict[str, int] = {}
    for call in observation.calls:
        if call.macs and not call.again and call.module not in leaving_out:
            own[call.module] = own.get(call.module, 0) + call.macs
    return _inclusive(own)


def _operator_coverage(observation: Observation) -> float:
    unknown = sum(observation.uncounted.values())
    known = sum(
        1
        for call in observation.calls
        if call.macs or call.elementwise is not None or call.operator in operators.PRODUCTS
    )
    return known / (known + unknown) if known + unknown else 1.0


def _disagreement(
    pass_: Pass,
    model: nn.Module,
    other: Mapping[str, int],
    ran: Mapping[str, int],
    counter: str,
    observation: Observation,
) -> list[str]:
    """Where a counter and FlopCounterMode differ, if they do: at the deepest layer that shows it."""
    whole = max(other[""], ran[""])
    differing = [path for path, macs in other.items() if abs(macs - ran.get(path, 0)) > TOLERANCE * whole]
    if not differing:
        return []
    path = max(differing, key=lambda path: path.count(".") + bool(path))
    calls = [call for call in observation.calls if path in _prefixes(call.module)]
    names = sorted({call.operator for call in calls if call.macs}) or ["no product"]
    return [
        f"counters disagree in {path or 'the network'} ({_type_name(model, path)}, {', '.join(names)}), "
        f"{pass_}: {counter} has {other.get(path, 0):,} MACs, {FLOP_COUNTER} {ran.get(path, 0):,}"
    ]
