import io

import pytest
from rich.console import Console

from flopbench.pairs import Pair
from flopbench.profiling.explain import explain, remainder, shortfalls, speed_ups
from flopbench.profiling.page import profile_command, profile_stem, write_profile
from flopbench.profiling.tables import all_tables, group_table
from flopbench.results import Bound, Interval, ModelProfile, OperatorTime, Peaks, ProfileRecord


def profiled(
    *, products: float = 6e-3, elementwise: float = 2e-3, seconds: float = 9e-3, mode: str = "eager"
) -> ProfileRecord:
    """X in 12 ms, 10 of them products; E(X) with half the FLOPs."""
    baseline = ModelProfile(
        label="X",
        seconds=12e-3,
        groups={"matrix products": 10e-3, "elementwise": 1.9e-3},
        flops=2e9,
        bytes_moved=1e7,
        parts={"head": 12e-3},
        bound=Bound(arithmetic=8e-3, unfused=9e-3, fused=8.4e-3, launches=1e-4, operators=100),
    )
    candidate = ModelProfile(
        label="E(X)",
        seconds=seconds,
        groups={"matrix products": products, "elementwise": elementwise},
        flops=1e9,
        bytes_moved=1e7,
        parts={"head": 8e-3},
        bound=Bound(arithmetic=4e-3, unfused=5.5e-3, fused=4.4e-3, launches=5e-4, operators=500),
    )
    return ProfileRecord.model_validate(
        {
            "cell": {
                "pair": Pair.of("vit_s16.flop"),
                "device": "cpu",
                "batch_size": 4,
                "pass": "forward",
                "dtype": "fp32",
                "mode": mode,
            },
            "baseline": baseline,
            "candidate": candidate,
            "speedup": Interval(estimate=1.33, low=1.31, high=1.35),
            "calls": 8,
            "peaks": Peaks(
                flops_per_second={"fp32": 2.5e11}, copy_bytes_per_second=1e10, launch_seconds=1e-6
            ),
        }
    )


def test_the_four_speed_ups():
    ups = speed_ups(profiled())
    assert ups is not None
    assert ups.promised == pytest.approx(2)
    assert ups.allowed_fused == pytest.approx(8.4 / 4.4)
    # On a CPU launches come on top of the work.
    assert ups.allowed_unfused == pytest.approx(9.1 / 6.0)
    assert ups.measured == pytest.approx(1.33)


def test_shortfalls_add_up_to_what_is_missing():
    record = profiled()
    missing = record.candidate.seconds - record.baseline.seconds / 2
    assert sum(shortfalls(record).values()) == pytest.approx(missing)
    assert shortfalls(record)["matrix products"] == pytest.approx(1e-3)


def test_words_name_the_larger_cause_first_and_follow_the_figures():
    words = " ".join(explain(profiled()))
    assert "promise 2.00× over X" in words
    assert "Measured (eager) it is 1.33× (95 % interval 1.31 to 1.35)" in words
    assert "A call takes 9.00 ms where the MACs promise 6.00 ms" in words
    assert words.index("elementwise work") < words.index("matrix products, which run slower")
    # 1e9 FLOPs in 6 ms of a peak of 250 GFLOP/s.
    assert "67 % in the candidate" in words
    slower = " ".join(explain(profiled(products=5e-3, elementwise=3.5e-3)))
    assert "matrix products, which run slower" not in slower
    assert "elementwise work" in slower


def test_nothing_is_missing_where_the_promise_is_kept():
    words = " ".join(explain(profiled(products=5e-3, elementwise=1e-3, seconds=6e-3)))
    assert "Nothing is missing" in words


def test_a_remainder_is_shown_with_its_sign():
    record = profiled(products=8e-3)
    assert remainder(record.candidate) == pytest.approx(-1e-3)
    lines = group_table(record).markdown().replace("\u00a0", " ").splitlines()
    unexplained, measured = lines[-2:]
    assert unexplained.startswith("| unexplained | 100 µs | – | 1 % | −1.00 ms |")
    assert measured.startswith("| measured | 12.0 ms |")
    assert "negative where the profiler" in " ".join(explain(record))


def test_compiled_networks_have_no_launches_in_their_words():
    assert "starts 500 operators" in " ".join(explain(profiled()))
    assert "operators, the baseline" not in " ".join(explain(profiled(mode="compile")))


def on_a_gpu(mode: str, *busy: float, kernels: float = 300) -> ProfileRecord:
    """The same on CUDA, where the groups are what the device is busy for."""
    record = profiled(mode=mode)
    models = {}
    for role, seconds in zip(("baseline", "candidate"), busy, strict=True):
        ran = OperatorTime(name="aten::addmm", group="matrix products", seconds=seconds, calls=kernels)
        changes = {"groups": {ran.group: seconds}, "operators": (ran,), "busy_seconds": seconds}
        models[role] = getattr(record, role).model_copy(update=changes)
    cell = record.cell.model_copy(update={"device": "cuda"})
    return record.model_copy(update={"cell": cell, **models})


