"""What `flopbench flops` does: names in, counted networks and their tables out."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from flopbench.cells import Pair, Pass
from flopbench.errors import FlopbenchError, in_one_line
from flopbench.flops import present
from flopbench.flops.audit import Audit, audit
from flopbench.flops.costs import costs_of_layers, costs_of_operators, optimiser_cost
from flopbench.flops.dispatch import observe
from flopbench.flops.tree import Row, layer_rows, operator_rows
from flopbench.inputs import inputs_for
from flopbench.models import create_model
from flopbench.models.catalog import label_of, parse_name
from flopbench.report.table import Table


@dataclass(frozen=True)
class Counts:
    """One network, or a baseline and a candidate, counted."""

    labels: tuple[str, ...]
    audits: tuple[Audit, ...]
    rows: list[Row]
    caption: str
    paper: bool

    def notes(self) -> list[str]:
        """What is doubtful in the counts, by network."""
        return [
            f"{label}: {note}"
            for label, audit in zip(self.labels, self.audits, strict=True)
            for note in audit.notes
        ]

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
            return tree.json(labels=self.labels, caption=self.caption, networks=networks)
        parts = [part for table in (counters, tree) for part in (table.title, table.markdown())]
        notes = "\n".join(f"- {note}" for note in self.notes())
        return "\n\n".join(filter(None, [*parts, notes])) + "\n"


def read_input(text: str) -> tuple[int, tuple[int, int]]:
    """`3x224x224` or `3×224×224` as channels and (height, width).

    Raises:
        FlopbenchError: it is not of that form.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})[x×]([1-9][0-9]{0,5})[x×]([1-9][0-9]{0,5})", text)
    if match is None:
        raise FlopbenchError(f"--input {text!r} is not CHANNELSxHEIGHTxWIDTH, e.g. 3x224x224")
    channels, height, width = map(int, match.groups())
    return channels, (height, width)


def names_of(name: str) -> tuple[str, ...]:
    """A pair's baseline and candidate, or the one model that a name stands for.

    `vit_b16.flop` is the pair with `vit_b16`; `CANDIDATE@BASELINE` states the baseline; anything else is
    one model.
    """
    candidate, at, baseline = name.partition("@")
    if at:
        pair = Pair.of(candidate, baseline)
        return pair.baseline, pair.candidate
    if parse_name(name).symmetry in (None, "plain"):
        return (name,)
    pair = Pair.of(name)
    return pair.baseline, pair.candidate


def count(
    name: str,
    images: str,
    by: str,
    depth: int,
    pass_: Pass,
    batch_size: int,
    dtype_bytes: int,
    paper: bool = False,
) -> Counts:
    """Count a model or a pair.

    Raises:
        FlopbenchError: an unknown name, an input that does not suit, a pass that cannot be counted, or
            counters that disagree about a network of ours.
    """
    channels, image_size = read_input(images)
    names = names_of(name)
    models, audits, costs = [], [], []
    for each in names:
        model, audited = _audit(each, images, batch_size, dtype_bytes)
        models.append(model)
        # What ran, operator by operator, is for the rows alone.
        audits.append(replace(audited, observed={}))
        observation = audited.observed.get(pass_)
        if observation is None:
            try:
                inputs = inputs_for(model, None, batch_size, image_size, channels=channels)
                observation = observe(model, inputs, pass_, dtype_bytes)
            except _FOREIGN_ERRORS as error:
                raise FlopbenchError(
                    f"cannot count the {pass_} pass of {each}: {in_one_line(error)}"
                ) from error
        step = [optimiser_cost(model, dtype_bytes)] if pass_ == "train" else []
        own = costs_of_layers(model, observation) if by == "layer" else costs_of_operators(observation)
        costs.append([*own, *step])
    rows = layer_rows(list(zip(models, costs, strict=True)), depth) if by == "layer" else operator_rows(costs)
    plural = "images" if batch_size > 1 else "image"
    caption = f"{pass_} pass, {batch_size} {plural} of {images}, {dtype_bytes} bytes an element"
    return Counts(tuple(map(label_of, names)), tuple(audits), rows, caption, paper)


def count_in_worker(report: Callable[[str, Any], None], *request: Any) -> Counts:
    """`count(*request)` as a job of `runner.process.run_job`."""
    return count(*request)


# Whatever somebody else's code may raise, but for the user's Ctrl-C.
_FOREIGN_ERRORS = (Exception, SystemExit)


def _audit(name: str, images: str, batch_size: int, dtype_bytes: int) -> tuple[nn.Module, Audit]:
    """A network and its counts: on the meta device, or else where its path may depend on values.

    Raises:
        FlopbenchError: it cannot be built or run; or it is ours, and its counters disagree.
    """
    channels, image_size = read_input(images)
    ours = parse_name(name).spec is not None
    if ours and channels != 3:
        raise FlopbenchError(f"{name} takes images of 3 channels, got {channels} in --input")

    def counted(device: str) -> tuple[nn.Module, Audit]:
        with torch.device(device):
            model = create_model(name, image_size=image_size).eval()
            return model, audit(
                model,
                name,
                inputs_for(model, None, batch_size, image_size, channels=channels),
                dtype_bytes=dtype_bytes,
                strict=ours,
            )

    try:
        return counted("meta")
    except FlopbenchError as error:
        if ours:
            raise
        why = str(error)
    except _FOREIGN_ERRORS as error:
        if ours:
            raise FlopbenchError(f"cannot run {name} on images {images}: {in_one_line(error)}") from error
        why = in_one_line(error)
    try:
        model, audited = counted("cpu")
    except FlopbenchError:
        raise
    except _FOREIGN_ERRORS as error:
        raise FlopbenchError(f"cannot run {name} on images {images}: {in_one_line(error)}") from error
    note = f"counted on the CPU with noise for images: on the meta device, without values, {why}"
    return model, replace(audited, notes=(note, *audited.notes))
