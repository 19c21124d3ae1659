"""What `auto` is to run: each operation in torch's own operators against its Triton kernel, in bf16.

Writes $OUT/operations.jsonl, of gradients $OUT/gradients.jsonl, a row of the table of measurements per line
(`flopbench.kernels.measured`), from which `python -m tests.gpu.table` makes the table; products of parts also
as one batched product, compiled. Uncompiled before compiled, the large sizes last; ends when its time is
spent. All are timed by replay of a CUDA graph: what the host costs is left out, to the favour of torch's own
where they are many. With DEVICE=cpu tiny, where times mean nothing.

python -m tests.gpu.operations forward
python -m tests.gpu.operations gradients    their time is that of both passes
python -m tests.gpu.operations S B          before: compiles those of these sizes, and times nothing
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
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
    ("batched", "batched", True),
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
        return torch.no_grad()(lambda: run(*inputs))
    leaves = [x.detach().requires_grad_() for x in inputs]
    grads = [torch.randn_like(y) for y in run(*leaves)]
    return lambda: torch.autograd.grad(run(*leaves), leaves, grads)


def rows_of(case: Case, given: Inputs, *, gradients: bool) -> list[Row]:
    """A case uncompiled and compiled. In a compiled network too a Triton kernel is what it is."""
    inputs = low(case, given)
    asked = asked_of(case, given.size, inputs)
    ms: dict[str, float] = {}
    rows = []
    for way, call, compiled in calls_of(case, given.size, inputs, gradients=gradients):
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


def calls_of(
    case: Case, size: Size, inputs: Sequence[Tensor], *, gradients: bool
) -> Iterator[tuple[str, Callable[[], object], bool]]:
    """The ways of a case, what runs each, and whether it is compiled."""
    for way, impl, compiled in WAYS:
        if way == "batched" and not case.batched:
            continue
        yield way, call_of(case, impl, size, inputs, compiled=compiled, gradients=gradients), compiled


def _card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def low(case: Case, given: Inputs) -> list[Tensor]:
    """What a case is given, in bf16."""
    return [x.bfloat16() for x in case.inputs(given)]


def timed_cases(
    sizes: Iterable[str], passes: Sequence[bool] = (False, True)
) -> Iterator[tuple[str, Case, Inputs, bool]]:
    """All cases of these sizes that are for the table, without and with gradients, smaller batches first."""
    for batch, gradients, size in itertools.product(BATCHES, passes, sizes):
        for name, case in CASES.items():
            if case.timed and (case.backward or not gradients):
                about = " ".join([name, size, str(batch), *["gradients"] * gradients])
                yield about, case, Inputs(SIZES[size], strided=False, batch=batch), gradients


def compile_beforehand(sizes: Sequence[str]) -> None:
    """Leave on disk what the timed cases of the smallest batch compile."""
    deadline = time.monotonic() + SECONDS
    for about, case, given, gradients in timed_cases(sizes):
        if time.monotonic() > deadline:
            break
        try:
            for _, call, _ in calls_of(case, given.size, low(case, given), gradients=gradients):
                call()
        except Exception as problem:
            print(about, _short(problem))


FILES = {"forward": "operations.jsonl", "gradients": "gradients.jsonl"}


def main(what: str) -> None:
    """Time all cases at all sizes and batches, "forward" or with "gradients"."""
    deadline = time.monotonic() + SECONDS
    with (Path(os.environ.get("OUT", ".")) / FILES[what]).open("w") as file:
        for about, case, given, gradients in timed_cases(SIZES, [what == "gradients"]):
            if time.monotonic() > deadline:
                break
            try:
                rows = rows_of(case, given, gradients=gradients)
            except Exception as problem:
                # The rest goes on.
                print(about, _short(problem))
                continue
            for row in rows:
                print(json.dumps(asdict(row)), file=file, flush=True)
                print(about, "compiled" * row.compiled, row.ms)


def _short(problem: Exception) -> str:
    return f"{type(problem).__name__}: {str(problem)[:160]}"


if __name__ == "__main__":
    torch.manual_seed(0)
    asked = sys.argv[1:]
    if len(asked) == 1 and asked[0] in FILES:
        main(asked[0])
    elif asked and set(asked) <= SIZES.keys():
        compile_beforehand(asked)
    else:
        sys.exit(f"say what: {' or '.join(FILES)}, or sizes to compile: {' '.join(SIZES)}")
