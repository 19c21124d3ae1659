"""What `auto` is to run: each operation in torch's own operators against its Triton kernel, in bf16.

Writes $OUT/operations.jsonl, a row of the table of measurements per line (`flopbench.kernels.measured`), from
which `python -m tests.gpu.table` makes the table. Forward before gradients, uncompiled before compiled, the
large sizes last; ends when its time is spent. All are timed by replay of a CUDA graph: what the host costs is
left out, to the favour of torch's own where they are many. With DEVICE=cpu tiny, where times mean nothing.

python -m tests.gpu.operations
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch._dynamo
from torch import Tensor

from flopbench.kernels import dispatch
from flopbench.kernels.measured import Row, Verdict
from tests.gpu.cases import BACKEND, CASES, CUDA, SIZES, Case, Impl, Inputs, Size, outputs_of
from tests.gpu.microbench import BATCHES, median_time

SECONDS = 70 if CUDA else 200
# As the table calls it, as it is asked for, and whether torch.compile traces it.
WAYS: tuple[tuple[str, Impl, bool], ...] = (
    ("triton", "triton", False),
    ("torch", "eager", False),
    ("torch", "eager", True),
)
torch._dynamo.config.recompile_limit = 64


class Asked(NamedTuple):
    """What the table is asked of a case."""

    operation: str
    parts: int
    dtype: str
    elements: int


def asked_of(case: Case, size: Size, inputs: Sequence[Tensor]) -> Asked:
    """What `choose` asks the table when it runs a case."""
    asked: list[Asked] = []

    def verdict(operation: str, way: str, parts: int, x: Tensor) -> Verdict:
        asked.append(Asked(operation, parts, str(x.dtype).removeprefix("torch."), x.numel()))
        return Verdict(None, "is being measured")

    with torch.no_grad(), mock.patch.object(dispatch, "verdict", verdict):
        outputs_of(case, "fused", size, inputs)
    return asked[0]


def call_of(
    case: Case, impl: Impl, size: Size, inputs: Sequence[Tensor], *, compiled: bool, gradients: bool
) -> Callable[[], object]:
    """One pass of a case."""

    def forward(*tensors: Tensor) -> Sequence[Tensor]:
        return outputs_of(case, impl, size, tensors)

    run: Any = forward
    if compiled:
        run = torch.compile(forward, dynamic=False, fullgraph=True, backend=BACKEND)
    if not gradients:
        return partial(run, *inputs)
    leaves = [x.detach().requires_grad_() for x in inputs]
    grads = [torch.randn_like(y) for y in run(*leaves)]
    return lambda: torch.autograd.grad(run(*leaves), leaves, grads)


def rows_of(case: Case, size: Size, inputs: Sequence[Tensor], asked: Asked, *, gradients: bool) -> list[Row]:
    """A case uncompiled and compiled. In a compiled network too a Triton kernel is what it is."""
    ms: dict[str, float] = {}
    rows = []
    with nullcontext() if gradients else torch.no_grad():
        for way, impl, compiled in WAYS:
            call = call_of(case, impl, size, inputs, compiled=compiled, gradients=gradients)
            ms = ms | {way: round(median_time(call), 5)}
            if way == "torch":
                rows.append(
                    Row(
                        card=_card(inputs[0].device),
                        date=time.strftime("%Y-%m-%d", time.gmtime()),
                        torch=torch.__version__,
                        compiled=compiled,
                        gradients=gradients,
                        ms=ms,
                        **asked._asdict(),
                    )
                )
    return rows


def _card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def main() -> None:
    """Time all cases at all sizes and batches."""
    torch.manual_seed(0)
    deadline = time.monotonic() + SECONDS
    known: set[tuple[Asked, bool]] = set()
    with (Path(os.environ.get("OUT", ".")) / "operations.jsonl").open("w") as file:
        for gradients, batch, size in itertools.product((False, True), BATCHES, SIZES.values()):
            for name, case in CASES.items():
                if time.monotonic() > deadline or not case.timed or (gradients and not case.backward):
                    continue
                try:
                    inputs = [x.bfloat16() for x in case.inputs(Inputs(size, strided=False, batch=batch))]
                    asked = asked_of(case, size, inputs)
                    if (asked, gradients) in known:
                        continue
                    known.add((asked, gradients))
                    rows = rows_of(case, size, inputs, asked, gradients=gradients)
                except Exception as problem:
                    # The rest goes on.
                    print(name, batch, *size, f"{type(problem).__name__}: {str(problem)[:160]}")
                    continue
                for row in rows:
                    print(json.dumps(asdict(row)), file=file, flush=True)
                    print(name, batch, *size, "compiled" * row.compiled, "gradients" * gradients, row.ms)


if __name__ == "__main__":
    main()
