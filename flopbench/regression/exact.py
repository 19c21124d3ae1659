"""The exact tier: figures of a network that need no clock, no GPU and no statistics.

Parameters, MACs, operators and the bytes they write, graph breaks, invariance and the outputs
themselves. Each is the same whenever it is taken, so any change is the code's, and most regressions of
a network's speed show in one of them: a needless copy writes more bytes, an unfused attention calls
more operators, a lost `fullgraph` breaks the graph.
"""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from flopbench.cells import AXES, Attention, Cell, Positions
from flopbench.errors import FlopbenchError, NothingMeasuredError, in_one_line, out_of_memory
from flopbench.flops.audit import count_macs
from flopbench.frozen import Frozen
from flopbench.inputs import Inputs, are_fixed, inputs_for
from flopbench.loss import loss_of
from flopbench.models.catalog import parse_name
from flopbench.models.factory import num_parameters
from flopbench.models.tasks import TASKS, DecoderName, TaskName
from flopbench.regression.compare import exact_change, without_base
from flopbench.regression.decision import Change, Comparison, Outcome, missing
from flopbench.regression.footprint import Footprint, footprint
from flopbench.results import read_record, write_atomically
from flopbench.structures import tensors
from flopbench.suites import MinimumEffect, Profile
from flopbench.symmetries.actions import OF_KIND
from flopbench.testing.invariance import TOLERANCE, equivariance_errors, promised, random_images
from flopbench.timing.uncompiled import left_out
from flopbench.timing.workload import build_model, cell_inputs

BATCH_SIZE = 2
"""Images per pass; two, so that normalisation over a batch works and a constant network is found out."""
SAMPLED, MOST_SAMPLED = 8, 64
"""Values that are kept of each tensor of the output, and of all of them together."""
OUTPUT_TOLERANCE = 1e-3
"""Largest change of a value, relative to the output's deviation, that is rounding (on another CPU)."""


_AXES = ("num_classes", "task", "decoder", "width", "depth", "attention", "positions")
"""The axes on which exact figures depend, beside the image size, in the order of their ids."""


class ExactFigures(Frozen):
    """The exact figures of one model at one image size, or on inputs of its own.

    Attributes:
        model: its name.
        inputs: the name of what it is called with, None for images.
        image_size: height, width in pixels.
        num_classes: logits.
        task, decoder: what it gives, and how it comes to pixels.
        width, depth: channels and blocks; None as in the network of that name.
        attention: fused or not.
        positions: of a ViT's tokens.
        parameters: trainable ones.
        macs: of the forward pass for one image, or for a batch of one of its own inputs.
        uncounted: operators that were left out of them: operator → how often it came.
        forward: footprint of an inference, batch 2, fp32.
        train: footprint of a forward and backward pass, batch 2, fp32; None where it cannot be trained like
            this.
        untrained: why not.
        graph_breaks: how often `torch.compile` leaves the graph, 0 for a whole one.
        invariance_error: how far it is from the equivariance that its task asks for, of logits invariance:
            with perturbed weights, the largest over the generators of its symmetry; None for a network that
            promises none.
        generator: the name of the one with that error; None where there is none, or nobody noted it.
        outputs: the first values of each tensor of the output, with perturbed weights.
        output_deviation: standard deviation of all values.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    model: str
    inputs: str | None = None
    image_size: tuple[int, int]
    num_classes: int
    task: TaskName = "classification"
    decoder: DecoderName = "linear"
    width: int | None = None
    depth: int | None = None
    attention: Attention
    positions: Positions = "learnt"
    parameters: int
    macs: int
    uncounted: dict[str, int] = {}
    forward: Footprint
    train: Footprint | None
    untrained: str = ""
    graph_breaks: int
    invariance_error: float | None
    generator: str | None = None
    outputs: tuple[float, ...]
    output_deviation: float

    @property
    def subject(self) -> str:
        """`vit_s16.flop/224x224`; what is as usual is left out, as in a cell's id."""
        network = f"{self.model}+{self.inputs}" if self.inputs else self.model
        parts = [network, "x".join(map(str, self.image_size))]
        parts += [AXES[name].part(getattr(self, name)) for name in _AXES]
        return "/".join(filter(None, parts))


