"""`flopbench.profile`: of a pair by its name, and of what is given from Python."""

import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import flopbench
from flopbench.errors import FlopbenchError
from flopbench.profiling import given
from flopbench.results import Calibration, Peaks, ProfileRecord, write_record
from flopbench.runner.process import Outcome
from tests.support.runs import CPU, make_run


class Scores(nn.Module):
    """Token ids and a mask in, a dict out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(11, width), nn.Linear(width, 8)

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        features = self.mix(self.embed(tokens)) * mask[..., None]
        return {"features": features, "loss": features.square().mean()}


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    peaks = Peaks(flops_per_second={"fp32": 1e11}, copy_bytes_per_second=1e10, launch_seconds=1e-6)
    write_record(tmp_path / "calibration.json", Calibration(peaks=peaks))
    return tmp_path / "calibration.json"


TOKENS = {"tokens": torch.arange(15).reshape(3, 5) % 11, "mask": torch.ones(3, 5)}


def test_networks_of_ones_own_are_profiled_in_a_fresh_process(calibration: Path, tmp_path: Path):
    phases: list[str] = []
    profiled = flopbench.profile(
        Scores(16),
        Scores(8),
        TOKENS,
        loss="loss",
        pass_="backward",
        device="cpu",
        seconds=0.05,
        calibration=calibration,
        progress=phases.append,
    )
    record = profiled.record
    assert (record.cell.batch_size, record.cell.dtype, record.cell.pass_) == (3, "fp32", "backward")
    assert (record.baseline.label, record.candidate.label) == ("Scores", "Scores (candidate)")
    assert not record.flags
    assert any(phase.endswith(": profile the candidate") for phase in phases)
    frame = profiled.frame()
    assert set(frame["role"]) == {"baseline", "candidate"}
    assert float(frame["seconds"].to_numpy().sum()) == pytest.approx(
        sum(sum(model.groups.values()) for model in (record.baseline, record.candidate))
    )
    for shown in (str(profiled), profiled._repr_html_()):
        assert "Where the time goes" in shown
        assert "Scores (candidate)" in shown
    page = profiled.report(tmp_path / "reports").read_text(encoding="utf-8")
    assert "flopbench.profile(baseline, candidate, inputs, batch_size=3, pass_='backward'" in page
    run = make_run(tmp_path / "run", device=CPU, pairs=("vit_s16.flop",), batch_sizes=(1,))
    stored = profiled.save(run.path)
    assert ProfileRecord.model_validate_json(stored.read_bytes()) == record
    assert list(run.profiles()) == [record]


def test_what_does_not_pickle_is_profiled_here_and_that_is_said(calibration: Path):
    class Locked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.lock = threading.Lock()

    network = Locked().train()
    profiled = flopbench.profile(
        network,
        Locked(),
        torch.ones(2, 4),
        device="cpu",
        seconds=0.05,
        calibration=calibration,
        progress=False,
    )
    assert [flag.kind for flag in profiled.record.flags] == ["in-process"]
    assert any(sentence.startswith("in-process: ") for sentence in profiled.sentences)
    assert network.training


@pytest.mark.parametrize(
    ("arguments", "axes", "message"),
    [
        ((nn.Identity(),), {}, "one network is no pair: give a candidate, too"),
        (("vit_s16",), {}, "has no baseline"),
        (("vit_s16.flop",), {"batch_sizes": 3}, "unknown argument 'batch_sizes'; did you mean batch_size"),
        (("vit_s16.flop",), {"device": "tpu"}, "device 'tpu': choose cpu or cuda"),
        (("vit_s16.flop",), {"calibration": "absent.json"}, "no calibration file at absent.json"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[object, ...], axes: dict[str, object], message: str):
    with pytest.raises(FlopbenchError, match=message):
        flopbench.profile(*arguments, progress=False, **axes)  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_a_pair_by_its_name_has_the_cell_of_the_command(monkeypatch: pytest.MonkeyPatch):
    asked = []

    class Launch:
        flags = ()

        def on(self, device: str) -> "Launch":
            return self

        def __call__(self, job: object, request: object, **options: object) -> Outcome:
            asked.append(request)
            return Outcome("error", "stop here")

    monkeypatch.setattr(given, "launcher_of", lambda objects, threads: nullcontext(Launch()))
    with pytest.raises(FlopbenchError, match="stop here"):
        flopbench.profile("vit_s16.flop@vit_ti16", device="cpu", image_size="224x192", progress=False)
    assert asked[0].cell.id == "vit_s16.flop@vit_ti16/cpu/b4/forward/fp32/eager/224x192"
    assert asked[0].cell.pair.perturb
