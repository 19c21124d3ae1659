"""Operations that inductor fuses on a CPU, against the eager ones that are their source."""

import pytest
import torch
from torch._functorch import config as functorch
from torch.autograd import gradcheck

from flopbench.errors import FlopbenchError
from flopbench.kernels import dispatch, inductor, layer_norm
from flopbench.kernels.gelu import gelu
from flopbench.runner.worker import require_compiler
from tests.kernels.agreement import TRANSFORMS, assert_agrees, fused_cell, normal
from tests.models.networks import build_shallow

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def norm(s, a, gain_s, gain_a, bias, impl):
    return layer_norm.layer_norm_parts((s, a), (gain_s, gain_a, bias), 1e-6, (1, 1), impl)


def add_norm(s, a, branch_s, branch_a, gamma_s, gamma_a, gain_s, gain_a, bias, impl):
    gammas = () if gamma_s is None else (gamma_s, gamma_a)
    given = (s, a), (branch_s, branch_a), gammas, (gain_s, gain_a, bias)
    return layer_norm.add_layer_norm_parts(*given, 1e-6, (1, 1), impl)


def gelu_of_parts(*given):
    return gelu(given[:-1], TRANSFORMS[len(given) - 1], "gelu", given[-1])


# Features and vectors of an operation.
OPERATIONS = {
    "norm": (norm, 2 * [0], 3),
    "add_norm": (add_norm, 4 * [0], 5),
    "gelu": (gelu_of_parts, 2 * [0], 0),
    "token_gelu": (gelu_of_parts, 4 * [0], 0),
}


def inputs(name, batch, tokens, channels, dtype=torch.float64):
    _, features, vectors = OPERATIONS[name]
    return [normal(batch, tokens + more, channels, dtype=dtype) for more in features] + [
        normal(channels, dtype=dtype) for _ in range(vectors)
    ]


@pytest.mark.parametrize("name", OPERATIONS)
def test_values_and_gradients(no_triton, name):
    operation = OPERATIONS[name][0]
    # One compilation serves all sizes.
    for size in ((2, 3, 5), (3, 4, 40), (2, 2, 100)):
        assert_agrees(operation, inputs(name, *size))
    # It goes through the graph once for every output.
    with functorch.patch(donated_buffer=False):
        assert gradcheck(lambda *given: operation(*given, "fused"), inputs(name, 2, 3, 5))


@pytest.mark.parametrize("name", ["add_norm", "gelu"])
def test_half_precision(no_triton, name):
    assert_agrees(OPERATIONS[name][0], inputs(name, 2, 3, 40, torch.bfloat16))


def test_each_kind_of_tensor_has_its_own(no_triton):
    def double(x):
        return x * 2

    wide, flat = torch.ones(2, 3), torch.ones(6)
    assert inductor.compiled(double, wide) is inductor.compiled(double, wide + 1)
    versions = {inductor.compiled(double, x) for x in (wide, flat, wide.double())}
    with torch.no_grad():
        versions.add(inductor.compiled(double, wide))
    assert len(versions) == 4


def test_a_network(no_triton):
    images = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    fused = build_shallow("vit").eval()
    eager = build_shallow("vit").eval()
    eager.load_state_dict(fused.state_dict())
    dispatch.select(fused, "fused")
    with torch.no_grad():
        torch.testing.assert_close(fused(images), eager(images), rtol=1e-4, atol=1e-4)


def test_no_compiler_is_told(monkeypatch):
    monkeypatch.setattr(dispatch, "_load", lambda: ("No module named 'triton'", False))
    for module in ("flopbench.kernels.dispatch", "flopbench.runner.worker"):
        monkeypatch.setattr(f"{module}.missing_compiler", lambda: "g++")
    with pytest.raises(FlopbenchError, match=r"no C\+\+ compiler is installed \(g\+\+\); use impl='auto'"):
        OPERATIONS["norm"][0](*inputs("norm", 1, 1, 2), "fused")
    cell = fused_cell().model_copy(update={"device": "cpu"})
    require_compiler(cell)
    with pytest.raises(RuntimeError, match=r"torch.compile needs a C\+\+ compiler \(g\+\+\).* --mode eager"):
        require_compiler(cell.model_copy(update={"mode": "compile"}))