class ExactBaseline(Frozen):
    """`exact.json`. No date, no machine, and few enough digits: taken twice, it is the same file."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    suite: str
    torch: str
    models: tuple[ExactFigures, ...]

    def write(self, path: Path) -> None:
        """Write it to a file."""
        content = json.dumps(self.model_dump(mode="json", by_alias=True), indent=1)
        write_atomically(path, content + "\n")

    @classmethod
    def read(cls, path: Path) -> "ExactBaseline":
        """Read it from a file.

        Raises:
            FlopbenchError: it is no such file, or damaged.
        """
        return read_record(path, cls, "is no exact baseline of this version")


def measure_exact(
    suite: str, profile: Profile, on_model: Callable[[str], None] = lambda subject: None
) -> ExactBaseline:
    """The exact figures of every model of a profile, on the CPU.

    Args:
        suite: its name.
        profile: whose pairs, image sizes and kinds of attention are looked at.
        on_model: called with each model's name before its turn.

    Raises:
        NothingMeasuredError: a network fails, or its outputs are not finite.
    """
    models = []
    for cell, name in _distinct(profile.cells("cpu")):
        on_model(name)
        try:
            models.append(_figures(name, cell))
        except FlopbenchError:
            raise
        # Whatever somebody's network does, `sys.exit` included, is no regression.
        except (Exception, SystemExit) as error:
            said = (str(error).splitlines() or [""])[0]
            raise NothingMeasuredError(f"{name}: no exact figures: {type(error).__name__}: {said}") from error
    return ExactBaseline(suite=suite, torch=torch.__version__, models=tuple(models))


def compare_exact(base: ExactBaseline, new: ExactBaseline, effects: MinimumEffect) -> Comparison:
    """How the exact figures of the models that both have changed.

    Operators, bytes and graph breaks depend on the version of torch: between versions they are left out
    and the notes say so.

    Raises:
        FlopbenchError: no model in common.
    """
    before = {figures.subject: figures for figures in base.models}
    after = {figures.subject: figures for figures in new.models}
    common = [(before[subject], after[subject]) for subject in after if subject in before]
    if not common:
        raise FlopbenchError(
            f"nothing to compare, no model in common: {', '.join(before)[:200]} → {', '.join(after)[:200]}"
        )
    same_torch = _minor(base.torch) == _minor(new.torch)
    notes = []
    if not same_torch:
        notes.append(
            f"torch {base.torch} → {new.torch}: operators, bytes and graph breaks are not compared; "
            "renew the baseline with --write-baseline"
        )
    notes += without_base("models", before, after)
    notes += [note for figures in after.values() for note in _left_out(figures)]
    changes = [change for pair in common for change in _changes(*pair, effects, same_torch)]
    changes += [missing(subject) for subject in before if subject not in after]
    return Comparison(base="baseline", new="now", changes=tuple(changes), notes=tuple(notes))


def _distinct(cells: Iterable[Cell]) -> Iterable[tuple[Cell, str]]:
    seen = set()
    for cell in cells:
        for name in (cell.pair.baseline, cell.pair.candidate):
            key = (name, cell.pair.inputs, cell.image_size, *_of(cell).values())
            if key not in seen:
                seen.add(key)
                plain = {"batch_size": BATCH_SIZE, "pass_": "forward", "dtype": "fp32", "mode": "eager"}
                pair = cell.pair.model_copy(update={"baseline": name, "candidate": name})
                yield (
                    cell.model_copy(
                        update={**plain, "pair": pair, "memory_format": "contiguous", "impl": "auto"}
                    ),
                    name,
                )


def _of(cell: Cell) -> dict[str, Any]:
    """A cell's values of those axes."""
    return {name: getattr(cell, AXES[name].field) for name in _AXES}


