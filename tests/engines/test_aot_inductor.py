"""AOTInductor: what it compiles gives torch's output, for any batch size, and loads without flopbench."""

import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from flopbench.engines import Request, aot_inductor, deploy, engine, write
from flopbench.errors import FlopbenchError
from flopbench.kernels.inductor import missing_compiler
from flopbench.models.factory import perturb
from flopbench.symmetries import FLOP
from flopbench.testing.invariance import TOLERANCE, equivariance_error
from tests.models.networks import build_shallow

ABOUT = {"model": "E(ViT)", "licence": "Apache-2.0"}


def compiles(test):
    """Marks what compiles a network, which takes half a minute or more."""
    without = pytest.mark.skipif(missing_compiler() is not None, reason="no C++ compiler is installed")
    return pytest.mark.slow(without(test))


def images(batch):
    return torch.randn(batch, 3, 8, 12, generator=torch.Generator().manual_seed(batch))


def network():
    return perturb(build_shallow("vit", "flop").eval())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One file for all tests, for a C++ compiler takes its time."""
    path = tmp_path_factory.mktemp("aot") / "network.pt2"
    request = Request(about=ABOUT)
    one = engine("aot-inductor")
    ran = write(one, network(), (images(1),), path, request)
    session = one.load(path, request, torch.get_num_threads())
    return SimpleNamespace(path=path, ran=ran, session=session)


@compiles
@pytest.mark.parametrize("batch", [1, 2, 8])
@torch.no_grad()
def test_any_batch_gives_what_torch_gives(exported, batch):
    x = images(batch)
    torch.testing.assert_close(exported.session(x), network()(x), atol=1e-5, rtol=1e-5)


@compiles
def test_the_engine_keeps_the_symmetry(exported):
    assert equivariance_error(exported.session, images(3), FLOP.generators) < TOLERANCE["fp32"]


@compiles
def test_only_torchs_own_operators_are_exported(exported):
    assert {name for implementations in exported.ran.values() for name in implementations} <= {
        "torch",
        "batched",
    }


@compiles
def test_the_file_says_what_it_is_and_holds_no_sources(exported):
    assert exported.session.get_metadata().items() >= ABOUT.items()
    assert [path.name for path in exported.path.parent.iterdir()] == [exported.path.name]
    with zipfile.ZipFile(exported.path) as package:
        assert any(name.endswith(".so") for name in package.namelist())
        sources = [name for name in package.namelist() if name.endswith(".cpp")]
        assert {package.read(name) for name in sources} == {b"\n"}


@compiles
def test_a_process_without_flopbench_loads_the_file(exported, tmp_path):
    torch.save(images(2), tmp_path / "images.pt")
    script = (
        "import sys, torch; sys.modules['flopbench'] = None\n"
        "session = torch._inductor.aoti_load_package('network.pt2')\n"
        "torch.save(session(torch.load('images.pt')), 'logits.pt')\n"
    )
    (tmp_path / "network.pt2").write_bytes(exported.path.read_bytes())
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, env={"PATH": ""})
    assert torch.equal(torch.load(tmp_path / "logits.pt"), exported.session(images(2)))


@compiles
@torch.no_grad()
def test_bf16_is_computed_in_bf16():
    x = images(2).bfloat16()
    deployed = deploy("aot-inductor", network().bfloat16(), (x,), Request("bf16"))
    logits = deployed.session(x)
    assert logits.dtype == torch.bfloat16
    want = network()(x.float())
    assert (logits - want).abs().max() < 0.1 * want.std()
    assert deployed.record.disk_bytes > 0
    assert deployed.record.version == torch.__version__


def test_without_a_compiler_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(aot_inductor, "missing_compiler", lambda: "g++ or clang++")
    with pytest.raises(FlopbenchError, match=r"needs a C\+\+ compiler \(g\+\+ or clang\+\+\): install one"):
        write(engine("aot-inductor"), nn.Linear(2, 2), (torch.ones(2, 2),), tmp_path / "x.pt2", Request())


def test_what_cannot_be_compiled_is_told_in_one_line(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("no such operator\nand a long story")

    monkeypatch.setattr(aot_inductor, "missing_compiler", lambda: None)
    monkeypatch.setattr(aot_inductor, "aoti_compile_and_package", fail)
    with pytest.raises(FlopbenchError, match=r"aot-inductor cannot compile it: .*no such operator") as raised:
        write(engine("aot-inductor"), nn.Linear(2, 2), (torch.ones(2, 2),), tmp_path / "x.pt2", Request())
    assert "\n" not in str(raised.value)
