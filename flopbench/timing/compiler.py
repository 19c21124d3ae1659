"""The compiler's start-up, kept apart from what it takes to compile a model."""

import torch

from flopbench.cells import DeviceKind
from flopbench.private import await_compile_processes


def start_compiler(device: DeviceKind, *, gradients: bool) -> None:
    """Compile and call a product and a sum, with gradients if asked.

    That imports the compiler and what it needs for gradients; on CUDA it also builds Triton's stub of the
    driver, makes cuBLAS's handle, and starts the processes that compile.
    """
    x = torch.zeros(16, 16, device=device, requires_grad=gradients)
    total = torch.compile(lambda x: (x @ x + 1).sum())(x)
    if gradients:
        total.backward()
    if device == "cuda":
        # Until they are there, kernels are compiled one after another in this process.
        await_compile_processes()
