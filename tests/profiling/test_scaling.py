from typing import Any

import pytest

from flopbench.errors import FlopbenchError
from flopbench.profiling.scaling import (
    ScalingPlan,
    ScalingRecord,
    answers,
    measure_width,
    pays_from,
    sweep_widths,
    write_scaling,
)
from flopbench.results import Interval
from flopbench.runner.process import Outcome


def plan(**changes: Any) -> ScalingPlan:
    base = ScalingPlan(
        family="vit",
        version="flop",
        widths=(64, 128, 256),
        batches=(1, 4),
        passes=("forward",),
        depth=1,
        device="cpu",
        dtype="fp32",
        mode="eager",
        image_size=(32, 32),
        cell_seconds=2.0,
        budget=1000.0,
    )
    return base._replace(**changes)


def near(estimate: float) -> Interval:
    return Interval(estimate=estimate, low=estimate - 0.05, high=estimate + 0.05)


def stand_in(speedups: dict[tuple[int, int], float], seen: list[Any]) -> Any:
    """A worker that answers with known speed-ups, by (width, batch size)."""

    def run(job: Any, cell: Any, options: dict[str, Any], seconds: float, *, timeout: float) -> Outcome:
        assert job is measure_width
        seen.append((options["width"], cell.batch_size, seconds))
        if (options["width"], cell.batch_size) not in speedups:
            return Outcome("oom", "out of memory")
        up = near(speedups[options["width"], cell.batch_size])
        result = {"macs_ratio": 1.9, "speedup": up, "baseline_seconds": 1.0, "candidate_seconds": 0.7}
        return Outcome("done", result)

    return run


SPEEDUPS = {(64, 1): 0.7, (128, 1): 1.02, (256, 1): 1.3, (64, 4): 0.9, (128, 4): 1.2}


def test_a_sweep_measures_every_point_and_says_where_it_pays(tmp_path):
    seen: list[Any] = []
    record = sweep_widths(plan(), run=stand_in(SPEEDUPS, seen))
    assert [(width, batch) for width, batch, _ in seen] == [(w, b) for b in (1, 4) for w in (64, 128, 256)]
    assert record.points[-1].reason == "oom: out of memory"
    said = answers(record)
    assert said[0] == "Forward, batch 1: equivariance pays from width 256 on."
    assert said[1] == "Forward, batch 4: equivariance pays from width 128 on."
    assert said[2] == (
        "Forward: it pays from batch 1 on at width 256; from batch 4 on at width 128; "
        "at no batch size at width 64."
    )
    assert said[3].startswith("1 of 6 points were not measured")
    page = write_scaling(record, tmp_path)
    assert {file.name for file in page.parent.iterdir()} == {
        "scaling.md",
        "scaling.json",
        "speedup-over-width.png",
        "speedup-over-width.svg",
    }
    again = ScalingRecord.model_validate_json((page.parent / "scaling.json").read_bytes())
    assert again == record
    command = page.read_text(encoding="utf-8").replace("\\", "")
    assert "--widths 64 --widths 128 --widths 256" in command
    assert "--cell-seconds 2 --budget 1000s" in command


@pytest.mark.parametrize(
    ("speedup", "said"),
    [
        (1.3, "Forward: it pays from batch 1 on at every width measured."),
        (0.8, "Forward: it pays at no batch size at any width measured."),
    ],
)
def test_what_holds_at_every_width_is_said_once(speedup: float, said: str):
    everywhere = {(width, batch): speedup for width in (64, 128, 256) for batch in (1, 4)}
    assert answers(sweep_widths(plan(), run=stand_in(everywhere, [])))[2] == said


def test_what_does_not_fit_the_budget_is_skipped_and_listed():
    clock = iter([0.0, 0.0, 99.5, 101.0])
    seen: list[Any] = []
    small = plan(batches=(1,), budget=105.0, cell_seconds=50.0)
    record = sweep_widths(small, run=stand_in(SPEEDUPS, seen), now=lambda: next(clock, 104.0))
    assert [seconds for _, _, seconds in seen] == [50.0, 2.5, 1.0]
    record = sweep_widths(small._replace(budget=1.0), run=stand_in(SPEEDUPS, seen), now=lambda: 0.0)
    assert all(point.reason.startswith("skipped") for point in record.points)


def test_pays_from_needs_every_larger_one_to_pay():
    assert pays_from([(1, near(1.2)), (2, near(1.0)), (4, near(1.3)), (8, near(1.4))]) == 4
    assert pays_from([(1, near(1.2)), (2, near(1.3))]) == 1
    assert pays_from([(1, near(1.2)), (2, near(0.9))]) is None
    assert pays_from([(1, near(1.2)), (2, None)]) == 1


def test_an_unknown_family_is_an_error():
    with pytest.raises(FlopbenchError, match="unknown family"):
        sweep_widths(plan(family="cnn"))


@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_one_width_is_measured_for_real(pass_: Any):
    (_, cell), *_ = plan(widths=(16,), passes=(pass_,), batches=(1,)).cells()
    options = {"width": 16, "depth": 1, "heads": 2}
    result = measure_width(lambda kind, value: None, cell, options, 0.05)
    assert result["macs_ratio"] > 1.3
    assert result["speedup"].low <= result["speedup"].estimate <= result["speedup"].high
    assert result["baseline_seconds"] > 0
