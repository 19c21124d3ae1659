"""Compiles every Triton kernel for an H100 (sm_90), which needs Triton's own ptxas and no GPU.

    python -m tests.kernels.hopper                               a table
    python -m tests.kernels.hopper --out reports/kernels-sm90.md the same, as a report

What ptxas says of registers, spills and shared memory needs no GPU to be true, and decides which configs are
worth timing on one.
"""

import argparse
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler as nvidia
from triton.compiler import ASTSource

from flopbench.kernels.triton import attention, layer_norm, linear, mirror_gelu
from flopbench.report.table import Column, Table, words

MODULES = (layer_norm, mirror_gelu, attention, linear)
WIDTHS = (768, 384, 1280)
"""Channels of ViT-B, S and H."""

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
ALIGNED = [["tt.divisibility", 16]]

# Of a streaming multiprocessor of an H100 (CUDA C++ Programming Guide, table of compute capabilities 9.0).
REGISTERS, THREADS, SHARED, SHARED_RESERVED = 65536, 2048, 233472, 1024


@dataclass(frozen=True)
class Compiled:
    """What one kernel became.

    Attributes:
        kernel: its name.
        case: what it was compiled for.
        dtype: of its tensors.
        config: what the autotuner may choose, empty where there is one way only.
        warps: of a program.
        registers: of a thread.
        spilled: bytes of a thread that its registers did not hold.
        shared: bytes of shared memory of a program.
        tensor_cores: the instruction of its products, if it has any.
    """

    kernel: str
    case: str
    dtype: str
    config: str
    warps: int
    registers: int
    spilled: int
    shared: int
    tensor_cores: str

    @property
    def programs(self) -> int:
        """How many fit on a streaming multiprocessor at once."""
        threads = 32 * self.warps
        # Registers are given to a warp by the 256.
        of_registers = REGISTERS // (self.warps * -(-32 * self.registers // 256) * 256)
        return min(THREADS // threads, of_registers, SHARED // (self.shared + SHARED_RESERVED), 32)


COLUMNS = (
    words("kernel"),
    words("case"),
    words("dtype"),
    words("config"),
    Column("warps"),
    Column("registers\na thread", "registers"),
    Column("spilled\nbytes a thread", "spilled"),
    Column("shared\nbytes", "shared"),
    Column("programs\nan SM", "programs"),
    words("products", "tensor_cores"),
)


class Compiler:
    """Stands in for `launch`: compiles what would be launched, an autotuned kernel in every config."""

    def __init__(self) -> None:
        self.case = ""
        self.known: dict[tuple[str, ...], Compiled] = {}

    def __call__(self, kernel: Any, grid: Any, on: Tensor, *args: Any, **meta: Any) -> None:
        """See `flopbench.kernels.triton.launch`."""
        if not hasattr(kernel, "configs"):
            self._compile(kernel, args, meta, "")
            return
        kernel.nargs = dict(zip(kernel.arg_names, args, strict=False))
        for config in kernel.prune_configs(meta):
            said = ", ".join(f"{name} {value}" for name, value in config.kwargs.items())
            self._compile(kernel.fn, args, meta | config.all_kwargs(), f"{said}, {config.num_stages} stages")

    def _compile(self, kernel: Any, args: tuple[Any, ...], meta: dict[str, Any], config: str) -> None:
        dtype = next(name_of(x) for x in args if isinstance(x, Tensor))
        key = kernel.__name__, self.case, dtype, config
        if key in self.known:
            return
        options = {name: meta.pop(name) for name in list(meta) if name not in kernel.arg_names}
        signature, constants, attributes = {}, {}, {}
        for index, name in enumerate(kernel.arg_names):
            value = meta[name] if name in meta else args[index]
            if name in meta or value is None:
                signature[name], constants[index,] = "constexpr", value
                continue
            signature[name] = f"*{name_of(value)}" if isinstance(value, Tensor) else _scalar(value)
            if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
                attributes[index,] = ALIGNED
        source = ASTSource(kernel, signature, constants, attributes)
        code: Any = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        registers, spilled = _resources(code.asm["cubin"])
        instructions = (name for name in ("wgmma", "mma.sync") if name in code.asm["ptx"])
        self.known[key] = Compiled(
            *key,
            warps=code.metadata.num_warps,
            registers=registers,
            spilled=spilled,
            shared=code.metadata.shared,
            tensor_cores=next(instructions, ""),
        )


def name_of(x: Tensor) -> str:
    """Of the dtype of a tensor, as Triton's signatures have it."""
    return next(name for name, dtype in DTYPES.items() if dtype == x.dtype)


def _scalar(value: float) -> str:
    return "i32" if isinstance(value, int) else "fp32"


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread and the bytes of its stack, where spilled registers go."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", said.stdout)
    assert found, said.stdout
    return int(found[1]), int(found[2])


def parts_of(count: int) -> str:
    """How many parts of a feature, in words."""
    return f"{count} part{'s' * (count > 1)}"