def _figures(name: str, cell: Cell) -> ExactFigures:
    device = torch.device("cpu")
    model = build_model(name, cell, device).eval()
    inputs = cell_inputs(cell, device)
    with torch.no_grad():
        output = inputs.call(model)
        parts = _values(output)
        if not parts:
            raise NothingMeasuredError(f"{name}: its output holds no number")
        values = torch.cat(parts)
        if not values.isfinite().all():
            raise NothingMeasuredError(f"{name}: its outputs are not finite, so nothing can be compared")
        forward = footprint(lambda: inputs.call(model))
        error, generator = None, None
        if generators := promised(name):
            images, action = random_images(BATCH_SIZE, cell.image_size), OF_KIND[TASKS[cell.task].kind]
            errors = equivariance_errors(model, images, generators, action)
            generator, error = max(errors.items(), key=lambda item: item[1])
        breaks = _graph_breaks(model, inputs)
    counted = count_macs(
        model, inputs_for(model, cell.pair, 1, cell.image_size), None if are_fixed(cell.pair) else 1
    )
    train, untrained = _train_footprint(model, inputs, cell)
    each = max(1, min(SAMPLED, MOST_SAMPLED // len(parts)))
    sampled = torch.cat([part[:each] for part in parts])[:MOST_SAMPLED]
    return ExactFigures(
        model=name,
        inputs=cell.pair.inputs,
        image_size=cell.image_size,
        **_of(cell),
        parameters=num_parameters(model),
        macs=counted.macs,
        uncounted=counted.uncounted,
        forward=forward,
        train=train,
        untrained=untrained,
        graph_breaks=breaks,
        invariance_error=error and float(f"{error:.1g}"),
        generator=generator,
        outputs=tuple(float(f"{value:.5g}") for value in sampled.tolist()),
        output_deviation=float(f"{values.std(correction=min(1, len(values) - 1)).item():.5g}"),
    )


def _values(output: Any) -> list[Tensor]:
    """The numbers of each tensor of an output, one after the other; of those that have any."""
    parts = [torch.view_as_real(part) if part.is_complex() else part for part in tensors(output)]
    return [part.to_dense().float().flatten() for part in parts if part.numel()]


def _train_footprint(model: nn.Module, inputs: Inputs, cell: Cell) -> tuple[Footprint | None, str]:
    """The footprint of a forward and backward pass in training mode; or why there is none."""
    loss = loss_of(cell.pair)

    def gradients() -> None:
        output = inputs.call(model.train())
        parts = [part for part in tensors(loss(output, inputs) if loss else output) if part.requires_grad]
        if parts:
            torch.autograd.backward([(part.abs() if part.is_complex() else part).sum() for part in parts])

    # Gradients that are there would be added to.
    model.zero_grad(set_to_none=True)
    try:
        return footprint(gradients), ""
    except (Exception, SystemExit) as error:
        # A network of ours can be trained; others may ask for targets, or for a loss.
        if parse_name(cell.pair.candidate).spec is not None or out_of_memory(error):
            raise
        return None, in_one_line(error)


def _left_out(figures: ExactFigures) -> Iterable[str]:
    """What of a model is not held to its baseline."""
    if figures.uncounted:
        yield f"{figures.subject}: the MACs leave out {', '.join(figures.uncounted)}"
    if figures.train is None:
        yield f"{figures.subject}: no training step is compared, it fails: {figures.untrained}"


def _graph_breaks(model: nn.Module, inputs: Inputs) -> int:
    """How often `torch.compile` leaves the graph, or does not enter one."""
    torch.compiler.reset()
    with left_out() as found:
        inputs.call(torch.compile(model, backend="eager", dynamic=False))
    torch.compiler.reset()
    return found.total()


def _changes(
    base: ExactFigures, new: ExactFigures, effects: MinimumEffect, same_torch: bool
) -> Iterable[Change]:
    subject, label = new.subject, parse_name(new.model).label(new.width, new.depth)
    yield exact_change(subject, "parameters", label, base.parameters, new.parameters, 0.0)
    yield exact_change(subject, "macs", label, base.macs, new.macs, effects.of("macs", subject))
    if same_torch:
        for name, before, after in (("forward", base.forward, new.forward), ("train", base.train, new.train)):
            if before is None or after is None:
                if before is not None:
                    yield missing(subject, f"{name}_operators")
                continue
            where = f"{label} {name}"
            tolerance = effects.of("operators", subject)
            change = exact_change(subject, "operators", where, before.calls, after.calls, tolerance)
            yield change.model_copy(update={"note": before.difference(after)})
            tolerance = effects.of("bytes_written", subject)
            yield exact_change(
                subject, "bytes_written", where, before.bytes_written, after.bytes_written, tolerance
            )
        yield exact_change(subject, "graph_breaks", label, base.graph_breaks, new.graph_breaks, 0.0)
    if new.invariance_error is not None:
        what = f"the {TASKS[new.task].answer} before and after a {new.generator or 'move'} of the image"
        errors = base.invariance_error, new.invariance_error
        yield _bounded(subject, "invariance_error", label, *errors, TOLERANCE["fp32"], what)
    elif base.invariance_error is not None:
        yield missing(subject, "invariance_error")
    what = "the same weights and inputs give outputs that"
    yield _bounded(subject, "outputs", label, 0.0, _output_difference(base, new), OUTPUT_TOLERANCE, what)


def _bounded(
    subject: str, metric: str, label: str, base: float | None, new: float, allowed: float, what: str
) -> Change:
    change = Change(subject=subject, metric=metric, label=label, base=base, new=new, outcome=Outcome.PASS)
    # Written so that NaN fails.
    if new <= allowed:
        return change
    differ = f"differ by {new:.1e} of their deviation" if math.isfinite(new) else "cannot be compared"
    note = f"{what} {differ}, at most {allowed:.0e} is rounding"
    return change.model_copy(update={"outcome": Outcome.FAIL, "note": note})


def _output_difference(base: ExactFigures, new: ExactFigures) -> float:
    if len(base.outputs) != len(new.outputs):
        return float("inf")
    largest = max(abs(one - other) for one, other in zip(base.outputs, new.outputs, strict=True))
    # Values that are all alike have no deviation: their size stands in for it.
    return largest / (base.output_deviation or max(map(abs, base.outputs)) or 1.0)


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split("+")[0].split(".")[:2])
