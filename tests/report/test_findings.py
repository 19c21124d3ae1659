"""The answer in words says what the intervals allow, no more."""

import re

import pytest

from flopbench.report.cells import headline, measured, rows_of, tops, verdict
from flopbench.report.findings import answer
from flopbench.results import UNRESOLVED, Flag, to_frame
from flopbench.runner.progress import describe_record
from tests.support.runs import CPU, make_run


def answer_of(run):
    rows = rows_of(to_frame([run]))
    return answer(run.info.id, run.info.environment.device_name, measured(rows), len(rows))


def test_one_pair_is_answered_in_one_sentence(tmp_path):
    run = make_run(tmp_path / "r", pairs=("vit_l16.flop",), batch_sizes=(1, 8, 64), modes=("compile",))
    row = next(r for r in rows_of(to_frame([run])) if r["batch_size"] == 64 and r["pass"] == "forward")
    text = answer_of(run).headline
    assert text.startswith("On an NVIDIA H200 (bf16, compiled), E(ViT-L/16) needs 52 % of the MACs of ViT-L")
    times = (
        f"{row['speedup']:.2f}× as fast (95 % interval {row['speedup_low']:.2f} to {row['speedup_high']:.2f})"
    )
    assert f"runs {times} forward at batch 64" in text
    assert f"; {100 * row['realised_share']:.0f} % of what the MACs promise is realised" in text
    assert text.endswith("below batch 8 it is launch-bound.")


@pytest.mark.parametrize(
    ("slowdown", "said", "unsaid"),
    [
        (1.0, "runs 1.5", "slower"),
        (2.0, "is slower: it runs 0.7", "% of what the MACs promise"),
        # A candidate as fast as its baseline: the interval holds 1.
        (1.0 / 0.65, "neither faster nor slower as far as can be told", "promise is realised"),
    ],
)
def test_the_verdict_follows_from_the_interval(tmp_path, slowdown, said, unsaid):
    run = make_run(
        tmp_path / "r",
        device=CPU,
        pairs=("vit_b16.flop",),
        batch_sizes=(4,),
        modes=("compile",),
        passes=("forward",),
        overhead=0.252,
        slowdown=slowdown,
        rounds=20,
    )
    text = answer_of(run).headline
    assert said in text
    assert unsaid not in text


@pytest.mark.parametrize(
    ("slow", "said"),
    [
        ({}, "Forward at batch 4, depth 4, equivariance pays at every width measured, from 192 to 1024."),
        ({"*/width192/*": 9.0, "*/width384/*": 9.0}, "equivariance pays from width 768 on."),
        ({"*/width192/*": 9.0, "*/width768/*": 9.0}, "equivariance pays at width 384 and width 1024 alone."),
        ({"*/width1024/*": 9.0}, "equivariance pays up to width 768."),
        ({"*": 9.0}, "pays at no width measured; at the largest, 1024, it costs time."),
    ],
)
def test_from_which_width_on_it_pays(tmp_path, slow, said):
    run = make_run(
        tmp_path / "r",
        device=CPU,
        pairs=("vit_s16.flop",),
        batch_sizes=(4,),
        modes=("compile",),
        passes=("forward",),
        axes={"widths": [192, 384, 768, 1024], "depths": [4]},
        slowdown=slow,
    )
    found = answer_of(run)
    assert any(point.endswith(said) for point in found.points), found.points
    assert "E(ViT-384×4/16)" in " ".join(found.points)


def test_of_several_pairs_it_is_said_which_pays(tmp_path):
    run = make_run(
        tmp_path / "r",
        device=CPU,
        pairs=("vit_s16.flop", "vit_s16.octic"),
        batch_sizes=(4,),
        modes=("compile",),
        passes=("forward",),
        axes={"widths": [192, 384]},
    )
    said = [point for point in answer_of(run).points if "at every width" in point]
    assert said == [
        f"Forward at batch 4, vit_s16.{name} pays at every width measured, from 192 to 384."
        for name in ("flop", "octic")
    ]


