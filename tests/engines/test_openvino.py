"""OpenVINO gives what torch gives, from files that it reads alone, in the precision and threads asked for."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

pytest.importorskip("openvino")

from flopbench.engines import Request, deploy, engine, write
from flopbench.engines.needs import missing_engine
from flopbench.engines.openvino import OpenVino, OpenVinoSession, layers
from flopbench.errors import FlopbenchError
from flopbench.models.factory import perturb
from tests.models.networks import build_shallow

OURS = [("vit", "flop"), ("resmlp", "flop"), ("convnext", "flop")]
quantises = pytest.mark.skipif(find_spec("nncf") is None, reason="needs nncf")


def images(batch_size, seed=0):
    return torch.randn(batch_size, 3, 8, 12, generator=torch.Generator().manual_seed(seed))


def network(family, version):
    return perturb(build_shallow(family, version), 0).eval()


def largest(x, of):
    return float((x - of).abs().max() / of.abs().max())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file and torch's output, by family and version."""
    made = {}

    def get(family="vit", version="flop"):
        if (family, version) not in made:
            path = tmp_path_factory.mktemp("openvino") / "network.xml"
            model = network(family, version)
            with torch.no_grad():
                wanted = model(images(5))
            write(OpenVino(), model, (images(1),), path, Request(about={"model": "a b", "licence": "MIT"}))
            made[family, version] = path, wanted
        return made[family, version]

    return get


@pytest.mark.parametrize(("family", "version"), [("vit", "plain"), *OURS])
def test_it_gives_what_torch_gives_at_other_batch_sizes(written, family, version):
    path, wanted = written(family, version)
    session = OpenVino().load(path, Request(), 1)
    assert largest(session(images(5)), wanted) < 1e-5
    assert largest(session(images(5)[:2]), wanted[:2]) < 1e-5
    if version == "flop":
        plain = session(images(5)).clone()
        assert largest(session(images(5).flip(-1)), plain) < 1e-5


def test_nothing_is_copied(written):
    session = OpenVino().load(written()[0], Request(), 1)
    x = images(2)
    first = session(x)
    assert session.request.get_input_tensor().data.ctypes.data == x.data_ptr()
    assert session(x).data_ptr() == first.data_ptr()


def test_images_in_any_layout(written):
    path, wanted = written()
    session = OpenVino().load(path, Request(), 1)
    assert largest(session(images(5).to(memory_format=torch.channels_last)), wanted) < 1e-5


ALONE = """
import sys
import numpy as np, openvino
core = openvino.Core()
model = core.read_model(sys.argv[1])
assert model.get_rt_info("model").astype(str) == "a b", "about is lost"
assert model.get_rt_info("licence").astype(str) == "MIT", "about is lost"
compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
np.save(sys.argv[3], compiled(np.load(sys.argv[2]))[0])
assert not [name for name in sys.modules if name.split(".")[0] in ("flopbench", "torch")]
"""


def test_a_file_says_what_it_is_and_runs_without_flopbench(written, tmp_path):
    np = pytest.importorskip("numpy")
    path, wanted = written()
    given, gives = tmp_path / "given.npy", tmp_path / "gives.npy"
    np.save(given, images(5).numpy())
    command = [sys.executable, "-c", ALONE, str(path), str(given), str(gives)]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert largest(torch.from_numpy(np.load(gives)), wanted) < 1e-5


def test_fp32_and_threads_are_what_was_asked_for(written):
    session = OpenVino().load(written()[0], Request(), 1)
    products = [precision for kind, precision in layers(session).elements() if kind == "FullyConnected"]
    assert set(products) == {"f32"}
    assert session.compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert session.compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_layers_tell_norms_that_were_recognised(written):
    session = OpenVino().load(written("vit", "plain")[0], Request(), 1)
    assert layers(session)["MVN", "f32"] == 5


def test_bf16_where_the_cpu_has_it(written, monkeypatch):
    import openvino

    path, wanted = written()
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        session = OpenVino().load(path, Request("bf16"), 1)
        assert ("FullyConnected", "bf16") in layers(session)
        assert 1e-5 < largest(session(images(5)), wanted) < 5e-2

    class Old:
        def get_property(self, *_):
            return ["FP32"]

    monkeypatch.setattr(openvino, "Core", Old)
    with pytest.raises(FlopbenchError, match="openvino has no bf16 on this CPU: choose --dtype fp32 or int8"):
        OpenVino().load(path, Request("bf16"), 1)


@quantises
@pytest.mark.parametrize(("family", "version"), [("vit", "plain"), *OURS, ("convnext", "plain")])
def test_int8_is_near_fp32_and_as_invariant(family, version):
    model = network(family, version)
    with torch.no_grad():
        wanted = model(images(5))
    given = [(images(1, seed),) for seed in range(8)]
    found = deploy("openvino", model, (images(5),), Request("int8", calibration=given), threads=1)
    output = found.session(images(5)).clone()
    assert isinstance(found.session, OpenVinoSession)
    assert ("FullyConnected", "i8") in layers(found.session)
    assert 1e-4 < float((output - wanted).norm() / wanted.norm()) < 0.35
    if version == "flop":
        # What rounds to another whole number in fp32 is another step of int8; there is little of that here.
        assert largest(found.session(images(5).flip(-1)), output) < 1e-2


def test_the_record_counts_both_files(written):
    path, _ = written()
    found = deploy("openvino", network("vit", "flop"), (images(1),), Request(), threads=1)
    weights = path.with_suffix(".bin").stat().st_size
    assert OpenVino().files(path) == (path, path.with_suffix(".bin"))
    assert found.record.disk_bytes > weights + 1000
    assert found.record.engine == "openvino"
    assert found.record.version == engine("openvino").version()
    assert found.record.provider
    assert found.record.threads == 1


def test_int8_alone_needs_nncf(monkeypatch):
    monkeypatch.setattr("flopbench.engines.needs.find_spec", lambda name: None if name == "nncf" else name)
    assert missing_engine("openvino", "cpu", "fp32") is None
    assert missing_engine("openvino", "cpu", "int8") == (
        "int8 in openvino needs nncf: pip install 'flopbench[openvino]'"
    )


@quantises
def test_quantisers_treat_both_signs_alike(tmp_path):
    import openvino

    path = tmp_path / "network.xml"
    request = Request("int8", calibration=[(images(1, seed),) for seed in range(2)])
    write(OpenVino(), network("vit", "flop"), (images(1),), path, request)
    quantisers = [
        op for op in openvino.Core().read_model(path).get_ops() if op.get_type_name() == "FakeQuantize"
    ]
    assert quantisers
    for one in quantisers:
        low, high = (one.input_value(i).get_node().get_data() for i in (1, 2))
        assert (low == -high).all()
        assert one.get_attributes()["levels"] == 255
