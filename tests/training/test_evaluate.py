"""`flopbench.evaluate` from end to end, with tiny networks on small sets."""

import json
from importlib.util import find_spec
from typing import ClassVar

import pytest
import torch
from PIL import Image
from torch import nn

import flopbench
from flopbench.errors import FlopbenchError
from flopbench.kernels.inductor import missing_compiler
from flopbench.models.factory import perturb
from flopbench.results.trainings import EvaluationRecord, NetworkInfo
from flopbench.training.weights import save_weights

pytestmark = pytest.mark.skipif(find_spec("sklearn") is None, reason="the digits are scikit-learn's")
SMALL = {"patch_size": 4, "width": 24, "depth": 1, "heads": 3}


@pytest.fixture
def weights(tmp_path):
    """A file of weights for a name, which says which network it is of."""

    def make(name: str, num_classes: int = 10, **options):
        network = perturb(flopbench.create_model(name, 8, num_classes, **{**SMALL, **options}))
        path = tmp_path / f"{name}.safetensors"
        about = NetworkInfo(
            name=name,
            options={**SMALL, **options},
            image_size=(8, 8),
            num_classes=num_classes,
            mean=(0.3,) * 3,
            std=(0.4,) * 3,
        )
        save_weights(path, network.state_dict(), about)
        return path

    return make


def evaluate(name, weights, tmp_path, **options):
    usual = {"data": "digits", "device": "cpu", "results": tmp_path / "results", "cell_seconds": 0}
    return flopbench.evaluate(name, weights, **{**usual, **options})


@pytest.mark.parametrize("name", ["vit_ti16", "vit_ti16.flop"])
def test_a_network_is_evaluated_and_recorded(name, weights, tmp_path):
    (record,) = evaluate(name, weights(name), tmp_path, batch_size=100, cell_seconds=0.2).records
    (file,) = (tmp_path / "results").glob("*/evaluation.json")
    assert EvaluationRecord.model_validate_json(file.read_bytes()) == record
    assert file.parent.name == record.id
    assert record.id.startswith(f"evaluate-{name}-digits-cpu-")
    assert (record.name, record.data.name, record.accuracy.images) == (name, "digits", record.data.images)
    assert record.options == SMALL
    assert (record.accuracy.averaged is None) == (name == "vit_ti16.flop")
    assert record.throughput
    assert 0 < record.throughput.low <= record.throughput.estimate <= record.throughput.high
    assert len(record.samples) >= 4
    assert record.implementations
    assert record.macs
    assert str(tmp_path) not in json.dumps(record.model_dump(mode="json"))


def test_an_invariant_network_loses_nothing_on_mirror_images(weights, tmp_path):
    found = [evaluate(n, weights(n), tmp_path).records[0].accuracy for n in ("vit_ti16.flop", "vit_ti16")]
    assert found[0].flip_consistency == 1
    assert found[0].mirrored.nll == pytest.approx(found[0].plain.nll, rel=1e-5)
    assert found[1].mirrored.nll != pytest.approx(found[1].plain.nll, rel=1e-5)


