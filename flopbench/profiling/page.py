"""Writing a page: Markdown with its pictures and data in one folder. The same record gives the same bytes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopbench.cells import AXES
from flopbench.profiling.explain import about, explain, on_device, speed_ups
from flopbench.profiling.tables import all_tables
from flopbench.results import ProfileRecord, write_atomically, write_record

if TYPE_CHECKING:
    from flopbench.report.pictures import Drawing, Picture

PROFILE_NOTES = (
    "Time is an operator's own, without the operators that it calls: the groups add up. Measured is the "
    "median call without the profiler, unexplained what the groups leave of it.",
    "Kinds: what a compiler fused is named by the largest thing in it, so a residual addition fused into a "
    "norm is normalisation; in an eager network, all elementwise work and copies within a norm layer are "
    "normalisation; other is views, allocations and the host's own work.",
    "Least times take of each layer the longer of its FLOPs at the measured peak of a large matrix product "
    "and its bytes at the measured rate of a copy of that size, caches included.",
)


DEVICE_NOTE = (
    "On a GPU time is that of kernels, under the operator that launched them, and calls are kernels; those "
    "that no operator launched, as in a CUDA graph, go by their own names. Idle is what they leave of the "
    "call. Least times add what a kernel takes however small it is; but for a graph, which is launched as a "
    "whole, they are no shorter than launching the kernels one by one."
)


def profile_stem(record: ProfileRecord) -> str:
    """A name for the files of a profile, safe whatever the pair is called."""
    return re.sub(r"[^\w.-]+", "_", f"profile-{record.cell.id.replace('/', '-')}")


def write_profile(record: ProfileRecord, out: Path) -> Path:
    """Write `out/profile-…/profile.md` with pictures and `profile.json`; the Markdown file's path."""
    from flopbench.report.pictures.machine import roofline, where_time_goes
    from flopbench.report.pictures.style import style

    folder = out / profile_stem(record)
    device = record.environment.device_name if record.environment else record.cell.device
    with style():
        drawings = [where_time_goes([record], device), speed_up_picture(record)]
        drawings.append(roofline([record], record.peaks, device))
        pictures = save_pictures(drawings, folder)
    write_record(folder / "profile.json", record)
    threads = ""
    if record.environment and record.cell.device == "cpu":
        threads = f", threads: {record.environment.threads}"
    version = f"torch {record.environment.torch}, " if record.environment else ""
    words = ", ".join(record.cell.words).capitalize()
    context = {
        "title": f"Where the time goes: {record.baseline.label} and {record.candidate.label}",
        "setting": f"{words}, on {device}{threads} ({version}{record.calls} calls profiled).",
        "sentences": explain(record),
        "tables": all_tables(record),
        "pictures": pictures,
        "notes": notes(record),
        "data": "profile.json",
        "command": profile_command(record),
    }
    return write_page(folder / "profile.md", context)


def notes(record: ProfileRecord) -> tuple[str, ...]:
    """How to read the tables; where they are missing, why."""
    own = (*PROFILE_NOTES, DEVICE_NOTE) if on_device(record) else PROFILE_NOTES
    if record.candidate.parts or record.baseline.parts:
        return own
    return (
        *own,
        "There is no table by part of the network: a compiled kernel may span layers, and hooks that would "
        "mark layers break the compiled graph. An eager profile has it.",
    )


def profile_command(record: ProfileRecord) -> str:
    """The command that profiles the same thing again."""
    cell = record.cell
    unusual = [axis for axis in AXES.values() if axis.part(getattr(cell, axis.field))]
    if any(name.given for name in cell.pair.names) or cell.pair.inputs or cell.pair.loss:
        values = [f"{axis.field}={getattr(cell, axis.field)!r}" for axis in unusual]
        return f"flopbench.profile(baseline, candidate, inputs, {', '.join(values)}, device={cell.device!r})"
    said = [f"{axis.option} {axis.of(cell)}".replace("×", "x") for axis in unusual]
    return " ".join(("flopbench profile", cell.pair.id, *said, f"--device {cell.device}"))


def speed_up_picture(record: ProfileRecord) -> "Drawing | None":
    """Promised, allowed and measured speed-up as bars."""
    from flopbench.report.pictures.drawing import Drawing
    from flopbench.report.pictures.style import INK, LOOKS, new_figure

    ups = speed_ups(record)
    if ups is None:
        return None
    bars = (
        (f"promised by the MACs{' (≈)' if about(record) else ''}", ups.promised),
        ("allowed, layers fused", ups.allowed_fused),
        ("allowed, operator by operator", ups.allowed_unfused),
        ("measured", ups.measured),
    )
    bars = [(name, value) for name, value in bars if value is not None]
    figure = new_figure(7.2, 2.1)
    axis = figure.subplots()
    for row, ((_, value), own) in enumerate(zip(bars, LOOKS, strict=False)):
        axis.barh(row, value, color=own.color, hatch=own.hatch, edgecolor="white", height=0.7)
        end = max(value, record.speedup.high) if record.speedup and row == len(bars) - 1 else value
        axis.annotate(f"{value:.2f}×", (end, row), xytext=(4, 0), textcoords="offset points", va="center")
    if record.speedup:
        low, high = record.speedup.low, record.speedup.high
        axis.plot([low, high], [len(bars) - 1] * 2, color=INK, linewidth=2.2, marker="|", markersize=8)
    axis.axvline(1.0, color=INK, linewidth=0.9)
    axis.set_yticks(range(len(bars)), [name for name, _ in bars])
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.set_xlim(0, 1.15 * max(value for _, value in bars))
    axis.grid(False, axis="y")
    axis.set_xlabel("speed-up (time of the baseline / time of the candidate)")
    return Drawing(
        "speed-ups",
        "Promised, allowed, measured",
        "What the MACs promise, what the device's measured peaks allow, what was measured (95 % interval).",
        "Bars of the promised, the allowed and the measured speed-up.",
        figure,
    )


def save_pictures(drawings: "Sequence[Drawing | None]", folder: Path) -> "list[Picture]":
    """Finish drawings and write each as PNG and SVG into `folder`; within `style()`."""
    from flopbench.report.pictures.drawing import finish

    pictures = [finish(drawing) for drawing in drawings if drawing is not None]
    for picture in pictures:
        write_atomically(folder / f"{picture.name}.png", picture.png)
        write_atomically(folder / f"{picture.name}.svg", picture.svg)
    return pictures


def write_page(path: Path, context: Mapping[str, Any]) -> Path:
    """Render the room's Markdown template; what is missing of `context` is empty."""
    from flopbench.report.page import markdown_templates

    templates = markdown_templates("flopbench.profiling")
    empty = {"pictures": (), "notes": (), "sentences": (), "tables": (), "data": ""}
    write_atomically(path, templates.get_template("profile.md.j2").render({**empty, **context}))
    return path
