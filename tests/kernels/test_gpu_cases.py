"""What `pytest -m cuda` checks on a GPU is every kernel that there is."""

import sys
from types import ModuleType
from typing import Any

import torch

from tests.gpu.cases import CASES, Inputs, Size, outputs_of


def kernels_of(module: ModuleType) -> set[str]:
    return {name for name in vars(module) if name.endswith("_kernel")}


def test_every_kernel_has_a_case_on_a_gpu(device, monkeypatch):
    launched = set()

    def launch(kernel: Any, *_: Any, **__: Any) -> None:
        # An autotuned one has it within.
        launched.add(getattr(kernel, "fn", kernel).__name__)

    room = "flopbench.kernels.triton"
    modules = [module for name, module in sys.modules.items() if name.startswith(f"{room}.")]
    for module in modules:
        monkeypatch.setattr(module, "launch", launch, raising=False)
    given = Inputs(Size(32, 5, 2), strided=False, batch=2, device=device.type)
    for case in CASES.values():
        tensors = [x.float().requires_grad_(case.backward) for x in case.inputs(given)]
        outputs = outputs_of(case, "triton", given.size, tensors)
        if case.backward:
            torch.autograd.grad(outputs, tensors, [torch.ones_like(y) for y in outputs])
    assert launched == set().union(*map(kernels_of, modules))
