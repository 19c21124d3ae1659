"""Compiles every kernel for an H100 (sm_90), which needs Triton and no GPU. Prints a line a kernel.

python -m tests.kernels.hopper
"""

from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from flopbench.kernels.triton import heads, layer_norm, linear, mirror_gelu

TYPES = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}
ALIGNED = [["tt.divisibility", 16]]


def compile_only(kernel: Any, grid: Any, on: Tensor, *args: Any, **meta: Any) -> None:
    """Stands in for `launch`: compiles what would be launched, of an autotuned kernel the first config."""
    if hasattr(kernel, "configs"):
        meta, kernel = meta | kernel.configs[0].all_kwargs(), kernel.fn
    options = {name: meta.pop(name) for name in list(meta) if name not in kernel.arg_names}
    signature, constants, attributes = {}, {}, {}
    for index, name in enumerate(kernel.arg_names):
        value = meta[name] if name in meta else args[index]
        if name in meta or value is None:
            signature[name], constants[index,] = "constexpr", value
            continue
        signature[name] = TYPES[value.dtype] if isinstance(value, Tensor) else "i32"
        if isinstance(value, Tensor) or value % 16 == 0:
            attributes[index,] = ALIGNED
    source = ASTSource(kernel, signature, constants, attributes)
    code: Any = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(kernel.__name__, "wgmma" if "wgmma" in code.asm["ptx"] else "")


def main() -> None:
    for module in (layer_norm, mirror_gelu, heads, linear):
        setattr(module, "launch", compile_only)  # noqa: B010
    ops = torch.ops.flopbench
    # A block of ViT-S in bf16; what the kernels compute is not looked at.
    s, a, branch_s, branch_a = torch.zeros(4, 2, 197, 192, dtype=torch.bfloat16).unbind()
    vectors = torch.zeros(3, 192, dtype=torch.bfloat16).unbind()
    x, gains, affine = [s, a], vectors[:2], vectors[:3]
    ops.layer_norm_halves(x, [], [], affine, 1e-6)
    ops.layer_norm_halves_backward(x, x, [], [], gains, 1e-6)
    ops.layer_norm_halves(x, [branch_s, branch_a], gains, affine, 1e-6)
    ops.layer_norm_halves_backward([*x, *x], x, [branch_s, branch_a], gains, gains, 1e-6)
    for kind in ("gelu", "quick_gelu"):
        for parts in ([s, a], [s, a[:, 8:], branch_s, branch_a[:, 8:]]):
            ops.mirror_gelu(parts, kind)
            ops.mirror_gelu_backward(parts, parts, kind)
    ops.pack_heads(s, a, 3, 2)
    ops.unpack_heads([s.new_zeros(2, 6, 197, 64)])
    weight = s.new_zeros(768, 192)
    ops.linear_halves(s, a, weight, weight, weight[:, 0])
    ops.linear_gelu_halves(s, a, weight, weight, weight[:, 0], "gelu")


if __name__ == "__main__":
    main()
