from typing import Any

import pytest
import torch

from flopbench.modes import DeviceKind
from flopbench.timing import compiler
from flopbench.timing.compiler import start_compiler


@pytest.mark.parametrize(
    ("device", "gradients", "waits"), [("cpu", False, 0), ("cpu", True, 0), ("cuda", True, 1)]
)
def test_all_that_a_first_compilation_starts_is_started(
    device: DeviceKind, gradients: bool, waits: int, monkeypatch: pytest.MonkeyPatch
):
    zeros, made, waited = torch.zeros, [], []

    def on_the_cpu(*sizes: int, device: str, **options: Any) -> torch.Tensor:
        made.append((device, zeros(*sizes, **options)))
        return made[-1][1]

    monkeypatch.setattr(torch, "zeros", on_the_cpu)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(compiler, "await_compile_processes", lambda: waited.append(True))
    start_compiler(device, gradients=gradients)
    ((where, x),) = made
    assert where == device
    assert (x.grad is not None) == gradients
    assert len(waited) == waits
