"""ONNX files, and ONNX Runtime on them."""

import os
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from flopbench.engines import Request, deploy, write
from flopbench.errors import FlopbenchError
from flopbench.models.factory import perturb
from tests.models.networks import build_shallow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from flopbench.engines.onnx_file import OPSET, files  # noqa: E402
from flopbench.engines.onnxruntime import OnnxRuntime, options  # noqa: E402

SIZE = (8, 12)


def images(batch, seed=0):
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


class Pointwise(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def network(family="vit", version="flop", **given):
    return perturb(build_shallow(family, version, **given).eval())


@torch.no_grad()
def written(model, path, request=None, inputs=None):
    """What the network gives for its inputs, three images, and the session of its file."""
    request, engine = request or Request(), OnnxRuntime()
    inputs = images(3) if inputs is None else inputs
    want = model(inputs)
    write(engine, model, (inputs[:2],), path, request)
    return want, engine.load(path, request, 2)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A file, what torch gives for three images, and a session."""
    path = tmp_path_factory.mktemp("vit") / "vit.onnx"
    about = {"model": "E(ViT)", "licence": "Apache-2.0"}
    return path, *written(network(), path, Request(about=about))


@pytest.mark.parametrize(
    ("family", "version", "given"),
    [
        ("resmlp", "flop", {}),
        ("convnext", "flop", {}),
        ("vit", "flop", {"task": "segmentation"}),
        pytest.param("vit", "octic", {"image_size": (8, 8)}, marks=pytest.mark.slow),
    ],
)
def test_networks_give_what_torch_gives(family, version, given, tmp_path):
    inputs = images(3)[..., : given.get("image_size", SIZE)[1]]
    want, session = written(network(family, version, **given), tmp_path / "network.onnx", inputs=inputs)
    torch.testing.assert_close(session(inputs), want, rtol=1e-4, atol=1e-5)


def test_any_batch_size_is_served_by_one_file(vit):
    _, want, session = vit
    torch.testing.assert_close(session(images(3)), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(session(images(3)[:1]), want[:1], rtol=1e-4, atol=1e-5)


def test_logits_are_invariant_in_the_engine_and_outlast_the_next_call(vit):
    _, _, session = vit
    first = session(images(3))
    kept = first.clone()
    mirrored = session(images(3).flip(-1))
    torch.testing.assert_close(mirrored, first, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(session(images(3, seed=1)), first, atol=1e-2)
    assert torch.equal(first, kept)


def test_a_file_says_what_it_is_and_names_what_goes_in_and_out(vit):
    path, _, _ = vit
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert {one.key: one.value for one in model.metadata_props} == {
        "model": "E(ViT)",
        "licence": "Apache-2.0",
        "opset": str(OPSET),
    }
    assert [shape_of(one) for one in model.graph.input] == [("images", ["batch", 3, *SIZE])]
    assert [shape_of(one) for one in model.graph.output] == [("logits", ["batch", 5])]
    # Every size that goes with the batch is named by it.
    symbols = {size for one in model.graph.value_info for size in shape_of(one)[1] if isinstance(size, str)}
    assert symbols
    assert all("batch" in symbol for symbol in symbols)


def shape_of(value):
    return value.name, [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]


def test_a_file_holds_no_path_and_no_line_of_source(vit):
    path, _, _ = vit
    content = path.read_bytes()
    assert b"site-packages" not in content
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"forward" not in content


SERVE = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
numpy.save(sys.argv[3], session.run(["logits"], {"images": numpy.load(sys.argv[2])})[0])
assert not {"flopbench", "torch"} & set(sys.modules)
"""


def test_a_file_is_served_without_flopbench_and_torch(vit, tmp_path):
    import numpy

    path, want, _ = vit
    given, got = tmp_path / "images.npy", tmp_path / "logits.npy"
    numpy.save(given, images(3).numpy())
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", SERVE, path, given, got],
        check=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
    )
    torch.testing.assert_close(torch.from_numpy(numpy.load(got)), want, rtol=1e-4, atol=1e-5)


def test_weights_that_lie_beside_the_file_are_loaded(monkeypatch, tmp_path):
    from torch.onnx._internal.exporter import _onnx_program

    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 1)
    path = tmp_path / "network.onnx"
    want, session = written(nn.Conv2d(3, 64, 1).eval(), path)
    assert files(path) == OnnxRuntime().files(path) == [path, tmp_path / "network.onnx.data"]
    torch.testing.assert_close(session(images(3)), want, rtol=1e-4, atol=1e-5)


