"""What a GPU measured, in Markdown: pieces of layers, operations, and what the pieces of a block add up to.

python -m tests.gpu.summary results/gpu-h200-20261128
python -m tests.gpu.summary results/gpu-h200-20261128 --out reports/gpu-h200.md

Of a folder where `tests.gpu.microbench` and `tests.gpu.operations` wrote; what is not there is left out.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from flopbench.errors import FlopbenchError
from flopbench.kernels.measured import Row
from flopbench.report.table import Column, Table, words
from tests.gpu.cases import ON_A_CPU, ON_A_GPU, Size
from tests.gpu.operations import FILES
from tests.gpu.table import measurements

BLOCK = {"add+norm": 2, "qkv": 1, "attention": 1, "proj": 1, "linear+gelu": 1, "fc2": 1}
"""How often a block of a ViT has each piece."""

BATCHED = "one batched"

Ways = dict[str, float]
"""Milliseconds by the way to compute a piece."""


class Where(NamedTuple):
    """A ViT's size and a batch size."""

    size: str
    batch: int


Pieces = dict[str, dict[Where, Ways]]


class Measured(NamedTuple):
    """What `tests.gpu.microbench` found: the rates at best, times of pieces, and what failed."""

    peaks: list[str]
    pieces: Pieces
    failed: list[str]


def read_pieces(path: Path) -> Measured:
    """A file of a measurement per line.

    Raises:
        FlopbenchError: it is none, with the line.
    """
    found = Measured([], {}, [])
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            if "error" in row:
                found.failed.append(" ".join(map(str, row.values())))
            elif "size" in row:
                sizes = found.pieces.setdefault(row["piece"], {})
                sizes.setdefault(Where(row["size"], row["batch"]), {})[row["way"]] = row["ms"]
            else:
                rate = f"{row['tflops']} TFLOP/s" if "tflops" in row else f"{row['gb_s']} GB/s"
                found.peaks.append(f"{row['piece']} {rate}")
        except (ValueError, KeyError, TypeError):
            raise FlopbenchError(
                f"{path}, line {number}, is no row of `python -m tests.gpu.microbench`"
            ) from None
    return found


def _milliseconds(name: str) -> Column:
    """Written in microseconds."""
    return Column(name, write=lambda ms: f"{1e3 * ms:.1f}")


def _as(pattern: str, name: str) -> Column:
    return Column(name, write=lambda value: pattern.format(value))


SIZE, BATCH = words("size"), Column("batch")


def piece_tables(pieces: Pieces) -> Iterator[Table]:
    """Microseconds of each way: pieces that are computed in the same ways in one table."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for piece, sizes in pieces.items():
        alike.setdefault(tuple(dict.fromkeys(way for ways in sizes.values() for way in ways)), []).append(
            piece
        )
    for ways, names in alike.items():
        rows = [
            (*where, piece, *map(times.get, ways))
            for piece in names
            for where, times in pieces[piece].items()
        ]
        yield Table.of(", ".join(names), [SIZE, BATCH, words("piece"), *map(_milliseconds, ways)], rows)


def operation_table(rows: Iterable[Row]) -> Table:
    """Microseconds of each operation: torch's own uncompiled and compiled, Triton, one batched product."""
    known: dict[tuple[object, ...], Ways] = {}
    for row in rows:
        of = row.operation, row.parts, row.elements, "yes" if row.gradients else "no"
        times = known.setdefault(of, {})
        times["torch compiled" if row.compiled else "torch"] = row.ms["torch"]
        times |= {way: ms for way, ms in row.ms.items() if way != "torch"}
    about = [words("operation"), Column("parts"), Column("elements"), words("gradients")]
    ways = ["torch", "torch compiled", "triton", "batched"]
    figures = [(*of, *map(times.get, ways)) for of, times in known.items()]
    return Table.of("operations", [*about, *map(_milliseconds, ways)], figures)


class Block(NamedTuple):
    """A ViT's block, of pieces each in its fastest way.

    Attributes:
        ms: of all of them.
        ways: the way of each piece.
    """

    ms: float
    ways: tuple[str, ...]


def block_of(pieces: Pieces, where: Where, *, dense: bool, stacked: bool = False) -> Block | None:
    """The sum of a block's pieces, None if one was not measured.

    Args:
        pieces: what was measured.
        where: the size.
        dense: X's, otherwise E(X)'s.
        stacked: count one batched product too, which takes parts that lie in one tensor already.
    """
    total, ways = 0.0, list[str]()
    for piece, times in BLOCK.items():
        known = {
            way: ms
            for way, ms in pieces.get(piece, {}).get(where, {}).items()
            if way.startswith("dense") is dense and (stacked or way != BATCHED)
        }
        if not known:
            return None
        ways.append(min(known, key=known.__getitem__))
        total += times * known[ways[-1]]
    return Block(total, tuple(ways))


def macs_ratio(size: Size) -> float:
    """Of a block: the products with weights are halved, those of attention are not."""
    weights, attention = 12 * size.channels, 2 * size.tokens
    return (weights + attention) / (weights / 2 + attention)


