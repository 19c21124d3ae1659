"""The audit of the whole catalogue as Markdown: every count, every difference, and why."""

import csv
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path

from flopbench.errors import FlopbenchError
from flopbench.flops.audit import CLOSED_FORM, FLOP_COUNTER, FVCORE, TOLERANCE, Audit, audit
from flopbench.flops.meta import build_on_meta
from flopbench.flops.present import four_digits
from flopbench.flops.stock import stock_counts
from flopbench.inputs import inputs_for
from flopbench.models import list_models
from flopbench.models.catalog import Spec, label_of, parse_name
from flopbench.report import text
from flopbench.report.published import published, sources
from flopbench.report.table import Column, Table, words

DATA = Path(__file__).parent.parent / "data"
COMMAND = "flopbench flops audit --out reports/flops-audit.md"
PAPER_TOLERANCE = 0.015
"""How near the paper's figures the paper's convention must come."""

STOCK_EXAMPLES = ("vit_b16", "vit_b16.flop", "resmlp_b24", "convnext_b", "convnext_b.flop")
_FAMILIES = {"vit": "ViT", "resmlp": "ResMLP"}


def audit_catalogue(each: Callable[[list[str]], Iterable[str]] = iter) -> str:
    """Audit every model of the catalogue in every version and write it up.

    Args:
        each: given the names, yields them one after another; a place for a progress bar.

    Raises:
        FlopbenchError: two counters disagree, an operator or layer is left uncounted, or a figure of the
            paper is missed for no stated reason.
    """
    # What is averaged over a group is the plain network, as often as the group has elements.
    names = [name for name in list_models() if not parse_name(name).version.averaged]
    models = ((name, build_on_meta(name)) for name in each(names))
    audits = [audit(model, name, inputs_for(model)) for name, model in models]
    for result in audits:
        _complete(result)
    paper, authors, octic = _paper_table(audits), _authors_table(audits), _octic_table(audits)
    return "\n".join(
        [
            "# Audit of the FLOP counts",
            "",
            _INTRODUCTION.strip(),
            "",
            *_section("Forward", _NOTE_FORWARD, _forward_table(audits)),
            *_section("Backward and train", _NOTE_BACKWARD, _backward_table(audits)),
            *_section("What is kept apart from the MACs", _NOTE_APART, Table("", _APART, audits)),
            *_section("The authors' networks", _NOTE_AUTHORS, authors),
            *_section("The authors' octic networks", _NOTE_OCTIC, octic),
            *_section("The paper's figures", _NOTE_PAPER, paper),
            *_section("What the counters say as they come", _NOTE_STOCK, _stock_table()),
        ]
    )


_INTRODUCTION = f"""
Written by `{COMMAND}`. One image of 224 × 224, fp32. 1 multiply-accumulate = 1 MAC =
2 FLOPs; MACs are those of matrix products and convolutions. fvcore counts the traced graph (with the rules
of `flopbench.flops.operators`), FlopCounterMode the operators that run, and the closed form each layer from
its mathematics. More than {text.percent(TOLERANCE, 1)} between two of them, or anything left uncounted, is
an error, and this file is not written.
"""


_NETWORK = words("network")
_COUNTERS = (FLOP_COUNTER, CLOSED_FORM)
_AUDITED = words("network", lambda audit: label_of(audit.name))
_CHANGE = partial(text.change, decimals=2)
_TIMES = partial(text.times, decimals=3)


def _complete(result: Audit) -> None:
    for counts in (result.forward, result.backward):
        for counter, counted in counts.items():
            if counted.coverage < 1:
                names = ", ".join(counted.uncounted)
                raise FlopbenchError(f"{counter} leaves out part of {result.name}: {names}; give it a rule")


def _section(title: str, note: str, table: Table) -> list[str]:
    return [f"## {title}", "", note.strip(), "", table.markdown(), ""]


_NOTE_FORWARD = """
Coverage is, of fvcore and FlopCounterMode, the share of the operators met that have a rule, and of the
closed form the share of the MACs that lie in layers with a form. The ratio is the plain network's MACs over
this one's.
"""


def _macs(pass_: str, counter: str, audit: Audit) -> int:
    return getattr(audit, pass_)[counter].macs


