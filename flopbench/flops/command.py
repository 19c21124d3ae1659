"""Counting networks by their names, and showing what was counted."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError, in_one_line, own_lines
from flopbench.flops import present
from flopbench.flops.audit import FLOP_COUNTER, Audit, audit
from flopbench.flops.costs import costs_of_layers, costs_of_operators, optimiser_cost
from flopbench.flops.dispatch import observe, unchanged
from flopbench.flops.meta import materialised, on_meta
from flopbench.flops.tree import Row, layer_rows, operator_rows
from flopbench.inputs import Inputs, inputs_for
from flopbench.loss import Loss, loss_of
from flopbench.models import create_model
from flopbench.models.catalog import parse_name
from flopbench.models.factory import Called
from flopbench.models.tasks import CLASSIFICATION
from flopbench.pairs import Pair
from flopbench.report import text
from flopbench.report.shown import Shown
from flopbench.report.table import Table

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Counts(Shown):
    """One network, or a baseline and a candidate, counted.

    Attributes:
        labels: what they are called.
        audits: what each counter says of them.
        rows: of the tree or the operators, the last is the total.
        caption: what was counted.
        paper: whether the paper's sum is shown.
    """

    labels: tuple[str, ...]
    audits: tuple[Audit, ...]
    rows: list[Row]
    caption: str
    paper: bool

    @property
    def macs(self) -> int:
        """Of the pass that the rows are of: the network's, of a pair the candidate's."""
        cost = self.rows[-1].costs[-1]
        return cost.macs if cost else 0

    @property
    def ratio(self) -> float | None:
        """Of a pair, the baseline's MACs over the candidate's."""
        return self.rows[-1].ratio()

    def frame(self) -> "pandas.DataFrame":
        """The rows: a layer or an operator each, the last one is the total; figures are raw."""
        import pandas

        return pandas.DataFrame(self.tables()[1].records()).dropna(axis="columns", how="all")

    def notes(self) -> list[str]:
        """What is doubtful in the counts and what they leave out, by network."""
        return [
            f"{label}: {note}"
            for label, audit in zip(self.labels, self.audits, strict=True)
            for note in (*audit.notes, *_left_out(audit))
        ]

    def shown(self) -> list[Table | str]:
        """Both tables, then the notes."""
        return [*self.tables(), *(f"note: {note}" for note in self.notes())]

    def tables(self) -> tuple[Table, Table]:
        """The counters side by side, then the tree."""
        return (
            present.audit_table(self.audits, self.labels, paper=self.paper),
            present.row_table(self.rows, self.labels, self.caption),
        )

    def text(self, form: str) -> str:
        """As `markdown`, `csv` (the tree alone) or `json`."""
        counters, tree = self.tables()
        if form == "csv":
            return tree.csv()
        if form == "json":
            networks = present.networks(self.audits)
            return tree.json(labels=self.labels, caption=self.caption, networks=networks, notes=self.notes())
        parts = [part for table in (counters, tree) for part in (table.title, table.markdown())]
        notes = "\n".join(f"- {note}" for note in self.notes())
        return "\n\n".join(filter(None, [*parts, notes])) + "\n"


def _left_out(audit: Audit) -> list[str]:
    """What no count of a network holds, and which of its parameters are frozen."""
    notes = []
    for pass_, counts in (("forward", audit.forward), ("backward", audit.backward)):
        if unknown := counts[FLOP_COUNTER].uncounted if counts else {}:
            names = ", ".join(f"{name} ×{times}" for name, times in unknown.items())
            notes.append(
                f"no count holds these operators of the {pass_} pass: {names}; give one its FLOPs with "
                "torch.utils.flop_counter.register_flop_formula"
            )
    if audit.frozen_parameters:
        whole = audit.parameters + audit.frozen_parameters
        notes.append(
            f"{text.exact(audit.parameters)} of {text.exact(whole)} parameters are trainable, the rest frozen"
        )
    return notes


def names_of(name: str) -> tuple[str, ...]:
    """A pair's baseline and candidate, or the one model that a name stands for.

    `vit_b16.flop` is the pair with `vit_b16`; `CANDIDATE@BASELINE` states the baseline; anything else is
    one model.
    """
    candidate, at, baseline = name.partition("@")
    if at:
        pair = Pair.of(candidate, baseline)
        return pair.baseline, pair.candidate
    if not parse_name(name).has_symmetry:
        return (name,)
    pair = Pair.of(name)
    return pair.baseline, pair.candidate


NEVER_RUN: dict[str, Any] = {"device": "cpu", "batch_size": 1, "dtype": "fp32", "mode": "eager"}
"""What makes a cell whole, and is nothing to who counts it."""


@dataclass(frozen=True)
class Request:
    """What is to be counted, and how it is shown.

    Attributes:
        cell: the networks, what they are built with, and the pass that the rows are of; the counters tell of
            both. Baseline and candidate are the same where there is but one.
        by: "layer" or "operator", what a row is.
        depth: levels of layers.
        batch_size: of images, or of what the pair's inputs make; None for one, or as many as there are.
        channels: of images.
        dtype_bytes: bytes per element of floating point; None for that of the first network's weights.
        paper: whether the paper's sum of MACs and elementwise operations is told, too.
    """

    cell: Cell
    by: Literal["layer", "operator"] = "layer"
    depth: int = 2
    batch_size: int | None = None
    channels: int = 3
    dtype_bytes: int | None = None
    paper: bool = False

    @property
    def pair(self) -> Pair:
        """The networks, and what they are called with."""
        return self.cell.pair

    @property
    def labels(self) -> dict[str, str]:
        """Of the baseline and the candidate, or of the one network, by name."""
        return dict(zip((self.pair.baseline, self.pair.candidate), self.cell.labels, strict=True))

    def build(self, name: str, device: str) -> nn.Module:
        """A network on a device, in evaluation mode.

        Raises:
            FlopbenchError: it cannot be built, or not with what the cell says.
        """
        cell = self.cell
        with torch.device(device):
            return create_model(name, cell.image_size, cell.num_classes, **cell.options(name)).eval()

    def inputs(self, model: nn.Module) -> Inputs:
        """What a network is called with, on its device.

        Raises:
            FlopbenchError: they cannot be made, or not as many as asked for.
        """
        size = self.batch_size or 1
        inputs = inputs_for(model, self.pair, size, self.cell.image_size, channels=self.channels)
        if self.pair.inputs is not None and self.batch_size not in (None, inputs.batch_size):
            raise FlopbenchError(
                f"inputs are {inputs.batch_size} at once, not {self.batch_size}: leave the batch size out, "
                "or give a function of it"
            )
        return inputs

    def describe(self, inputs: Inputs) -> str:
        """What the networks are called with, in a few words."""
        if self.pair.inputs is None:
            count = self.batch_size or 1
            sides = "x".join(map(str, (self.channels, *self.cell.image_size)))
            return f"{count} image{'s' * (count > 1)} of {sides}"
        shown = [f"{list(x.shape)}" for x in inputs.tensors]
        return f"inputs {', '.join(shown[:_SHAPES])}{', …' * (len(shown) > _SHAPES)}"


# So many stand in a caption.
_SHAPES = 4


def count(request: Request) -> Counts:
    """Count a model or a pair.

    Raises:
        FlopbenchError: an unknown name, an input that does not suit, a pass that cannot be counted, or
            counters that disagree about a network of ours.
    """
    models, audits, costs, said = [], [], [], ""
    pass_, loss = request.cell.pass_, loss_of(request.pair)
    for name, label in request.labels.items():
        model, inputs, audited = _audit(name, request, loss)
        models.append(model)
        # What ran, operator by operator, is for the rows alone.
        audits.append(replace(audited, observed={}))
        size, said = audited.dtype_bytes, said or request.describe(inputs)
        observation = audited.observed.get(pass_)
        if observation is None:
            try:
                with torch.random.fork_rng(devices=[]), unchanged(list(model.buffers())):
                    observation = observe(model, inputs, pass_, size, loss)
            except _FOREIGN_ERRORS as error:
                raise FlopbenchError(
                    f"cannot count the {pass_} pass of {label}: {in_one_line(error)}"
                ) from error
        step = [optimiser_cost(model, size)] if pass_ == "train" else []
        layers = request.by == "layer"
        costs.append(
            [*(costs_of_layers(model, observation) if layers else costs_of_operators(observation)), *step]
        )
    networks = list(zip(models, costs, strict=True))
    rows = layer_rows(networks, request.depth) if request.by == "layer" else operator_rows(costs)
    task = [] if request.cell.task == CLASSIFICATION.name else [request.cell.task]
    caption = ", ".join([f"{pass_} pass", *task, said, f"{audits[0].dtype_bytes} bytes an element"])
    return Counts(tuple(request.labels.values()), tuple(audits), rows, caption, request.paper)


def count_in_worker(report: Callable[[str, Any], None], request: Request) -> Counts:
    """`count(request)` as a job of `runner.process.run_job`."""
    return count(request)


# Whatever somebody else's code may raise, but for the user's Ctrl-C.
_FOREIGN_ERRORS = (Exception, SystemExit)


def _audit(name: str, request: Request, loss: Loss | None) -> tuple[nn.Module, Inputs, Audit]:
    """A network, what it was called with, and its counts: on the meta device, or else where there are values.

    That is the CPU or, of what was given, wherever it is.

    Raises:
        FlopbenchError: it cannot be built or run; or it is ours, and its counters disagree.
    """
    parsed, label = parse_name(name), request.labels[name]
    ours = parsed.spec is not None
    if ours and request.pair.inputs is None and request.channels != 3:
        raise FlopbenchError(f"{name} takes images of 3 channels, got {request.channels}")

    def counted(model: nn.Module, device: torch.device | str) -> tuple[nn.Module, Inputs, Audit]:
        inputs = request.inputs(model)
        size = request.dtype_bytes or _element_size(model)
        elsewhere = nullcontext() if parsed.given and device != "meta" else torch.device(device)
        try:
            with elsewhere, torch.random.fork_rng(devices=[]), unchanged(list(model.buffers())):
                audited = audit(model, label, inputs, dtype_bytes=size, strict=ours, loss=loss)
        except FlopbenchError:
            raise
        except _FOREIGN_ERRORS as error:
            raise FlopbenchError(
                f"cannot run {label} on {request.describe(inputs)}: {_with_line(error, model)}"
            ) from error
        return model, inputs, audited

    if ours:
        return counted(request.build(name, "meta"), "meta")
    given = create_model(name) if parsed.given else None
    try:
        found = counted(on_meta(given) if given is not None else request.build(name, "meta"), "meta")
        failed = [note for note in found[2].notes if note.startswith("backward pass not counted")]
        if loss is None or not failed:
            return found
        why = failed[0]
    except _FOREIGN_ERRORS as error:
        why = in_one_line(error.__cause__ or error)
    whole = request.build(name, "cpu") if given is None else materialised(given)
    model, inputs, audited = counted(whole, "cpu")
    device = inputs.tensors[0].device
    where = "CPU" if device.type == "cpu" else str(device)
    note = f"counted on the {where} with values: on the meta device, without any, {why}"
    return model, inputs, replace(audited, notes=(note, *audited.notes))


def _element_size(model: nn.Module) -> int:
    return next((w.dtype.itemsize for w in model.parameters() if w.is_floating_point()), 4)


def _with_line(error: BaseException, model: nn.Module) -> str:
    """An error in one line; where no line of the user's is to blame, as for a missing argument, with what the
    network takes.
    """
    forward = model.function if isinstance(model, Called) else model.forward
    code = getattr(inspect.unwrap(forward), "__code__", None)
    if own_lines(error) or code is None:
        return in_one_line(error)
    where = f"{PurePath(code.co_filename).name}:{code.co_firstlineno}"
    return f"{in_one_line(error)} (it takes {inspect.signature(forward)}, {where})"
