"""`flopbench.evaluate` from end to end, with tiny networks on small sets."""

import json
from importlib.util import find_spec

import pytest
import torch

import flopbench
from flopbench.errors import FlopbenchError
from flopbench.models.factory import perturb
from flopbench.results.trainings import EvaluationRecord, NetworkInfo
from flopbench.training.weights import save_weights

pytestmark = pytest.mark.skipif(find_spec("sklearn") is None, reason="the digits are scikit-learn's")
SMALL = {"patch_size": 4, "width": 48, "depth": 2, "heads": 3}


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
    return flopbench.evaluate(
        name,
        weights,
        data="digits",
        device="cpu",
        results=tmp_path / "results",
        **{"cell_seconds": 0, **options},
    )


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


def test_batches_do_not_change_what_is_found(weights, tmp_path):
    path = weights("vit_ti16")
    some, others = (
        evaluate("vit_ti16", path, tmp_path, batch_size=size).records[0].accuracy for size in (7, 1000)
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


def test_the_process_is_as_it_was(weights, tmp_path):
    path = weights("vit_ti16")
    precision, state = torch.get_float32_matmul_precision(), torch.get_rng_state()
    evaluate("vit_ti16", path, tmp_path, dtype="tf32")
    assert torch.get_float32_matmul_precision() == precision
    assert torch.equal(torch.get_rng_state(), state)
