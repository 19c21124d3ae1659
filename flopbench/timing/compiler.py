"""What a process starts but once, kept apart from what a model's first call takes."""

import torch
import torch.nn.functional as F

from flopbench.modes import DeviceKind
from flopbench.private import await_compile_processes


def start_libraries(device: DeviceKind) -> None:
    """A product and a convolution: they make the libraries' handles, and start a CPU's threads."""
    x = torch.ones(1, 64, 64, 64, device=device)
    with torch.no_grad():
        F.conv2d(x, x[0, :, :3, :3].expand(64, -1, -1, -1), padding=1).matmul(x)


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