def test_a_file_that_holds_its_weights_is_alone(vit):
    path, _, _ = vit
    assert OnnxRuntime().files(path) == [path]


def test_what_is_deployed_counts_all_its_bytes_and_says_what_runs_it(monkeypatch):
    sizes = []
    write_file = OnnxRuntime.write

    def with_another_file(self, program, path, request):
        write_file(self, program, path, request)
        path.with_name(f"{path.name}.data").write_bytes(bytes(1000))
        sizes.append(path.stat().st_size)

    monkeypatch.setattr(OnnxRuntime, "write", with_another_file)
    deployed = deploy("onnxruntime", Pointwise(torch.relu), (images(2),), Request(), threads=1)
    assert deployed.record.disk_bytes == sizes[0] + 1000
    assert deployed.record.provider == "CPUExecutionProvider"
    assert deployed.record.version == onnxruntime.__version__
    assert deployed.record.threads == 1


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_session_has_the_threads_that_it_is_given(threads, vit):
    path, _, _ = vit
    before = len(os.listdir("/proc/self/task"))
    session = OnnxRuntime().load(path, Request(), threads)
    session(images(2))
    # The caller is one of them.
    assert len(os.listdir("/proc/self/task")) == before + threads - 1


def test_threads_stop_spinning_when_a_call_ends():
    assert options(2).get_session_config_entry("session.force_spinning_stop") == "1"


def operators(path, folder):
    """How many nodes of each type remain when ONNX Runtime has optimised a file."""
    made = options(1)
    made.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), made, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(made.optimized_model_filepath).graph.node)


def test_the_norms_and_gelus_of_a_plain_network_are_found(tmp_path):
    path = tmp_path / "plain.onnx"
    written(network(version="plain"), path)
    found = operators(path, tmp_path)
    assert found["LayerNormalization"] == 5
    assert found["BiasGelu"] == 2
    # The exporter leaves these where constants are not folded.
    assert not {"SplitToSequence", "Cast", "CastLike", "Sqrt"} & set(found)


def test_what_runs_in_its_idiom_has_its_kernels(tmp_path):
    """As many norms as a plain network has, each one kernel, and GELUs without scales between."""
    path = tmp_path / "flop.onnx"
    written(network(), path)
    found = operators(path, tmp_path)
    assert found["LayerNormalization"] == 5
    assert found["Gelu"] == 4
    # What enters the blocks is centred, once for all norms.
    assert found["ReduceMean"] == 2
    assert not {"Pow", "Sqrt", "Reciprocal"} & set(found)


def test_int8_comes_near_to_torch_and_keeps_the_symmetry(tmp_path):
    request = Request(dtype="int8", calibration=[(images(8, seed=seed),) for seed in (1, 2)])
    model = network(width=64, num_classes=10)
    weights = sum(p.numel() for p in model.parameters())
    path = tmp_path / "int8.onnx"
    want, session = written(model, path, request)
    got, mirrored, scale = session(images(3)), session(images(3).flip(-1)), want.std()
    assert 0 < (got - want).abs().max() / scale < 0.2
    assert (got - mirrored).abs().max() / scale < 0.1
    assert path.stat().st_size < 4 * weights
    found = operators(path, tmp_path)
    assert found["QLinearMatMul"] >= 16
    assert found["Softmax"] == 2


def test_what_onnx_lacks_is_told_in_one_line(tmp_path):
    with pytest.raises(FlopbenchError, match=r"^torch.onnx cannot take Pointwise: .*bessel_j0") as raised:
        write(
            OnnxRuntime(),
            Pointwise(torch.special.bessel_j0),
            (images(2),),
            tmp_path / "network.onnx",
            Request(),
        )
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


class Two(nn.Module):
    def forward(self, left, right):
        return left + right, left.flatten(1).mean(1)


def test_several_inputs_and_outputs_keep_their_order(tmp_path):
    path = tmp_path / "network.onnx"
    engine, left, right = OnnxRuntime(), images(2), images(2, seed=1)
    write(engine, Two(), (left, right), path, Request())
    total, mean = engine.load(path, Request(), 1)(left, right)
    torch.testing.assert_close(total, left + right)
    torch.testing.assert_close(mean, left.flatten(1).mean(1))
    names = [one.name for one in onnx.load(str(path)).graph.input]
    assert names == ["left", "right"]


def test_exporting_says_nothing(tmp_path, capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE[0] * SIZE[1], 4))
        written(model.eval(), tmp_path / "network.onnx", Request(dtype="int8", calibration=[(images(4),)]))
    assert not caught
    assert capfd.readouterr() == ("", "")