def test_the_setting_is_that_of_the_fastest_baseline(tmp_path):
    run = make_run(tmp_path / "r", pairs=("vit_s16.flop", "vit_b16.flop"), batch_sizes=(8,))
    text = answer_of(run)
    assert text.headline.startswith("On an NVIDIA H200 (bf16, compiled)")
    assert any(point.startswith("Bf16, eager: forward speed-up") for point in text.points)


def test_a_setting_that_few_pairs_were_measured_in_is_not_the_headline(tmp_path):
    run = make_run(
        tmp_path / "r",
        pairs=("vit_s16.flop", "vit_b16.flop"),
        batch_sizes=(8,),
        statuses={"vit_b16.flop/*/compile": "skipped"},
    )
    text = answer_of(run)
    assert "(bf16, eager)" in text.headline
    assert "6 of 8 cells have a speed-up; the others are listed below with the reason." in text.points


def test_best_and_worst_are_named_only_where_told_apart(tmp_path):
    apart = make_run(
        tmp_path / "a", pairs=("vit_b16.flop", "vit_b16.hybrid"), batch_sizes=(64,), modes=("compile",)
    )
    said = " ".join(answer_of(apart).points)
    assert re.search(r"E\(ViT-B/16\) gains most \(1\.5\d×\), H\(ViT-B/16\) gains least \(1\.1\d×\)\.", said)
    pairs = ("vit_b16.flop", "vit_l16.flop")
    level = make_run(tmp_path / "b", pairs=pairs, batch_sizes=(64,), modes=("compile",), noise=0.2)
    assert any("cannot be told apart" in point for point in answer_of(level).points)


def test_other_pass_is_taken_at_its_own_largest_batch(tmp_path):
    run = make_run(
        tmp_path / "r",
        pairs=("vit_h14.flop",),
        batch_sizes=(8, 64),
        modes=("compile",),
        statuses={"*/b64/backward/*": "oom"},
    )
    assert "backward at batch 8" in answer_of(run).headline


def test_nothing_measured_is_said(tmp_path):
    run = make_run(tmp_path / "r", pairs=("vit_s16.flop",), batch_sizes=(1,), statuses={"*": "failed"})
    assert answer_of(run).headline == "On an NVIDIA H200, no cell has a speed-up."


def test_what_is_not_resolved_is_no_headline_and_realises_nothing(tmp_path):
    wide = Flag(kind=UNRESOLVED, message="the interval is ±80 %", remedy="a quieter machine")
    run = make_run(
        tmp_path / "r", pairs=("vit_b16.flop", "vit_l16.flop"), batch_sizes=(64,), flags={"vit_b16*": wide}
    )
    answer = answer_of(run)
    assert "E(ViT-L/16)" in answer.headline
    assert "E(ViT-B/16)" not in " ".join((answer.headline, *answer.points))
    unresolved = [row for row in rows_of(to_frame([run])) if row["pair"] == "vit_b16.flop"]
    assert {(row["status"], row["reason"], row["realised_share"]) for row in unresolved} == {
        ("not resolved", "the interval is ±80 %; try a quieter machine", None)
    }
    assert all(row["speedup"] for row in unresolved)
    (described,) = {describe_record(r).partition("  not resolved: ")[2] for r in run.records() if r.flags}
    assert described == "the interval is ±80 %; try a quieter machine"


@pytest.mark.parametrize(
    ("flagged", "which"), [("vit_b16*", "1 of these 2 is"), ("*", "Both of these are"), ("none", "")]
)
def test_flags_of_what_the_answer_rests_on_are_said(tmp_path, flagged, which):
    run = make_run(
        tmp_path / "r",
        pairs=("vit_b16.flop", "vit_l16.flop"),
        batch_sizes=(64,),
        flags={flagged: Flag(kind="noisy", message="", remedy="")},
    )
    said = [point for point in answer_of(run).points if "flagged" in point]
    assert said == ([f"{which} flagged (noisy): see below what to take with care."] if which else [])


@pytest.mark.parametrize(
    ("low", "estimate", "high", "expected"),
    [
        (1.01, 1.2, 1.4, "faster"),
        (0.99, 1.2, 1.4, "level"),
        (0.7, 0.8, 1.01, "level"),
        (0.7, 0.8, 0.99, "slower"),
        (1.0, 1.0, 1.0, "level"),
    ],
)
def test_only_an_interval_that_excludes_one_decides(low, estimate, high, expected):
    assert verdict({"speedup_low": low, "speedup": estimate, "speedup_high": high}) == expected


