"""Networks whose layers are fused are the networks that they are without."""

from collections import Counter
from importlib import import_module
from typing import Any

import pytest
import torch

from flopbench.flops.dispatch import observe
from flopbench.flops.trace import count_forward
from flopbench.inputs import Inputs
from flopbench.kernels import dispatch
from flopbench.models.factory import create_model, perturb
from flopbench.timing.bench import Bench
from flopbench.timing.checks import WrongOutputError
from flopbench.timing.workload import build_model, cell_inputs, make_workload
from tests.kernels.agreement import fused_cell
from tests.models.networks import build_shallow

FAMILIES = ["vit", "resmlp", "convnext"]


def network(family: str, impl: dispatch.Impl, device: Any = "cpu", version: str = "flop") -> torch.nn.Module:
    with torch.device(device):
        model = build_shallow(family, version)
    dispatch.select(model, impl)
    return perturb(model).to(device)


def images(device: Any = "cpu") -> torch.Tensor:
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)).to(device)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients(device, family):
    fused, eager = (network(family, impl, device) for impl in ("fused", "eager"))
    assert fused.state_dict().keys() == eager.state_dict().keys()
    x = images(device)
    for model in (fused, eager):
        model(x).square().sum().backward()
    for (name, one), (_, two) in zip(fused.named_parameters(), eager.named_parameters(), strict=True):
        if two.grad is not None:
            scale = two.grad.abs().max().item()
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-3, atol=1e-4 * scale, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(fused.eval()(x), eager.eval()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_counts(device, family):
    """Fused operators cost the MACs and, forward, the operations of the eager ones, and move fewer bytes."""
    # With every feature seen by the head: what nobody uses fvcore's trace leaves out, a fused operator not.
    with torch.device("meta"):
        fused, eager = (build_shallow(family, head="absolute") for _ in range(2))
    dispatch.select(fused, "fused")
    dispatch.select(eager, "eager")
    x = Inputs(images("meta"))
    one, two = (count_forward(model, x) for model in (fused, eager))
    assert (one.macs, one.uncounted) == (two.macs, {})
    assert sum(one.elementwise.values()) == sum(two.elementwise.values())
    for pass_ in ("forward", "backward", "train"):
        one, two = (observe(model, x, pass_) for model in (fused, eager))
        assert (one.macs, one.uncounted) == (two.macs, {})
        bytes_one, bytes_two = (
            sum(p.size for c in o.calls for p in (*c.reads, *c.writes)) for o in (one, two)
        )
        assert bytes_one < bytes_two
        if pass_ == "forward":
            operations = [sum(call.elementwise or 0 for call in o.calls) for o in (one, two)]
            assert operations[0] == operations[1]


def test_what_runs_where(device):
    model = network("vit", "fused", device).eval()
    calls = observe(model, Inputs(images(device))).calls
    ran = Counter(call.operator for call in calls)
    blocks = len(model.blocks)  # pyright: ignore[reportArgumentType]
    # In a block the second norm rides on a residual sum and the GELU on a product; the last norm is alone.
    assert ran["linear_gelu"] == blocks
    assert ran["layer_norm_parts"] == 2 * blocks + 1
    assert ran["flash_attention_parts"] == blocks
    # The parts go from one product through attention to the other, and nothing is put side by side.
    assert {call.operator for call in calls if call.module.endswith(".attn")} == {"flash_attention_parts"}
    assert ran["tiled_linear_parts"] == 3 * blocks


def test_stochastic_depth_drops_the_same_branches(device):
    logits = []
    for impl in ("fused", "eager"):
        with torch.device(device):
            model = build_shallow("vit", drop_path=0.5)
        dispatch.select(model, impl)
        torch.manual_seed(1)
        logits.append(perturb(model).train()(images(device)))
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def test_compiled_whole(device):
    model = network("vit", "fused", device)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images(device)), model(images(device)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_cell_whose_kernels_are_wrong_fails(device, monkeypatch, wrong):
    cell = fused_cell().model_copy(update={"image_size": (8, 12)})
    images = cell_inputs(cell, device)
    eager, workload = (
        make_workload(network("vit", impl, device), images, cell) for impl in ("eager", "fused")
    )
    attention = import_module("flopbench.kernels.triton.attention")
    if wrong:
        right = attention.flash_attention_parts
        # Still invariant, and not what the layer is.
        monkeypatch.setattr(attention, "flash_attention_parts", lambda *x: [1.1 * y for y in right(*x)])
    bench = Bench({"baseline": eager, "candidate": workload}, cell.device, cell)
    if wrong:
        with pytest.raises(WrongOutputError, match=r"E\(.*\) with our kernels differs"):
            bench.check()
    else:
        check = bench.check()
        assert check is not None
        assert check.agreement
    assert {m.impl for m in workload.model.modules() if hasattr(m, "impl")} == {"fused"}


def test_models_and_cells_choose():
    with torch.device("meta"):
        model = create_model("vit_ti16.flop", 32, impl="eager")
    assert {module.impl for module in model.modules() if hasattr(module, "impl")} == {"eager"}
    cell = fused_cell()
    assert cell.id == "vit_ti16.flop/cpu/b1/forward/fp32/eager/32x32/fused-kernels"
    model = build_model("vit_ti16.flop", cell, torch.device("cpu"))
    assert model.get_submodule("blocks.0.attn").impl == "fused"
