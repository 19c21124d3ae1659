import math
from functools import partial

import pytest
import torch
from typer.testing import CliRunner

from flopbench.cli import app
from flopbench.errors import FlopbenchError
from flopbench.models import heads
from flopbench.models.factory import create_model
from flopbench.models.single import KINDS
from flopbench.suites import available_suites, load_suite
from flopbench.symmetries.irreps import IrrepLinear
from flopbench.testing import verify
from flopbench.testing.verify import Candidate, candidates, verify_model, verify_suite

SUITE = """
title = "Small"
pairs = ["vit_ti16.flop", "vit_ti16.hybrid", "convnext_iso_s.flop@vit_ti16.early_invariant"]
[profiles.cpu]
batch_sizes = [1]
[profiles.cpu.quick]
pairs = ["resmlp_t12.flop"]
"""


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SUITE, encoding="utf-8")
    return str(path)


@pytest.fixture
def shallow(monkeypatch):
    """Networks of two blocks, which are checked as deep ones are."""
    monkeypatch.setattr(verify, "create_model", partial(create_model, depth=2))


def names(found: list[Candidate]) -> list[str]:
    assert all(not candidate.options for candidate in found)
    return [candidate.name for candidate in found]


def test_candidates_are_all_that_promise_a_symmetry(suite):
    assert names(candidates(suite)) == [
        "vit_ti16.flop",
        "vit_ti16.hybrid",
        "vit_ti16.early_invariant",
        "convnext_iso_s.flop",
    ]
    assert names(candidates(suite, quick=True)) == ["resmlp_t12.flop"]


def test_all_suites_cover_every_pair():
    everything = {candidate.name for candidate in candidates("all")}
    for name in available_suites():
        pairs = [pair for profile in load_suite(name).profiles.values() for pair in profile.pairs]
        assert {pair.candidate for pair in pairs if "." in pair.candidate} <= everything


def test_paper_suite_has_the_papers_protocol():
    profile = load_suite("paper").profile("cuda")
    assert len(profile.pairs) == 11
    cells = list(profile.cells("cuda"))
    assert {(c.batch_size, c.pass_, c.dtype, c.mode) for c in cells} == {
        (64, "forward", "autocast-fp16", "max-autotune")
    }
    assert [cell.attention for cell in cells if cell.pair.candidate == "vit_b16.flop"] == ["unfused", "fused"]


@pytest.mark.usefixtures("shallow")
def test_a_table_line_a_network_and_exit_code_0(suite):
    result = CliRunner().invoke(app, ["verify", "--suite", suite, "--quick"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    (line,) = (line.split() for line in lines if "resmlp_t12.flop" in line)
    assert line[:3] == ["resmlp_t12.flop", "classification", "logits"]
    assert line[-1] == "ok"
    assert lines[-1].startswith("1 of 1 networks have their symmetry")


DENSE = """
title = "Dense"
[defaults]
tasks = ["classification", "features", "segmentation"]
attention = ["fused", "unfused"]
widths = [48]
depths = [2]
image_sizes = [64, 128]
[profiles.cpu]
pairs = ["vit_ti16.flop"]
batch_sizes = [1, 2]
passes = ["train"]
[profiles.cpu.full]
pairs = ["vit_ti16.octic"]
tasks = ["features"]
[profiles.cuda]
pairs = ["vit_ti16.hybrid@vit_ti16.tta"]
tasks = ["segmentation"]
batch_sizes = [1]
"""


def test_networks_are_verified_in_each_of_their_tasks(tmp_path):
    path = tmp_path / "dense.toml"
    path.write_text(DENSE, encoding="utf-8")
    found = candidates(str(path))
    assert [(candidate.name, candidate.options.get("task")) for candidate in found] == [
        *(("vit_ti16.flop", task) for task in (None, "features", "segmentation")),
        ("vit_ti16.tta", "segmentation"),
        ("vit_ti16.hybrid", "segmentation"),
        ("vit_ti16.octic", "features"),
    ]
    result = CliRunner().invoke(app, ["verify", "--suite", str(path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines() if line.strip().startswith("vit_ti16")]
    whats = ["logits", "features", "segmentation", "segmentation", "half", "features"]
    assert [line[-6] for line in lines] == whats
    assert "segmentation, linear decoder, width 48, depth 2" in result.output
    assert "6 of 6 networks have their symmetry" in result.output


def test_pixels_at_other_places_are_found_and_only_where_they_are_not_square(monkeypatch):
    name, options = "vit_ti16.early_invariant", {"task": "segmentation", "width": 48, "depth": 2}
    to_pixels = heads.to_pixels

    def shifted(x, size):
        return to_pixels(x, size).roll(int(size[0] != size[1]), -1)

    monkeypatch.setattr(heads, "to_pixels", shifted)
    result = verify_model(name, **options)
    assert (result.what, result.broken) == ("segmentation", ("flop",))
    assert verify_model(name, 64, **options).passed


@pytest.mark.slow
def test_a_broken_symmetry_is_found_and_exit_code_3(suite, monkeypatch):
    forward = IrrepLinear.forward

    def broken(self, x):
        y = forward(self, x)
        return y._replace(s=y.s + 1e-3 * x.a[..., :1]) if y.a is not None else y

    monkeypatch.setattr(IrrepLinear, "forward", broken)
    results = {result.candidate.name: result for result in verify_suite(suite)}
    assert not any(result.passed for result in results.values())
    assert results["vit_ti16.hybrid"].what == "first half"
    monkeypatch.setattr("flopbench.testing.verify.verify_suite", lambda *_, **__: iter(results.values()))
    result = CliRunner().invoke(app, ["verify", "--suite", suite])
    assert result.exit_code == 3
    assert result.output.count("FAILED") == 4
    assert "0 of 4 networks" in result.output


@pytest.mark.usefixtures("shallow")
def test_outputs_that_are_not_finite_never_pass(monkeypatch):
    forward = IrrepLinear.forward
    monkeypatch.setattr(IrrepLinear, "forward", lambda self, x: _poisoned(forward(self, x)))
    for name in ("vit_ti16.flop", "vit_ti16.hybrid"):
        result = verify_model(name, 32)
        assert not result.passed
        assert any(math.inf in errors.values() for errors in result.errors.values())


def _poisoned(y):
    return y._replace(s=torch.full_like(y.s, math.nan))


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_verified_on_the_features_that_they_take(kind):
    result = verify_model(f"{kind}_192.flop")
    assert result.what == "layer"
    assert result.passed


@pytest.mark.parametrize("name", ["vit_b16", "torch.nn:Linear"])
def test_networks_without_a_symmetry_are_refused(name):
    with pytest.raises(FlopbenchError, match="promises no symmetry"):
        verify_model(name)


def test_a_suite_without_symmetric_networks_is_refused(tmp_path):
    path = tmp_path / "none.toml"
    path.write_text(
        'title = "None"\npairs = ["torch.nn:Linear@torch.nn:Conv2d"]\n[profiles.cpu]\nbatch_sizes = [1]\n'
    )
    with pytest.raises(FlopbenchError, match="has no network with a symmetry"):
        candidates(str(path))
