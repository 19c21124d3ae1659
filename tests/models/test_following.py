"""A ViT's residual sum and the next block's norm in one kernel: the network stays what it is."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flopbench.kernels import dispatch
from flopbench.models.factory import perturb
from flopbench.symmetries import irreps
from tests.models.networks import build

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

DEPTH = 4
VERSIONS = {"flop": 4, "hybrid": 2, "early_invariant": 2}
"""How many equivariant blocks a version has."""


def network(version: str = "flop") -> nn.Module:
    torch.manual_seed(0)
    return perturb(build("vit", version)).eval()


def images() -> Tensor:
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def kernel(monkeypatch):
    """Stands in for a kernel that adds and normalises; counts its calls and those of norms alone."""
    counts = {"together": 0, "apart": 0}
    together, alone = irreps.add_layer_norm_parts, irreps.layer_norm_parts

    def counted(name: str, run: Any) -> Any:
        def call(*given: Any, centred: bool) -> Any:
            counts[name] += 1
            return run(*given[:-1], "eager", centred=centred)

        return call

    monkeypatch.setattr(irreps, "add_layer_norm_parts", counted("together", together))
    monkeypatch.setattr(irreps, "layer_norm_parts", counted("apart", alone))
    monkeypatch.setattr(irreps, "choose", lambda *_: dispatch.Choice("triton", "a stand-in"))
    return counts


@pytest.mark.parametrize("version", VERSIONS)
def test_each_norm_but_the_first_and_last_rides_on_a_sum(kernel, version):
    model = network(version)
    with torch.no_grad():
        got = model(images())
        blocks = VERSIONS[version]
        last = int(version == "flop")
        assert kernel == {"together": 2 * blocks - 1, "apart": 1 + last}
        # Called alone, as with hooks, each block begins with its own norm.
        seen = []
        for block in model.get_submodule("blocks").children():
            block.register_forward_hook(lambda module, given, output: seen.append((len(given), output)))
        expected = model(images())
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert kernel == {"together": 3 * blocks - 1, "apart": 1 + last + blocks + last}
    assert [count for count, _ in seen] == [1] * DEPTH
    assert not any(type(output) is tuple for _, output in seen)


def test_torchs_own_operators_run_in_their_own_blocks():
    model = network()
    dispatch.select(model, "eager")
    order = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    with torch.no_grad():
        model(images())
    norms = [name for name in order if name.endswith("norm1")]
    assert norms == [f"blocks.{index}.norm1" for index in range(DEPTH)]
    assert order.index("blocks.0") < order.index("blocks.1.norm1")


def test_gradients_through_a_norm_that_was_taken_along(kernel):
    grads = []
    for checkpointing in (False, True):
        model: Any = network()
        model.set_grad_checkpointing(checkpointing)
        model(images()).square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(grads[0], grads[1])


def test_blocks_that_are_compiled_by_themselves_are_compiled_once():
    graphs = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    model = network()
    with torch.no_grad():
        expected = model(images())
        for block in model.get_submodule("blocks").children():
            block.compile(backend=backend, dynamic=False)
        torch.testing.assert_close(model(images()), expected)
    assert len(graphs) == 1


def test_a_network_compiled_whole(kernel):
    torch._dynamo.reset()
    model = network()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images()), model(images()))