def test_int8_is_calibrated_on_the_images_and_scored_in_its_engine(weights, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("flopbench.engines.onnxruntime")
    seen = []
    write = runtime.OnnxRuntime.write

    def observed(engine, program, path, request):
        seen.extend(len(images) for (images,) in request.calibration)
        write(engine, program, path, request)

    monkeypatch.setattr(runtime.OnnxRuntime, "write", observed)
    path = weights("vit_ti16.flop")
    how = {"mode": "onnxruntime", "dtype": "int8"}
    (whole,), (quantised,) = (
        evaluate("vit_ti16.flop", path, tmp_path, **given).records for given in ({}, how)
    )
    assert 64 < sum(seen) <= 128
    assert whole.deployed is None
    assert quantised.deployed is not None
    assert quantised.deployed.engine == "onnxruntime"
    assert quantised.deployed.first_call_seconds
    assert quantised.accuracy.plain.nll != whole.accuracy.plain.nll
    assert quantised.accuracy.plain.nll == pytest.approx(whole.accuracy.plain.nll, rel=0.05)
    assert quantised.accuracy.flip_consistency > 0.98


def test_batches_do_not_change_what_is_found(weights, tmp_path):
    path = weights("vit_ti16")
    some, others = (
        evaluate("vit_ti16", path, tmp_path, batch_size=size).records[0].accuracy for size in (60, 1000)
    )
    assert some.plain.top1 == others.plain.top1
    assert some.averaged
    assert others.averaged
    assert some.averaged.nll == pytest.approx(others.averaged.nll, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_ti16.hybrid", {}, "holds the weights of vit_ti16, not of vit_ti16.hybrid"),
        ("vit_ti16", {"options": {"depth": 3}}, "leave them out"),
        ("vit_ti16", {"batch_size": 0}, "batch_size"),
        ("vit_ti16", {"dtype": "fp8"}, "dtype: input should be 'fp32'"),
        ("vit_ti16", {"data": "cifar"}, "cifar"),
        ("vit_ti16", {"weights": "missing.pt"}, "no checkpoint at missing.pt"),
        ("vit_ti16", {"weights": None}, "vit_ti16 has no trained weights"),
        ("vit_ti16", {"weights": "pretrained"}, "pretrained weights are timm's"),
        ("vit_ti99", {}, "unknown model 'vit_ti99'"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(name, options, message, weights, tmp_path):
    given = {"weights": weights("vit_ti16"), "data": "digits", "results": tmp_path / "results", **options}
    with pytest.raises(FlopbenchError) as caught:
        flopbench.evaluate(name, device="cpu", cell_seconds=0, **given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("dtype", ["bf16", "autocast-bf16"])
def test_half_precision_is_what_is_evaluated(dtype, weights, tmp_path):
    path = weights("vit_ti16.flop")
    full, half = (
        evaluate("vit_ti16.flop", path, tmp_path, dtype=one).records[0].accuracy for one in ("fp32", dtype)
    )
    assert half.plain.nll != full.plain.nll
    assert half.plain.nll == pytest.approx(full.plain.nll, rel=0.1)
    assert half.flip_consistency > 0.9


class Linear(nn.Module):
    """Somebody's network; `shapes` are those that it was compiled, or called, for."""

    shapes: ClassVar[list[tuple[int, ...]]] = []

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * 8 * 8, classes)

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        return self.linear(images.flatten(1))


NETWORK = f"{__name__}:Linear"


@pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
def test_what_is_compiled_is_compiled_for_one_batch_size(tmp_path):
    eager = evaluate(NETWORK, None, tmp_path, image_size=8, batch_size=100).records[0]
    assert (eager.weights, eager.label) == ("its own", NETWORK)
    Linear.shapes.clear()
    compiled = evaluate(NETWORK, None, tmp_path, image_size=8, batch_size=100, mode="compile").records[0]
    assert {shape[0] for shape in Linear.shapes if shape[0] > 1} == {100}
    assert compiled.accuracy.plain.nll == pytest.approx(eager.accuracy.plain.nll, rel=1e-4)
    assert compiled.mode == "compile"


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (NETWORK, {"options": {"classes": 7}}, "digits has 10 classes, the network 7"),
        (NETWORK, {"image_size": 9}, "does not take images"),
        ("torch.nn:Identity", {}, "no logits"),
    ],
)
def test_networks_that_are_no_classifiers_of_the_data(network, options, message, tmp_path):
    with pytest.raises(FlopbenchError, match=message):
        evaluate(network, None, tmp_path, **{"image_size": 8, **options})


def test_test_time_augmentation_is_scored_when_asked_for(weights, tmp_path):
    invariant, plain = weights("vit_ti16.flop"), weights("vit_ti16")
    assert evaluate("vit_ti16.flop", invariant, tmp_path, tta=True).records[0].accuracy.averaged
    assert evaluate("vit_ti16", plain, tmp_path, tta=False).records[0].accuracy.averaged is None


def test_a_folder_of_photographs_named_by_their_labels(weights, tmp_path):
    generator = torch.Generator().manual_seed(0)
    for label, count in ((2, 3), (7, 4)):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for number in range(count):
            pixels = torch.randint(256, (20, 30, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / str(label) / f"{number}.png")
    found = evaluate("vit_ti16", weights("vit_ti16"), tmp_path, data=str(tmp_path / "photos"), workers=0)
    (record,) = found.records
    assert (record.data.name, record.data.images, record.accuracy.images) == ("photos", 7, 7)
    assert record.mean == pytest.approx((0.3,) * 3)
    with pytest.raises(FlopbenchError, match="is none of the network's 5 classes"):
        evaluate("vit_ti16", weights("vit_ti16", 5), tmp_path, data=str(tmp_path / "photos"))


def test_the_process_is_as_it_was(weights, tmp_path):
    path = weights("vit_ti16")
    precision, state = torch.get_float32_matmul_precision(), torch.get_rng_state()
    # Fp32 is evaluated in full precision.
    torch.set_float32_matmul_precision("high")
    try:
        evaluate("vit_ti16", path, tmp_path, dtype="fp32")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(torch.get_rng_state(), state)