def _forward_table(audits: list[Audit]) -> Table:
    plain = {result.name: result.macs for result in audits}
    columns = (
        _AUDITED,
        *(Column(name, partial(_macs, "forward", name), text.exact) for name in (FVCORE, *_COUNTERS)),
        Column("disagreement", write=partial(text.percent, decimals=4)),
        Column("coverage", lambda row: min(c.coverage for c in row.forward.values()), text.coverage),
        Column("ratio", lambda row: plain[parse_name(row.name).base] / row.macs, _TIMES),
    )
    return Table("", columns, audits)


_NOTE_BACKWARD = """
fvcore counts no gradients. The gradient of a product with weights is two products of its size, one for the
input and one for the weights; only the patch embedding has no gradient of its input, so the ratio stays
below 2. Where a fused attention computes its scores once more, 5 products stand against the forward pass's
2, which lifts ViTs above 2. A step of the optimiser multiplies no matrices: train is forward and backward.
"""


def _backward_table(audits: list[Audit]) -> Table:
    columns = (
        _AUDITED,
        *(Column(f"backward, {name}", partial(_macs, "backward", name), text.exact) for name in _COUNTERS),
        Column("of forward", lambda row: row.backward[FLOP_COUNTER].macs / row.macs, _TIMES),
        Column("train", "train_macs", text.exact),
    )
    return Table("", columns, audits)


_NOTE_APART = """
Elementwise and normalisation operations of the forward pass, in closed form and of the operators that ran
(these add a bias apart where it does not fit the product, fold weights, and take the mean's share); the
convention is one operation an element, 4 for a division, root or exponential, 5 for layer norm and softmax,
8 for GELU. Bytes are those that the operators read and write running one by one, and those that remain if
each layer were one kernel.
"""


_APART = (
    _AUDITED,
    Column("parameters", "parameters", text.exact),
    Column("elementwise", "elementwise", four_digits),
    Column("as run", "ran_elementwise", four_digits),
    Column("bytes read", "bytes_read", four_digits),
    Column("bytes written", "bytes_written", four_digits),
    Column("bytes, fused", "fused_bytes", four_digits),
)


_NOTE_AUTHORS = """
What fvcore makes of the authors' released definitions (`flopbench/data/models.csv`) against the closed form
in the paper's convention: kernels that mirror themselves count at their full width, for the authors do not
fold the image (ours: the MACs that are really computed); to the MACs come the elementwise operations. MACs
must agree to the last one. Of the elementwise operations, those of ResMLP-X are exact but for the norm that
we take after the mean, those of ViT-X but for the norm that we take of the class token alone; ConvNeXt
writes its layer norm out, at 11 operations an element instead of 5; the equivariant layers' differ by how
they are written.
"""


def _authors_table(audits: list[Audit]) -> Table:
    rows = []
    for result in audits:
        authors = _authors(result.name)
        if authors is None or result.published is None or result.paper_sum is None:
            continue
        macs, both = authors
        if result.published != macs:
            raise FlopbenchError(
                f"{result.name} has {result.published:,} MACs unfolded, the authors' definition {macs:,}"
            )
        deviation = result.paper_sum / both - 1
        if abs(deviation) > PAPER_TOLERANCE:
            raise FlopbenchError(
                f"{result.name} is {deviation:+.2%} off the authors' sum {both:,}: {result.paper_sum:,}"
            )
        sums = (result.macs, result.published, macs, result.paper_sum, both)
        rows.append((label_of(result.name), *sums, deviation))
    headers = ("MACs", "unfolded", "authors' MACs", "with elementwise", "authors' sum")
    columns = (Column(header, write=text.exact) for header in headers)
    return Table.of("", (_NETWORK, *columns, Column("difference", write=_CHANGE)), rows)


_NOTE_OCTIC = """
The same of the networks of *Octic Vision Transformers* (`flopbench/data/octic-models.csv`), with the power
spectrum as invariants. Parameters and MACs must agree to the last one, with the patch embedding as the
convolution that it is there; folded, it takes 3/16 of these. D8 makes the class token alone invariant, where
theirs has that map on every token.
"""


