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
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler as nvidia
from triton.compiler import ASTSource

from flopbench.kernels.triton import attention, gelu, layer_norm, linear
from flopbench.report.table import Column, Table, words
from tests.kernels.agreement import BIASED, OF, TRANSFORMS, linear_inputs, parts_and_maps

MODULES = (layer_norm, gelu, attention, linear)
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
        dtype = next(name_of(x) for x in _leaves(args) if isinstance(x, Tensor))
        key = kernel.__name__, self.case, dtype, config
        if key in self.known:
            return
        options = {name: meta.pop(name) for name in list(meta) if name not in kernel.arg_names}
        constants = {(kernel.arg_names.index(name),): value for name, value in meta.items()}
        attributes: dict[tuple[int, ...], Any] = {}
        signature = {}
        for index, name in enumerate(kernel.arg_names):
            signature[name] = "constexpr"
            if name not in meta:
                signature[name] = _signature(args[index], (index,), constants, attributes)
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


def _leaves(value: Any) -> list[Any]:
    """What is in a tuple and in the tuples in it."""
    return [leaf for one in value for leaf in _leaves(one)] if isinstance(value, tuple) else [value]


def _signature(
    value: Any,
    path: tuple[int, ...],
    constants: dict[tuple[int, ...], Any],
    attributes: dict[tuple[int, ...], Any],
) -> Any:
    """The type of an argument, after noting at its path what Triton would compile a kernel for."""
    if isinstance(value, tuple):
        return tuple(_signature(one, (*path, at), constants, attributes) for at, one in enumerate(value))
    if value is None or (isinstance(value, int) and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
        attributes[path] = ALIGNED
    return f"*{name_of(value)}" if isinstance(value, Tensor) else "i32" if isinstance(value, int) else "fp32"


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

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=dtype)

    for dimensions in ([1, 1], [1, 1, 1, 1, 2]):
        slice_ = channels // sum(d * d for d in dimensions)
        x = [zeros(2, 197, d * slice_) for d in dimensions for _ in range(d)]
        gains, bias = [zeros(d * slice_) for d in dimensions], zeros(slice_)
        norm = f"norm of {parts_of(len(x))} of {channels} channels"
        last = dimensions, 1e-6
        given = {
            norm: (([], [], [*gains, bias]), (x, x, [], [])),
            f"sum and {norm}": ((x, gains, [*gains, bias]), ([*x, *x], x, x, gains)),
        }
        for case, (forward, backward) in given.items():
            yield case, partial(ops.layer_norm_parts, x, *forward, *last)
            yield case, partial(ops.layer_norm_parts_backward, *backward, gains, *last)
    # Of ViT-H's 16 heads each has 80 channels, of the others' 64.
    heads, tokens = (16, 257) if channels == 1280 else (channels // 64, 197)
    for count in (1, 2):
        qkv = [zeros(1, tokens, 3 * channels // count) for _ in range(count)]
        mixed = [zeros(1, tokens, channels // count) for _ in range(count)]
        log = torch.zeros(1, heads, tokens)
        case = f"{parts_of(count)} of heads of {channels // heads}"
        yield case, partial(ops.flash_attention_parts, qkv, heads)
        yield case, partial(ops.flash_attention_parts_backward, mixed, qkv, mixed, log, heads)
    for count, transform in TRANSFORMS.items():
        slice_ = channels // len(transform.order)
        x, maps = parts_and_maps(count, linear_inputs(count, (2, 197), slice_, 4 * slice_, zeros))
        biased = list(BIASED[count])
        given = x, maps.weights, list(OF[count]), [maps.biases[p] for p in biased], biased
        if count > 1:
            yield f"products of {parts_of(count)}", partial(ops.tiled_linear_parts, *given)
        for kind in ("gelu", "quick_gelu"):
            case = f"{kind} of {parts_of(count)}"
            yield f"products and {case}", partial(ops.linear_gelu, *given, *transform.lists, kind)
            if count > 1:
                yield case, partial(ops.gelu, x, *transform.lists, kind)
                yield f"{case}, gradient", partial(ops.gelu_backward, x, x, *transform.lists, kind)


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