def both_worlds(path, pairs, **options):
    axes = {"impls": ("eager", "auto")}
    return make_run(path, device=CPU, pairs=pairs, modes=("compile",), batch_sizes=(4,), axes=axes, **options)


def test_both_worlds_are_in_the_first_sentence(tmp_path):
    said = answer_of(both_worlds(tmp_path / "r", ("vit_s16.flop", "vit_b16.flop"), ours=1.5))
    assert said.headline.startswith(
        "On an Intel Xeon @ 2.80 GHz (fp32, compiled), both candidates run faster"
    )
    assert "with flopbench's kernels and between" in said.headline
    assert "with torch's own operations, with between 5" in said.headline
    over = next(point for point in said.points if point.startswith("ViT-B/16 itself"))
    assert re.fullmatch(
        r"ViT-B/16 itself runs 1\.[45]\d× as fast with flopbench's kernels as with torch's own operations, "
        r"forward at batch 4 \(medians of separate processes\)\.",
        over,
    )


def test_the_best_of_both_networks_are_compared_over_all_modes_and_kernels(tmp_path):
    """The baseline is fastest in one process, the candidate in another: neither speed-up is that of both."""

    def own_best(row):
        ours = row["impl"] == "auto"
        row["baseline_seconds"], row["candidate_seconds"] = (0.3, 0.1) if ours else (0.15, 0.12)
        row["flags"] = "" if ours else "noisy"

    run = both_worlds(tmp_path / "r", ("vit_b16.flop",), ours=1.5)
    assert rows_with(run, own_best).best == (
        "Best against best, forward at batch 4: E(ViT-B/16) (fp32, compiled, with flopbench's kernels, "
        "100 ms) is 1.50× as fast as ViT-B/16 (fp32, compiled, with torch's own operations, 150 ms), medians "
        "of separate processes; flagged (noisy).",
    )


def test_the_best_in_one_process_keep_their_interval_and_one_setting_needs_no_such_line(tmp_path):
    run = make_run(tmp_path / "r", pairs=("vit_l16.flop",), batch_sizes=(64,), passes=("forward",))
    row = next(row for row in measured(rows_of(to_frame([run]))) if row["mode"] == "compile")
    (said,) = answer_of(run).best
    assert f"is {row['speedup']:.2f}× as fast" in said
    assert said.endswith(f"95 % interval {row['speedup_low']:.2f} to {row['speedup_high']:.2f}.")
    one = make_run(tmp_path / "one", pairs=("vit_l16.flop",), batch_sizes=(64,), modes=("compile",))
    assert answer_of(one).best == ()
    assert answer_of(one).in_short == answer_of(one).headline


def test_many_pairs_that_are_fastest_as_they_are_compared_share_a_sentence(tmp_path):
    pairs = tuple(f"vit_{size}.flop" for size in ("ti16", "s16", "b16", "l16"))
    run = both_worlds(tmp_path / "r", pairs, ours=1.5)
    assert answer_of(run).best == (
        "Best against best, forward at batch 4: all candidates and their baselines are fastest as they are "
        "compared here (fp32, compiled, with flopbench's kernels).",
    )

    def but_for_one(row):
        if row["impl"] == "eager" and row["baseline_label"] == "ViT-L/16":
            row["candidate_seconds"] = 1e-3

    own, shared = rows_with(run, but_for_one).best
    assert "E(ViT-L/16) (fp32, compiled, with torch's own operations, 1.00 ms)" in own
    assert ": E(ViT-Ti/16), E(ViT-S/16), E(ViT-B/16) and their baselines are fastest as" in shared


def test_modes_of_other_arithmetic_are_not_the_best_of_this_one(tmp_path):
    run = make_run(
        tmp_path / "r",
        pairs=("vit_l16.flop",),
        batch_sizes=(64,),
        dtypes=("fp32", "bf16"),
        modes=("compile",),
    )
    assert answer_of(run).best == ()