def _octic_table(audits: list[Audit]) -> Table:
    known = {(row["family"], row["size"], row["version"]): row for row in _read("octic-models.csv")}
    rows = []
    for result in audits:
        row = known.get(_key(result.name))
        if row is None:
            continue
        parameters, macs, folded = (
            int(row[name]) for name in ("trainable_parameters", "macs", "macs_folded")
        )
        if (result.parameters, result.published) != (parameters, macs) or result.macs > folded:
            raise FlopbenchError(
                f"{result.name} has {result.parameters:,} parameters and {result.published:,} MACs unfolded, "
                f"{result.macs:,} folded; the authors' definition {parameters:,}, {macs:,} and {folded:,}"
            )
        rows.append((label_of(result.name), result.parameters, result.published, result.macs, folded))
    headers = ("parameters", "MACs unfolded", "MACs", "theirs, folded")
    return Table.of("", (_NETWORK, *(Column(header, write=text.exact) for header in headers)), rows)


_NOTE_PAPER = """
GFLOPs of the paper's convention against those in the paper's figures (`flopbench/data/published.csv`). These
have two or three digits: a difference beyond 1.5 % must be their rounding.
"""


def _paper_table(audits: list[Audit]) -> Table:
    by_name = {result.name: result for result in audits}
    rows = []
    for name, printed in _printed().items():
        ours = by_name[name].paper_sum
        assert ours is not None
        deviation = ours / 1e9 / float(printed) - 1
        why = _reason(name, ours, printed, deviation)
        rows.append((label_of(name), ours / 1e9, printed, deviation, why))
    gflops = Column("GFLOPs", write="{:.3f}".format)
    columns = (_NETWORK, gflops, Column("paper"), Column("difference", write=_CHANGE), words("why"))
    return Table.of("", columns, rows)


def _reason(name: str, ours: int, printed: str, deviation: float) -> str:
    if abs(deviation) <= PAPER_TOLERANCE:
        return "within 1.5 %"
    decimals = len(printed.partition(".")[2])
    if f"{ours / 1e9:.{decimals}f}" == printed:
        return f"{ours / 1e9:.3f} is printed as {printed}"
    raise FlopbenchError(
        f"{name} counts to {ours / 1e9:.3f} GFLOPs where the paper has {printed}, unexplained"
    )


_NOTE_STOCK = """
Without our handles, and why that is not used. fvcore has no rule for fused attention and adds its estimate
of the normalisation to the MACs; FlopCounterMode's formula for the weight gradient of a grouped convolution
multiplies by the number of groups, which a depthwise convolution has as many of as channels.
"""


def _stock_table() -> Table:
    columns = (
        _NETWORK,
        Column("fvcore, forward", write=text.exact),
        Column("off by", "fvcore off by", _CHANGE),
        words("products left out"),
        Column(f"{FLOP_COUNTER}, backward", write=text.exact),
        Column("off by", "backward off by", _CHANGE),
    )
    rows = []
    for name in STOCK_EXAMPLES:
        model = build_on_meta(name)
        stock = stock_counts(model, inputs_for(model))
        rows.append(
            (
                label_of(name),
                stock.fvcore,
                stock.fvcore / stock.macs - 1,
                ", ".join(f"{operator} ×{count}" for operator, count in stock.fvcore_without_rule.items()),
                stock.backward,
                stock.backward / stock.backward_macs - 1,
            )
        )
    return Table.of("", columns, rows)


@cache
def _read(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _authors(name: str) -> tuple[int, int] | None:
    """MACs, and MACs plus elementwise operations, of the authors' definition."""
    key = _key(name)
    rows = (row for row in _read("models.csv") if (row["family"], row["size"], row["version"]) == key)
    return next(((int(row["macs"]), int(row["macs_plus_elementwise"])) for row in rows), None)


def _key(name: str) -> tuple[str, str, str]:
    """Family, size and version, as the files of authors' counts have them."""
    parsed = parse_name(name)
    assert parsed.spec is not None
    return _family(parsed.spec), parsed.spec.size, parsed.version.label("X")


def _family(spec: Spec) -> str:
    if spec.family == "convnext":
        return "ConvNeXt-isotropic" if len(spec.config["depths"]) == 1 else "ConvNeXt"
    return _FAMILIES[spec.family]


def _printed() -> dict[str, str]:
    """Name → GFLOPs as the paper prints them."""
    names = {label_of(name): name for name in list_models()}
    paper = sources()["flopping"]
    return {
        names[network.label]: network.printed["gflops"] for network in published() if network.source == paper
    }