def calls(dtype: torch.dtype, channels: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every operator on features of so many channels; what the kernels compute is not looked at."""
    ops = torch.ops.flopbench
    half = channels // 2
    s, a, branch_s, branch_a = torch.zeros(4, 2, 197, half, dtype=dtype).unbind()
    vectors = torch.zeros(3, half, dtype=dtype).unbind()
    x, branch, gains, affine = [s, a], [branch_s, branch_a], list(vectors[:2]), list(vectors[:3])
    norm = f"norm of {channels} channels"
    yield norm, lambda: ops.layer_norm_halves(x, [], [], affine, 1e-6)
    yield norm, lambda: ops.layer_norm_halves_backward(x, x, [], [], gains, 1e-6)
    yield f"sum and {norm}", lambda: ops.layer_norm_halves(x, branch, gains, affine, 1e-6)
    yield (
        f"sum and {norm}",
        lambda: ops.layer_norm_halves_backward([*x, *x], x, branch, gains, gains, 1e-6),
    )
    for kind in ("gelu", "quick_gelu"):
        for parts in (x, [s, a[:, 8:], branch_s, branch_a[:, 8:]]):
            case = f"{kind} of {parts_of(len(parts))}"
            yield case, lambda parts=parts, kind=kind: ops.mirror_gelu(parts, kind)
            yield (
                f"{case}, gradient",
                lambda parts=parts, kind=kind: ops.mirror_gelu_backward(parts, parts, kind),
            )
    # Of ViT-H's 16 heads each has 80 channels, of the others' 64.
    heads, tokens = (16, 257) if channels == 1280 else (channels // 64, 197)
    for count in (1, 2):
        qkv = list(s.new_zeros(count, 1, tokens, 3 * channels // count))
        case = f"{parts_of(count)} of heads of {channels // heads}"
        yield case, lambda qkv=qkv, heads=heads: ops.flash_attention_parts(qkv, heads)
        mixed = list(s.new_zeros(count, 1, tokens, channels // count))
        log = s.new_zeros(1, heads, tokens, dtype=torch.float32)
        yield (
            case,
            lambda qkv=qkv, mixed=mixed, log=log, heads=heads: ops.flash_attention_parts_backward(
                mixed, qkv, mixed, log, heads
            ),
        )
    weight = s.new_zeros(4 * half, half)
    yield "products", lambda: ops.linear_halves(s, a, weight, weight, weight[:, 0])
    for kind in ("gelu", "quick_gelu"):
        for parts in ([s], x, [*x, *branch]):
            given = (
                parts,
                [weight] * min(2, len(parts)),
                weight[:, 0],
                weight[:, 0] if len(parts) == 4 else None,
            )
            case = f"products and {kind} of {parts_of(len(parts))}"
            yield case, lambda given=given, kind=kind: ops.linear_gelu(*given, kind)


def compile_all(*dtypes: str, channels: Sequence[int] = WIDTHS) -> list[Compiled]:
    """Compile every kernel.

    Args:
        dtypes: of the tensors, names of `DTYPES`.
        channels: of the features; what does not depend on them is compiled for the first.
    """
    compiler = Compiler()
    with ExitStack() as stack:
        for module in MODULES:
            stack.enter_context(mock.patch.object(module, "launch", compiler))
        for dtype in dtypes:
            for width in channels:
                for compiler.case, call in calls(DTYPES[dtype], width):
                    call()
    return list(compiler.known.values())


def report(kernels: Sequence[Compiled]) -> str:
    """All kernels with what the figures mean, in Markdown."""
    versions = f"torch {torch.__version__}, Triton {triton.__version__}"
    return "\n".join(
        (
            "# Triton kernels compiled for sm_90",
            "",
            _INTRODUCTION.format(versions),
            Table("", COLUMNS, kernels).markdown(),
            "",
        )
    )


_INTRODUCTION = """\
Written by `python -m tests.kernels.hopper --out reports/kernels-sm90.md` with {}: every kernel in every
config that its autotuner may choose, compiled for an H100 by the ptxas that Triton brings. That needs no
GPU, and says nothing of time. Spilled are the bytes per thread that did not fit into registers. Programs
are how many fit on a streaming multiprocessor at once, by threads, registers and shared memory. Products
in bf16 should run on Hopper's own instruction, wgmma; those in fp32 are exact, for which tensor cores
have none.
"""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Compile every Triton kernel for an H100.")
    parser.add_argument(
        "--out", type=Path, help="the report to write; by default a table goes to the terminal"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--dtype", choices=list(DTYPES), action="append", help="by default all")
    given = parser.parse_args()
    found = compile_all(*given.dtype or DTYPES)
    if given.out:
        given.out.write_text(report(found), encoding="utf-8")
    else:
        table = Table("", COLUMNS, found)
        print(table.json() if given.json else table.markdown())


if __name__ == "__main__":
    main()
