"""Every picture of a report, each answering one question."""

from collections.abc import Iterator, Sequence

from flopbench.report.cells import Rows, measured
from flopbench.report.labels import family_of
from flopbench.report.pictures.drawing import Drawing, Picture, finish
from flopbench.report.published import with_accuracy
from flopbench.results import Run

__all__ = ["Drawing", "Picture", "draw", "draw_all"]


def draw(runs: Sequence[Run], rows: Rows) -> list[Drawing]:
    """The pictures that the runs have data for as figures; what they are of as for `draw_all`."""
    from flopbench.report.pictures.style import style

    with style():
        return list(_drawings(runs, rows))


def draw_all(runs: Sequence[Run], rows: Rows) -> tuple[list[Picture], list[str]]:
    """The pictures that the runs have data for, and a sentence for each kind that they have none for.

    Args:
        runs: the runs of the report.
        rows: all their cells (`cells.rows_of`).
    """
    from flopbench.report.pictures.style import style

    drawn = []
    for phone in (False, True):
        with style(phone=phone):
            drawn.append(list(_drawings(runs, rows)))
    with style():
        pictures = [finish(wide, narrow) for wide, narrow in zip(*drawn, strict=True)]
    return pictures, _missing(pictures, rows)


def _drawings(runs: Sequence[Run], rows: Rows) -> Iterator[Drawing]:
    return (drawing for drawing in _all(runs, rows) if drawing is not None)


def _all(runs: Sequence[Run], rows: Rows) -> Iterator[Drawing | None]:
    from flopbench.report.pictures import accuracy, batch, gain, latency, machine, share, speedups, width

    cells = measured(rows)
    if len(runs) > 1:
        yield share.runs_side_by_side(runs, cells)
    yield gain.gain_against_macs(runs, cells)
    for number, run in enumerate(runs, 1):
        own = [row for row in rows if row["run"] == run.info.id]
        profiles, device_name = run.profiles(), run.info.environment.device_name
        suffix = f"-{number}" if len(runs) > 1 else ""
        yield speedups.speedups(run, measured(own), suffix)
        yield batch.speedup_against_batch(run, measured(own), suffix)
        yield width.speedup_against_width(run, measured(own), suffix)
        yield share.realised_share(run, measured(own), suffix)
        yield batch.memory_against_batch(run, own, suffix)
        yield latency.latencies(run, measured(own), suffix)
        yield machine.roofline(profiles, machine.measured_peaks(run), device_name, suffix)
        yield machine.where_time_goes(profiles, device_name, suffix)
    yield accuracy.accuracy(runs, cells)


# What is left out for want of data, and how to get it.
_REMEDIES = {
    "roofline": "No roofline: it needs a profile and the device's measured peaks in the run folder "
    "(`flopbench profile PAIR`, `flopbench calibrate`).",
    "time": "No picture of where the time goes: it needs a profile in the run folder "
    "(`flopbench profile PAIR`).",
    "accuracy": "No accuracy against time: none of the networks whose accuracy is published was measured.",
}


def _missing(pictures: Sequence[Picture], rows: Rows) -> list[str]:
    drawn = {picture.name.partition("-")[0] for picture in pictures}
    families = {family_of(network.label) for network in with_accuracy()}
    if not any(family_of(row["baseline_label"]) in families for row in rows):
        # Nothing is published of somebody's own networks.
        drawn.add("accuracy")
    return [sentence for name, sentence in _REMEDIES.items() if name not in drawn]
