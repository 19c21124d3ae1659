import pytest

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.modes import Mode
from flopbench.pairs import Pair
from flopbench.profiling.predict import check_lines, check_prediction, predict, write_check
from flopbench.profiling.roofline import Work, least_seconds, peak_of
from flopbench.results import Bound, Calibration, Peaks, write_atomically
from tests.support.runs import make_run

SMALL = {"width": 32, "depth": 1}
COMPUTE = Peaks(flops_per_second={"fp32": 1e9}, copy_bytes_per_second=1e15, launch_seconds=1e-6)
MEMORY = Peaks(flops_per_second={"fp32": 1e18}, copy_bytes_per_second=1e9, launch_seconds=1e-6)


def cell(**changes: object) -> Cell:
    fields = {
        "pair": Pair.of("vit_s16.flop"),
        "device": "cpu",
        "batch_size": 1,
        "pass": "forward",
        "dtype": "fp32",
        "mode": "eager",
        "image_size": (32, 32),
        "num_classes": 10,
    }
    return Cell.model_validate({**fields, **changes})


def test_without_limits_of_memory_a_network_takes_its_arithmetic():
    work = Work("vit_s16", cell(**SMALL))
    bound = work.bound(COMPUTE)
    assert bound.unfused == pytest.approx(2 * work.macs / 1e9, rel=1e-6)
    assert bound.fused == pytest.approx(bound.arithmetic, rel=1e-6)
    assert bound.launches == pytest.approx(work.operators * 1e-6)
    assert sum(unfused for unfused, _ in bound.parts.values()) == pytest.approx(bound.unfused)


def test_without_limits_of_arithmetic_it_takes_its_bytes_and_fusing_saves_some():
    work = Work("vit_s16.flop", cell(**SMALL))
    bound = work.bound(MEMORY)
    assert bound.unfused == pytest.approx(work.bytes_moved("eager") / 1e9, rel=1e-6)
    assert bound.fused == pytest.approx(work.bytes_moved("compile") / 1e9, rel=1e-6)
    assert bound.fused < bound.unfused


def test_caches_shorten_what_fits_into_them():
    cached = MEMORY.model_copy(update={"cached_copies": ((1 << 30, 2e9),)})
    work = Work("vit_s16", cell(**SMALL))
    assert work.bound(cached).fused == pytest.approx(work.bound(MEMORY).fused / 2)


def test_a_training_step_is_bounded_with_its_optimiser():
    bound = Work("vit_s16", cell(**{"pass": "train"}, **SMALL)).bound(MEMORY)
    assert bound.parts["(optimiser)"][0] > 0
    assert bound.fused > Work("vit_s16", cell(**SMALL)).bound(MEMORY).fused


def test_launches_add_on_a_cpu_and_overlap_on_cuda():
    bound = Bound(arithmetic=1.0, unfused=3.0, fused=2.0, launches=4.0)
    assert least_seconds(bound, "cpu", "eager") == 7.0
    assert least_seconds(bound, "cuda", "eager") == 4.0
    assert least_seconds(bound, "cuda", "compile") == 2.0


@pytest.mark.parametrize(
    ("mode", "seconds"),
    [
        # Ten operators at 0.5 s on the device, or their launches; five layers; a graph's one launch.
        ("eager", 9.0),
        ("compile", 4.5),
        ("compile-blocks", 4.5),
        ("cuda-graph", 3.5),
        ("max-autotune", 3.5),
    ],
)
def test_on_cuda_the_longer_of_host_and_device_counts(mode: Mode, seconds: float):
    bound = Bound(
        arithmetic=1.0,
        unfused=2.0,
        fused=1.0,
        launches=9.0,
        operators=10,
        fused_launches=4.5,
        fused_operators=5,
        kernel_seconds=0.5,
    )
    assert least_seconds(bound, "cuda", mode) == seconds
    assert least_seconds(bound, "cpu", mode) == (11.0 if mode == "eager" else 1.0)
    on_a_slower_device = bound.model_copy(update={"kernel_seconds": 1.0})
    assert least_seconds(on_a_slower_device, "cuda", mode) == (12.0 if mode == "eager" else 6.0)


