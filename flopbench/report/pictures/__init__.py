"""The pictures of reports, from what is drawn to files."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from flopbench.report.along import RESOLUTION, WIDTH
from flopbench.report.cells import Rows, measured, promising
from flopbench.report.labels import family_of
from flopbench.report.pictures.drawing import Drawing, Picture, finish
from flopbench.report.published import with_accuracy
from flopbench.results import Run

__all__ = ["Drawing", "Picture", "draw", "draw_all", "missing", "of_runs"]


def draw(drawings: Callable[[], Iterable[Drawing | None]]) -> list[Drawing]:
    """What is drawn where there is data for it."""
    from flopbench.report.pictures.style import style

    with style():
        return _there_are(drawings)


def draw_all(drawings: Callable[[], Iterable[Drawing | None]]) -> list[Picture]:
    """What is drawn where there is data for it, rendered: for pages, and narrow for phones."""
    from flopbench.report.pictures.style import style

    drawn = []
    for phone in (False, True):
        with style(phone=phone):
            drawn.append(_there_are(drawings))
    with style():
        return [finish(wide, narrow) for wide, narrow in zip(*drawn, strict=True)]


def _there_are(drawings: Callable[[], Iterable[Drawing | None]]) -> list[Drawing]:
    return [drawing for drawing in drawings() if drawing is not None]


def of_runs(runs: Sequence[Run], rows: Rows) -> Iterator[Drawing | None]:
    """Every picture of runs and of all their cells (`cells.rows_of`), each answering one question."""
    from flopbench.report.pictures import (
        accuracy,
        along,
        batch,
        engines,
        gain,
        latency,
        machine,
        share,
        speedups,
    )

    cells = promising(measured(rows))
    if len(runs) > 1:
        yield share.runs_side_by_side(runs, cells)
    yield gain.gain_against_macs(runs, cells)
    for number, run in enumerate(runs, 1):
        own = [row for row in rows if row["run"] == run.info.id]
        profiles, device_name = run.profiles(), run.info.environment.device_name
        suffix = f"-{number}" if len(runs) > 1 else ""
        spoken_of = promising(measured(own))
        by_engine = engines.speedup_by_engine(run, spoken_of, suffix)
        yield by_engine
        if by_engine is None or {row["pass"] for row in spoken_of} != {"forward"}:
            yield speedups.speedups(run, spoken_of, suffix)
            yield batch.speedup_against_batch(run, spoken_of, suffix)
        for lines in (WIDTH, RESOLUTION):
            yield along.speedup_along(lines, run, spoken_of, suffix)
        yield share.realised_share(run, spoken_of, suffix)
        yield batch.memory_against_batch(run, promising(own), suffix)
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


def missing(pictures: Sequence[Picture], rows: Rows) -> list[str]:
    """A sentence in Markdown for each kind of picture of runs that there is no data for."""
    drawn = {picture.name.partition("-")[0] for picture in pictures}
    families = {family_of(network.label) for network in with_accuracy()}
    if not any(family_of(row["baseline_label"]) in families for row in rows):
        # Nothing is published of somebody's own networks.
        drawn.add("accuracy")
    return [sentence for name, sentence in _REMEDIES.items() if name not in drawn]