def test_each_world_of_a_pair_has_its_own_passes_and_promise(tmp_path):
    said = answer_of(both_worlds(tmp_path / "r", ("vit_b16.flop",), ours=1.5)).headline
    _, ours, torchs = re.split("with flopbench's kernels it|with torch's own operations it", said)
    for world in (ours, torchs):
        assert re.search(
            r"runs [\d.]+× as fast \(95 % interval [\d. to]+\) forward at batch 4, and runs [\d.]+× as fast "
            r"\([\d. to]+\) backward, \d+ % of what the MACs promise is realised",
            world,
        )


def test_a_world_of_one_is_named_and_what_was_not_recorded_is_not(tmp_path):
    one = make_run(tmp_path / "a", device=CPU, pairs=("vit_b16.flop",), modes=("eager",), ours=1.5)
    start = "On an Intel Xeon @ 2.80 GHz (fp32, eager, with torch's own operations), E("
    assert answer_of(one).headline.startswith(start)
    unnamed = answer_of(both_worlds(tmp_path / "b", ("vit_b16.flop",)))
    assert "operations" not in unnamed.headline
    assert "flopbench's kernels" not in unnamed.headline
    assert "Fp32, compiled, eager kernels: forward" in " ".join(unnamed.points)


def rows_with(run, change):
    rows = [dict(row) for row in measured(rows_of(to_frame([run])))]
    for row in rows:
        change(row)
    return answer("r", "CPU", rows, len(rows))


def test_nothing_is_lost_where_a_setting_is_of_two_worlds(tmp_path):
    """As on many threads, where attention of few heads stays torch's."""
    run = both_worlds(tmp_path / "r", ("vit_s16.flop", "vit_b16.flop"), ours=1.5)

    def small_in_torch(row):
        if row["pair"] == "vit_s16.flop":
            row["world"] = "with torch's own operations"

    said = rows_with(run, small_in_torch)
    assert "both candidates" in said.headline
    assert "× auto kernels and between" in said.headline
    assert {point[:11] for point in said.points} >= {"E(ViT-S/16)", "E(ViT-B/16)"}


def test_half_a_world_is_told_apart(tmp_path):
    run = both_worlds(
        tmp_path / "r",
        ("vit_s16.flop", "vit_b16.flop"),
        ours=1.5,
        statuses={"vit_b16.flop/*eager-kernels": "skipped"},
    )
    said = answer_of(run)
    assert "(fp32, compiled, with flopbench's kernels)" in said.headline
    assert "torch" not in said.headline
    assert any(point.startswith("Fp32, compiled, with torch's own operations: ") for point in said.points)


def test_the_same_world_asked_for_twice_is_told_apart(tmp_path):
    def all_in_torch(row):
        row["world"] = "with torch's own operations"

    said = rows_with(both_worlds(tmp_path / "r", ("vit_b16.flop",), ours=1.5), all_in_torch)
    assert "with torch's own operations)" in said.headline
    others = [point for point in said.points if point.startswith("Fp32")]
    assert len(others) == 1


def test_flags_of_either_world_are_told(tmp_path):
    noisy = Flag(kind="noisy", message="wide", remedy="wait")
    run = both_worlds(tmp_path / "r", ("vit_b16.flop",), ours=1.5, flags={"*/forward/*eager-kernels": noisy})
    assert any("flagged (noisy)" in point for point in answer_of(run).points)


def test_energy_is_said_where_it_is_known(tmp_path):
    known = make_run(tmp_path / "r", pairs=("vit_l16.flop",), watts=(600.0, 450.0))
    (top,) = tops(headline(measured(rows_of(to_frame([known])))))
    share = 100 * 0.75 * top["candidate_seconds"] / top["baseline_seconds"]
    said = [point for point in answer_of(known).points if "energy" in point]
    assert said == [
        f"E(ViT-L/16) takes {share:.0f} % of the energy of ViT-L/16, forward at batch 64 "
        "(the card's, on average 450 W against 600 W)."
    ]
    unknown = answer_of(make_run(tmp_path / "s", pairs=("vit_l16.flop",)))
    assert not [point for point in unknown.points if "energy" in point]
