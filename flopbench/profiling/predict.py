"""What-if: the speed-up that a roofline predicts, and how far off it is where the speed-up was measured."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.modes import DType
from flopbench.profiling.roofline import Work, predicted_speedup
from flopbench.report import text
from flopbench.report.table import Column, Table, words
from flopbench.results import Calibration, Peaks, Run, read_record


@dataclass(frozen=True)
class Prediction:
    """Of one cell: the speed-up by the roofline, and by the MACs alone; None where one model has none."""

    cell: Cell
    promised: float | None
    predicted: float


@dataclass(frozen=True)
class Checked:
    """A prediction beside the measurement."""

    run: str
    cell: Cell
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """|predicted / measured − 1|."""
        return abs(self.predicted / self.measured - 1)


def read_calibration(path: Path) -> Calibration:
    """A calibration file, of this machine or another.

    Raises:
        FlopbenchError: it is no calibration.
    """
    if not path.is_file():
        raise FlopbenchError(f"no calibration file at {path}; flopbench calibrate writes calibration.json")
    return read_record(path, Calibration, "is no calibration")


def predict(cell: Cell, peaks: Peaks) -> Prediction:
    """The speed-up of a cell on a device with these peaks.

    Raises:
        FlopbenchError: the peaks lack the dtype.
    """
    baseline, candidate = (Work(name, cell) for name in (cell.pair.baseline, cell.pair.candidate))
    return Prediction(
        cell,
        promised=baseline.macs / candidate.macs if baseline.macs and candidate.macs else None,
        predicted=predicted_speedup(baseline.bound(peaks), candidate.bound(peaks), cell.device, cell.mode),
    )


def prediction_table(predictions: Sequence[Prediction]) -> Table:
    """A row a prediction."""
    columns = (
        words("cell", lambda prediction: prediction.cell.id),
        Column("promised\nby the MACs", "promised", text.times),
        Column("predicted", write=text.times),
    )
    return Table("Predicted speed-up", columns, predictions)


def find_runs(folder: Path) -> list[Run]:
    """The run folders in `folder`, or the one that it is, by name.

    Raises:
        FlopbenchError: there is none.
    """
    files = sorted(folder.glob("**/run.json"))
    if not files:
        raise FlopbenchError(f"{folder} holds no runs: no run.json in it or below")
    return [Run.open(file.parent) for file in files]


def check_prediction(runs: Sequence[Run]) -> tuple[list[Checked], dict[str, str]]:
    """Every measured cell of the runs whose device's peaks are known, with its prediction.

    The peaks are those of the run's own calibration or profile, else of another run's on a like machine.

    Returns:
        The cells, and the networks of cells left out, by name, with why they cannot be built here.

    Raises:
        FlopbenchError: no run has peaks, or none has a measured cell of two networks that can be built here.
    """
    checked: list[Checked] = []
    works = _Works()
    for run in runs:
        peaks = _peaks_of(run, runs)
        for record in run.records() if peaks else ():
            cell = record.cell
            if record.speedup is None or record.unresolved or not peaks or not _covered(peaks, cell.dtype):
                continue
            # Of a network against itself, as calibration runs have it, there is nothing to predict.
            if cell.pair.baseline == cell.pair.candidate:
                continue
            baseline, candidate = (works.of(name, cell) for name in (cell.pair.baseline, cell.pair.candidate))
            if baseline and candidate:
                predicted = predicted_speedup(
                    baseline.bound(peaks), candidate.bound(peaks), cell.device, cell.mode
                )
                checked.append(Checked(run.info.id, cell, predicted, record.speedup.estimate))
    if not checked:
        raise FlopbenchError(
            "; ".join(works.lacking.values())
            or "no run has both measured cells and peaks: flopbench calibrate measures the peaks"
        )
    return checked, works.lacking


class _Works:
    """The work of networks in cells, each counted once; `lacking` says why some cannot be built here."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, Cell], Work] = {}
        self.lacking: dict[str, str] = {}

    def of(self, name: str, cell: Cell) -> Work | None:
        # Both members of many pairs recur: X is the baseline of E(X) and of H(X).
        key = name, cell.model_copy(update={"pair": cell.pair.model_copy(update={"candidate": name})})
        if key not in self.known and name not in self.lacking:
            try:
                self.known[key] = Work(name, cell)
            except FlopbenchError as error:
                self.lacking[name] = str(error)
        return self.known.get(key)


def _covered(peaks: Peaks, dtype: DType) -> bool:
    return bool({dtype, dtype.removeprefix("autocast-")} & set(peaks.flops_per_second))


def _peaks_of(run: Run, runs: Iterable[Run]) -> Peaks | None:
    def alike(other: Run) -> bool:
        same = ("device", "device_name", "cpu", "threads")
        return not run.info.environment.differences(other.info.environment, same)

    return next((peaks for other in (run, *filter(alike, runs)) for peaks in _stored(other)), None)


def _stored(run: Run) -> Iterator[Peaks]:
    calibration = run.calibration()
    if calibration:
        yield calibration.peaks
    yield from (profile.peaks for profile in run.profiles() if profile.peaks)


def check_lines(checked: Sequence[Checked], left_out: Mapping[str, str]) -> list[str]:
    """The median error of the prediction, in a sentence; another on what was left out, if anything was."""
    errors = sorted(check.error for check in checked)
    runs = len({check.run for check in checked})
    high = sum(check.predicted > check.measured for check in checked)
    lines = [
        f"Cells measured: {len(errors)}, in {runs} {'run' if runs == 1 else 'runs'}. "
        f"The roofline's speed-up is off by {100 * median(errors):.1f} % in the median and "
        f"{100 * errors[-1]:.1f} % at worst; it is too high in {high} of {len(errors)}."
    ]
    if left_out:
        lines.append(
            f"Left out: cells of {', '.join(left_out)} ({'; '.join(dict.fromkeys(left_out.values()))})."
        )
    return lines


def checked_table(checked: Sequence[Checked]) -> Table:
    """A row a cell, the largest error first."""
    columns = (
        words("cell", lambda check: check.cell.id),
        words("run"),
        Column("predicted", write=text.times),
        Column("measured", write=text.times),
        Column("error", write=partial(text.percent, decimals=1)),
    )
    rows = sorted(checked, key=lambda check: -check.error)
    return Table("Predicted and measured speed-up", columns, rows)


def write_check(checked: Sequence[Checked], left_out: Mapping[str, str], out: Path) -> Path:
    """Write `out/prediction/prediction.md`, the lines and the table; its path."""
    from flopbench.profiling.page import write_page

    return write_page(
        out / "prediction" / "prediction.md",
        {
            "title": "How far the roofline's prediction is off",
            "setting": "Predicted from counted MACs and bytes and the device's measured peaks alone, "
            "without any timing of a network.",
            "sentences": check_lines(checked, left_out),
            "tables": [checked_table(checked)],
            "command": "flopbench profile check results",
        },
    )