def test_a_device_that_waits_for_the_host_is_what_is_missing_and_no_disturbance():
    record = on_a_gpu("eager", 11.4e-3, 4.5e-3)
    words = " ".join(explain(record))
    assert "come from time in which the device is idle (4.20 ms)" in words
    assert "idle for 5 % of the baseline's call and for 50 % of the candidate's, of 300 and 300" in words
    assert "one by one: at the measured 1.00 µs each that takes 300 µs and 300 µs per call" in words
    assert "--mode cuda-graph" in words
    for other in ("Profile again", "unexplained", "Eagerly the candidate starts", "add up"):
        assert other not in words
    lines = group_table(record).markdown().replace("\u00a0", " ").splitlines()
    assert lines[-2].startswith("| idle | 600 µs | – | 5 % | 4.50 ms |")


def test_a_busy_device_and_the_gaps_of_a_graph_are_told_apart_from_it():
    assert "launching them hides behind their work" in " ".join(explain(on_a_gpu("compile", 11.9e-3, 8.9e-3)))
    words = " ".join(explain(on_a_gpu("cuda-graph", 11e-3, 7e-3)))
    assert "which a graph launches at once" in words
    assert "one by one" not in words


def test_kernels_that_take_longer_than_the_call_are_a_disturbance():
    assert "Profile again" in " ".join(explain(on_a_gpu("compile", 11.9e-3, 12e-3)))


def test_launches_bound_fused_layers_on_cuda_alone():
    launches = {"fused_launches": 8e-3, "fused_operators": 80}
    for record, allowed in ((profiled(), 8.4 / 4.4), (on_a_gpu("compile", 11e-3, 8e-3), 8.4 / 8)):
        models = {
            role: (model := getattr(record, role)).model_copy(
                update={"bound": model.bound.model_copy(update=launches)}
            )
            for role in ("baseline", "candidate")
        }
        ups = speed_ups(record.model_copy(update=models))
        assert ups is not None
        assert ups.allowed_fused == pytest.approx(allowed)


def test_a_page_of_a_gpu_says_how_kernels_are_named(tmp_path):
    notes = "go by their own names"
    assert notes in write_profile(on_a_gpu("cuda-graph", 11e-3, 7e-3), tmp_path).read_text(encoding="utf-8")
    assert notes not in write_profile(profiled(), tmp_path).read_text(encoding="utf-8")


def test_what_ran_is_said_where_it_was_recorded():
    record = profiled()
    assert "ran as" not in " ".join(explain(record))
    ran = {"attention": {"cpp": "bf16"}, "linear": {"cpp": "as asked"}, "layer_norm": {"torch": "as asked"}}
    updated = {
        "baseline": record.baseline.model_copy(update={"implementations": {}}),
        "candidate": record.candidate.model_copy(update={"implementations": ran}),
    }
    assert explain(record.model_copy(update=updated))[-2:] == [
        "X ran as torch, with no operation of flopbench's.",
        "E(X) ran as cpp: attention, linear; torch: layer_norm.",
    ]


def test_other_kernels_than_usual_are_in_the_files_name_and_in_the_command():
    record = profiled()
    unusual = record.model_copy(update={"cell": record.cell.model_copy(update={"impl": "eager"})})
    assert profile_stem(unusual) == f"{profile_stem(record)}-eager-kernels"
    assert "--impl" not in profile_command(record)
    assert profile_command(unusual).endswith(" --impl eager --device cpu")


def test_the_page_is_linked_deterministic_and_holds_its_data(tmp_path):
    record = profiled()
    page = write_profile(record, tmp_path / "one")
    again = write_profile(record, tmp_path / "two")
    files = sorted(file.name for file in page.parent.iterdir())
    assert {"profile.md", "profile.json", "speed-ups.svg", "time-by-operator.svg"} <= set(files)
    for name in files:
        assert (page.parent / name).read_bytes() == (again.parent / name).read_bytes()
    text = page.read_text(encoding="utf-8")
    for name in files:
        assert name == "profile.md" or f"({name})" in text
    assert explain(record)[0] in text.replace("\\", "")
    assert ProfileRecord.model_validate_json((page.parent / "profile.json").read_bytes()) == record
    assert len(all_tables(record)) == 3


def test_a_disturbed_profile_draws_no_conclusions():
    words = " ".join(explain(profiled(products=20e-3)))
    assert "Profile again when the machine is idle" in words
    assert "promise 2.00×" in words
    assert "come from" not in words
    assert "of the measured peak" not in words


def test_tables_keep_their_figures_whole_on_a_narrow_terminal():
    console = Console(width=80, record=True, file=io.StringIO())
    for table in all_tables(profiled()):
        console.print(table)
    shown = console.export_text().replace("\u00a0", " ")
    assert "…" not in shown
    assert "1.67×" in shown