def test_a_network_and_its_twin_have_as_many_fused_layers_and_unlike_operators():
    works = [Work(name, cell(**SMALL)) for name in ("vit_s16", "vit_s16.flop")]
    assert works[0].operators < works[1].operators
    assert works[0].fused_operators == works[1].fused_operators
    bound = works[0].bound(COMPUTE.model_copy(update={"kernel_seconds": 2e-6}))
    assert bound.fused_launches == pytest.approx(works[0].fused_operators * 1e-6)
    assert bound.kernel_seconds == 2e-6


def test_a_small_batch_promises_nothing_where_launching_takes_longer():
    peaks = COMPUTE.model_copy(update={"launch_seconds": 1.0})
    small = cell(**SMALL, device="cuda", mode="compile")
    assert predict(small, peaks).predicted == pytest.approx(1.0)
    assert predict(small.model_copy(update={"mode": "cuda-graph"}), peaks).predicted > 1.5


def test_a_dtype_without_a_peak_is_named():
    assert peak_of(Peaks(flops_per_second={"bf16": 2.0}, copy_bytes_per_second=1.0), "autocast-bf16") == 2.0
    with pytest.raises(FlopbenchError, match="no matrix products in fp16, only in fp32"):
        peak_of(COMPUTE, "fp16")


def test_predictions_over_widths():
    peaks = Peaks(flops_per_second={"fp32": 1e11, "bf16": 4e11}, copy_bytes_per_second=1e10)
    small = cell(pair=Pair.of("resmlp_t12.flop"))
    narrow, wide = (small.model_copy(update={"width": width}) for width in (64, 256))
    assert predict(narrow, peaks).predicted < predict(wide, peaks).predicted
    # Where nothing but arithmetic takes time, the prediction is the promise.
    alone = predict(small.model_copy(update={"mode": "compile"}), COMPUTE)
    assert alone.predicted == pytest.approx(alone.promised, rel=1e-6)


def test_the_prediction_is_checked_against_every_measured_cell_with_peaks(tmp_path):
    common = {"pairs": ("vit_ti16.flop",), "batch_sizes": (1,), "passes": ("forward",), "rounds": 4}
    calibrated = make_run(tmp_path / "a", modes=("eager",), **common)
    alike = make_run(tmp_path / "b", modes=("compile",), **common)
    elsewhere = make_run(tmp_path / "c", modes=("compile",), device_name="Another GPU", **common)
    with pytest.raises(FlopbenchError, match="flopbench calibrate"):
        check_prediction([calibrated])
    peaks = Peaks(flops_per_second={"bf16": 1e9}, copy_bytes_per_second=1e15)
    content = Calibration(peaks=peaks).model_dump_json(by_alias=True)
    write_atomically(calibrated.path / "calibration.json", content)
    checked, left_out = check_prediction([calibrated, alike, elsewhere])
    assert not left_out
    assert [check.run for check in checked] == ["a", "b"]
    # No memory limits: the promise of the MACs.
    assert checked[1].predicted == pytest.approx(1.745, abs=0.02)
    assert checked[1].error == pytest.approx(abs(checked[1].predicted / checked[1].measured - 1))
    middle = 50 * sum(check.error for check in checked)
    assert f"off by {middle:.1f} % in the median" in check_lines(checked, left_out)[0]
    page = write_check(checked, left_out, tmp_path / "out").read_text(encoding="utf-8")
    assert "in 2 runs" in page


def test_cells_of_networks_that_cannot_be_built_here_are_left_out_and_named(tmp_path):
    common = {"pairs": ("vit_ti16.flop",), "batch_sizes": (1,), "passes": ("forward",), "modes": ("eager",)}
    ours, theirs = (make_run(tmp_path / name, rounds=4, **common) for name in ("ours", "theirs"))
    peaks = Peaks(flops_per_second={"bf16": 1e9}, copy_bytes_per_second=1e15)
    write_atomically(
        theirs.path / "calibration.json", Calibration(peaks=peaks).model_dump_json(by_alias=True)
    )
    cells = (theirs.path / "cells.jsonl").read_text(encoding="utf-8")
    write_atomically(
        theirs.path / "cells.jsonl", cells.replace('"baseline":"vit_ti16"', '"baseline":"absent:network"')
    )
    with pytest.raises(FlopbenchError, match="absent"):
        check_prediction([theirs])
    checked, left_out = check_prediction([theirs, ours])
    assert [check.run for check in checked] == ["ours"]
    assert list(left_out) == ["absent:network"]
    assert check_lines(checked, left_out)[1].startswith("Left out: cells of absent:network (")