def block_tables(pieces: Pieces, sizes: Mapping[str, Size]) -> Iterator[Table]:
    """What the pieces of X's and of E(X)'s block add up to, and the fastest way of each."""
    sums, ways = list[tuple[object, ...]](), list[tuple[object, ...]]()
    for where in dict.fromkeys(where for found in pieces.values() for where in found):
        dense = block_of(pieces, where, dense=True)
        if dense is None or where.size not in sizes:
            continue
        promised = macs_ratio(sizes[where.size])
        for parts, stacked in (("apart", False), ("stacked", True)):
            halves = block_of(pieces, where, dense=False, stacked=stacked)
            if halves is None:
                continue
            ratio = dense.ms / halves.ms
            share = 100 * (ratio - 1) / (promised - 1)
            sums.append((*where, parts, dense.ms, halves.ms, ratio, promised, share))
            ways.append((*where, parts, *halves.ways))
    about = [SIZE, BATCH, words("parts")]
    figures = [_as("{:.2f}", "X over E(X)"), _as("{:.2f}", "MACs ratio"), _as("{:.0f} %", "share")]
    yield Table.of("sums", [*about, *map(_milliseconds, ("X", "E(X)")), *figures], sums)
    yield Table.of("ways", [*about, *map(words, BLOCK)], ways)


def environment(folder: Path, rows: Iterable[Row]) -> list[str]:
    """The card and the versions, of `flopbench env` where its log is there."""
    log = folder / "machine.log"
    if log.exists():
        text = log.read_text(encoding="utf-8")
        known = json.loads(text[text.index("{") : text.rindex("}") + 1])
        kept = ("device_name", "driver", "cuda", "cudnn", "cpu", "torch", "triton")
        return [f"{key.replace('device_name', 'card')}: {known[key]}" for key in kept if known.get(key)]
    return list(dict.fromkeys(f"card: {row.card}, torch: {row.torch}, {row.date}" for row in rows))


def report(folder: Path) -> str:
    """What was measured in a folder, in Markdown.

    Raises:
        FlopbenchError: there is nothing in it, or not what is asked for.
    """
    micro, operations = folder / "microbench.jsonl", [folder / name for name in FILES.values()]
    there = [path for path in operations if path.exists()]
    if not (micro.exists() or there):
        raise FlopbenchError(f"{folder} has none of {micro.name}, {', '.join(FILES.values())}")
    measured = read_pieces(micro) if micro.exists() else Measured([], {}, [])
    rows = [row for path in there for row in measurements(path)]
    lines = [f"# What a GPU measured: {folder.name}", _INTRODUCTION.format(folder)]
    lines.append("\n".join(f"- {line}" for line in (*environment(folder, rows), *measured.peaks)))
    sums, ways = block_tables(measured.pieces, ON_A_GPU | ON_A_CPU)
    if sums.rows:
        lines += ["## The pieces of a block, added up", _SUMS, sums.markdown(), _WAYS, ways.markdown()]
    if measured.pieces:
        lines += ["## Pieces", _PIECES]
        lines += [table.markdown() for table in piece_tables(measured.pieces)]
    if rows:
        lines += ["## Operations", _OPERATIONS, operation_table(rows).markdown()]
    if measured.failed:
        lines += ["## What failed", "\n".join(f"- {line}" for line in measured.failed)]
    return "\n\n".join(lines) + "\n"


_INTRODUCTION = """\
Written by `python -m tests.gpu.summary {}`. All times are microseconds, medians of replays of a CUDA graph,
in bf16: what the host takes to launch is left out. Each call reads the same tensors again, which a card's
cache may hold. An en dash is what there was no time for."""

_SUMS = """\
**This is arithmetic with pieces that were timed apart, and no network that was timed**: two norms of a
residual sum, the maps of queries, keys and values and after attention, attention, and an MLP, each in the
fastest way that was measured. What neighbours gain from each other, as by fusion or in a cache, is not in
it, nor is what lies between blocks. With parts apart E(X)'s maps are two products or Triton's; with parts
stacked, one batched product too, of tensors that lie in one already and without a bias: what it takes to
stack them is not counted. The share is that of the MACs' promise, (X over E(X) − 1) / (MACs ratio − 1)."""

_WAYS = "E(X)'s fastest ways:"

_PIECES = """\
A way that is called dense is X's. Two products are torch's own, one batched one is of parts that are
stacked already and without a bias; fc1 is in linear+gelu again, with the GELU. Mixing tokens is ResMLP's."""

_OPERATIONS = """\
As flopbench runs them, of which `--impl auto` takes the fastest on such a card: torch's own operators
uncompiled and compiled, the Triton kernel, and compiled with products of parts as one batched product,
stacking included. With gradients the time of both passes. Elements are those of the first part."""


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="What a GPU measured, in Markdown.")
    parser.add_argument("folder", type=Path, help="where microbench.jsonl and operations.jsonl lie")
    parser.add_argument("--out", type=Path, help="the report to write; by default it goes to the terminal")
    given = parser.parse_args(arguments)
    try:
        text = report(given.folder)
    except (FlopbenchError, OSError) as error:
        sys.exit(str(error))
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
