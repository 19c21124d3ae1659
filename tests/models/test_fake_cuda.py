"""What would fail on a GPU, as far as a CPU can tell: on fake tensors, that lie on one and hold nothing.

A tensor that is made on the CPU on the way is a fault there: it fails, or is copied to the GPU in each call.
Gradients are not tried, for autograd asks the driver about streams: test_models.py has them on meta tensors.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flopbench.cells import Cell
from flopbench.inputs import Inputs
from flopbench.kernels import Impl, Ran
from flopbench.kernels.dispatch import observe, select
from flopbench.models.factory import create_model
from flopbench.models.single import KINDS
from flopbench.modes import DType
from flopbench.timing.workload import make_workload, weights_dtype
from tests.models.networks import ALL, build_shallow

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="torch is built without CUDA")

# Every version once, and what is fused in every family in each dtype that casts differently.
NETWORKS = [(family, version, "fused", "bf16") for family, version in ALL] + [
    (family, "flop", impl, dtype)
    for family in ("vit", "resmlp", "convnext")
    for impl in ("fused", "auto")
    for dtype in ("fp32", "autocast-bf16")
]


class OnGpu(TorchDispatchMode):
    """Within it nothing but what lies on a GPU comes out of an operator."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = function(*args, **(kwargs or {}))
        strays = [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and not x.is_cuda]
        assert not strays, f"{function} gives {strays}"
        return outputs


@pytest.fixture(autouse=True)
def gpu(interpreter: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors are fake, and autocast takes a GPU to be there. (Other tests want kernels interpreted.)"""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    with FakeTensorMode():
        yield


def placed(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A model on the meta device, on the GPU."""

    def there(x: Tensor) -> Tensor:
        return torch.empty(x.shape, dtype=dtype if x.is_floating_point() else x.dtype, device="cuda")

    # Not `Module.to`, which cannot swap fake tensors.
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module.register_parameter(name, nn.Parameter(there(parameter), parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, there(buffer))
    return model


def cell_of(dtype: DType, pass_: str, size: tuple[int, int]) -> Cell:
    return Cell.model_validate(
        {
            "pair": {"baseline": "vit_ti16", "candidate": "vit_ti16.flop"},
            "device": "cuda",
            "batch_size": 2,
            "pass": pass_,
            "dtype": dtype,
            "mode": "eager",
            "image_size": size,
        }
    )


def run(model: nn.Module, dtype: DType, size: tuple[int, int]) -> Ran:
    """Forward, and backward up to where it begins; what every operation ran as."""
    images = torch.empty(2, 3, *size, dtype=weights_dtype(cell_of(dtype, "forward", size)), device="cuda")
    with OnGpu(), observe() as ran:
        for pass_ in ("forward", "backward"):
            workload = make_workload(model, Inputs(images), cell_of(dtype, pass_, size))
            workload.logits(workload.inputs)
            workload.prepare()
    return ran


@pytest.mark.parametrize(("family", "version", "impl", "dtype"), NETWORKS)
def test_a_network_stays_on_the_gpu(family: str, version: str, impl: Impl, dtype: DType):
    with torch.device("meta"):
        model = build_shallow(family, version)
    select(model, impl)
    ran = run(placed(model, weights_dtype(cell_of(dtype, "forward", (8, 12)))), dtype, (8, 12))
    if version == "flop" and impl == "fused":
        assert any("triton" in names for names in ran.values())


@pytest.mark.parametrize("symmetry", ["plain", "flop"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_single_layer_stays_on_the_gpu(kind: str, symmetry: str):
    size = (32, 48)
    with torch.device("meta"):
        model = create_model(f"{kind}_192" + (".flop" if symmetry == "flop" else ""), size, impl="fused")
    run(placed(model, torch.bfloat16), "bf16", size)


def test_the_optimiser_steps_on_the_gpu():
    size = (32, 32)
    with torch.device("meta"):
        model = create_model("vit_ti16.flop", size)
    images = torch.empty(2, 3, *size, device="cuda")
    optimiser = make_workload(
        placed(model, torch.float32), Inputs(images), cell_of("fp32", "train", size)
    ).optimiser
    assert optimiser is not None
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    with OnGpu():
        optimiser.step()


def test_what_is_made_on_the_cpu_is_seen():
    class Lost(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((1, 2, 3)) * torch.ones(2).sum().to(images.device)

    with pytest.raises(AssertionError, match=r"aten\.ones"):
        run(Lost(), "bf16", (8, 12))
