"""What `flopbench flops` does: names in, counted networks and their tables out."""

import re
from dataclasses import dataclass

from torch import nn

from flopbench.cells import Pair, Pass
from flopbench.errors import FlopbenchError
from flopbench.flops import present
from flopbench.flops.audit import Audit, audit
from flopbench.flops.costs import costs_of_layers, costs_of_operators, optimiser_cost
from flopbench.flops.dispatch import observe
from flopbench.flops.meta import build_on_meta, images_for
from flopbench.flops.tree import Row, layer_rows, operator_rows
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
        return (
            "".join(f"{table.title}\n\n{table.markdown()}\n\n" for table in (counters, tree)).rstrip() + "\n"
        )


def read_input(text: str) -> tuple[int, tuple[int, int]]:
    """`3x224x224` or `3×224×224` as channels and (height, width).

    Raises:
        FlopbenchError: it is not of that form.
    """
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)[x×]([1-9]\d*)", text)
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
    *,
    paper: bool = False,
) -> Counts:
    """Count a model or a pair.

    Raises:
        FlopbenchError: an unknown name, an input that does not suit, or counters that disagree.
    """
    channels, image_size = read_input(images)
    names = names_of(name)
    models = [_build(each, image_size, channels) for each in names]
    audits, costs = [], []
    for model, each in zip(models, names, strict=True):
        try:
            audits.append(
                audit(
                    model,
                    each,
                    image_size=image_size,
                    channels=channels,
                    batch_size=batch_size,
                    dtype_bytes=dtype_bytes,
                )
            )
        except FlopbenchError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise FlopbenchError(f"cannot run {each} on images {images}: {reason}") from error
        observation = audits[-1].observed.get(pass_)
        if observation is None:
            inputs = images_for(model, image_size, batch_size, channels)
            observation = observe(model, inputs, pass_, dtype_bytes)
        step = [optimiser_cost(model, dtype_bytes)] if pass_ == "train" else []
        own = costs_of_layers(model, observation) if by == "layer" else costs_of_operators(observation)
        costs.append([*own, *step])
    rows = layer_rows(list(zip(models, costs, strict=True)), depth) if by == "layer" else operator_rows(costs)
    plural = "images" if batch_size > 1 else "image"
    caption = f"{pass_} pass, {batch_size} {plural} of {images}, {dtype_bytes} bytes an element"
    return Counts(tuple(map(label_of, names)), tuple(audits), rows, caption, paper)


def _build(name: str, image_size: tuple[int, int], channels: int) -> nn.Module:
    if parse_name(name).spec is not None and channels != 3:
        raise FlopbenchError(f"{name} takes images of 3 channels, got {channels} in --input")
    try:
        return build_on_meta(name, image_size=image_size)
    except (NotImplementedError, FlopbenchError) as error:
        if not isinstance(error, NotImplementedError) and not isinstance(error.__cause__, RuntimeError):
            raise
        # Some foreign networks read values while they are built, which the meta device has not.
        from flopbench.models import create_model

        return create_model(name, image_size=image_size).eval().to("meta")
