"""Every picture of a report, each answering one question."""

from collections.abc import Sequence

from flopbench.report.cells import Rows, measured
from flopbench.report.pictures.drawing import Drawing, Picture, finish
from flopbench.results import Run

__all__ = ["Drawing", "Picture", "draw_all"]


def draw_all(runs: Sequence[Run], rows: Rows) -> tuple[list[Picture], list[str]]:
    """The pictures that the runs have data for, and a sentence for each kind that they have none for.

    Args:
        runs: the runs of the report.
        rows: all their cells (`cells.rows_of`).
    """
    from flopbench.report.pictures import accuracy, batch, gain, machine, share, width
    from flopbench.report.pictures.style import style

    cells = measured(rows)
    with style():
        drawings: list[Drawing | None] = []
        if len(runs) > 1:
            drawings.append(share.runs_side_by_side(runs, cells))
        drawings.append(gain.gain_against_macs(runs, cells))
        for number, run in enumerate(runs, 1):
            own = [row for row in rows if row["run"] == run.info.id]
            profiles, device_name = run.profiles(), run.info.environment.device_name
            suffix = f"-{number}" if len(runs) > 1 else ""
            drawings += [
                batch.speedup_against_batch(run, measured(own), suffix),
                width.speedup_against_width(run, measured(own), suffix),
                share.realised_share(run, measured(own), suffix),
                batch.memory_against_batch(run, own, suffix),
                machine.roofline(profiles, machine.measured_peaks(run), device_name, suffix),
                machine.where_time_goes(profiles, device_name, suffix),
            ]
        drawings.append(accuracy.accuracy(runs, cells))
        pictures = [finish(drawing) for drawing in drawings if drawing is not None]
    return pictures, _missing(pictures)


# What is left out for want of data, and how to get it.
_REMEDIES = {
    "roofline": "No roofline: it needs a profile and the device's measured peaks in the run folder "
    "(`flopbench profile PAIR`, `flopbench calibrate`).",
    "time": "No picture of where the time goes: it needs a profile in the run folder "
    "(`flopbench profile PAIR`).",
    "accuracy": "No accuracy against time: none of the networks whose accuracy the paper gives was measured.",
}


def _missing(pictures: Sequence[Picture]) -> list[str]:
    drawn = {picture.name.partition("-")[0] for picture in pictures}
    return [sentence for name, sentence in _REMEDIES.items() if name not in drawn]
