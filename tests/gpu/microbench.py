"""What decides the layout on a GPU: times of a layer's pieces, dense and in halves, in bf16.

Writes $OUT/microbench.jsonl, a line per piece and way: milliseconds, and what rate that is. Ends when its
time is spent, the large sizes last. With DEVICE=cpu tiny, in Triton's interpreter, where times mean nothing.

python -m tests.gpu.microbench
"""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor

from flopbench.kernels import Impl
from flopbench.kernels.attention import attention_parts
from flopbench.kernels.gelu import gelu
from flopbench.kernels.layer_norm import add_layer_norm_parts, layer_norm_parts
from flopbench.kernels.linear import Maps, linear_gelu_parts, linear_parts
from flopbench.kernels.token_linear import aligned, token_linear
from flopbench.kernels.transform import HALVES, POINT
from tests.gpu.cases import CUDA, DEVICE, SIZES

BATCHES = (64, 256) if CUDA else (2,)
SECONDS = 70 if CUDA else 40
TOKENS = 196 if CUDA else 6
"""Of an image of 224 pixels in patches of 16."""
BYTES = 2
"""Of an element in bf16."""

# Compiled for each shape: as many as there are sizes and batches.
torch._dynamo.config.recompile_limit = 64


@torch.compile(dynamic=False)
def dense_linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As inductor fuses X's."""
    return F.gelu(F.linear(x, weight, bias))


@torch.compile(dynamic=False)
def dense_add_norm(x: Tensor, branch: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """As inductor fuses X's."""
    x = x + gain * branch
    return x, F.layer_norm(x, x.shape[-1:], gain, gain, 1e-6)


@torch.compile(dynamic=False)
def compiled_gelu(s: Tensor, a: Tensor) -> Any:
    """As inductor fuses E(X)'s."""
    return gelu((s, a), HALVES, "gelu", "eager")


@torch.compile(dynamic=False)
def compiled_add_norm(
    x: list[Tensor], branch: list[Tensor], gammas: list[Tensor], affine: list[Tensor]
) -> Any:
    """As inductor fuses E(X)'s."""
    return add_layer_norm_parts(x, branch, gammas, affine, 1e-6, (1, 1), "eager")


class Sheet:
    """A file of measurements of one size after the other.

    Args:
        file: where lines go.
        seconds: after which nothing more is measured.
    """

    def __init__(self, file: IO[str], seconds: float) -> None:
        self.file = file
        self.deadline = time.monotonic() + seconds
        self.size: dict[str, object] = {}

    def measure(
        self, piece: str, way: str, call: Callable[[], object], *, flops: float = 0.0, moved: float = 0.0
    ) -> None:
        """Note what `call` takes; an error is noted too, and the rest goes on.

        Args:
            piece: of the network.
            way: to compute it.
            call: does it once.
            flops: that it takes.
            moved: bytes that it reads and writes at least.
        """
        if time.monotonic() > self.deadline:
            return
        row = {**self.size, "piece": piece, "way": way}
        try:
            with torch.no_grad():
                milliseconds = median_time(call)
            row["ms"] = round(milliseconds, 5)
            if flops:
                row["tflops"] = round(flops / milliseconds / 1e9, 1)
            if moved:
                row["gb_s"] = round(moved / milliseconds / 1e6, 1)
        except Exception as problem:
            row["error"] = f"{type(problem).__name__}: {str(problem)[:160]}"
        print(json.dumps(row), file=self.file, flush=True)
        print(*row.values())


def median_time(call: Callable[[], object]) -> float:
    """Median milliseconds of a call."""
    if CUDA:
        from triton.testing import do_bench_cudagraph

        # A number where one statistic is asked for.
        milliseconds: Any = do_bench_cudagraph(call, rep=15, return_mode="median")
        return milliseconds
    call()
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def noise(*shape: int) -> Tensor:
    """Normal noise in bf16."""
    return torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16)


def time_peaks(sheet: Sheet) -> None:
    """What the device does at best."""
    n, size = (8192, 1 << 30) if CUDA else (64, 1 << 16)
    x, y = noise(n, n), noise(n, n)
    sheet.measure("product", "library", lambda: x @ y, flops=2 * n**3)
    source = torch.empty(size, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    sheet.measure("copy", "library", lambda: target.copy_(source), moved=2 * size)


def time_linear(sheet: Sheet, piece: str, rows: int, inner: int, out: int) -> None:
    """A linear map."""
    x, w, b = noise(rows, inner), noise(out, inner), noise(out)
    halves, maps = halves_of(rows, inner, out)
    stacked, stacked_weights = torch.stack(halves), torch.stack(list(maps.weights)).transpose(1, 2)
    flops = 2.0 * rows * inner * out
    sheet.measure(piece, "dense", lambda: F.linear(x, w, b), flops=flops)
    flops /= 2
    sheet.measure(piece, "two products", lambda: linear_parts(halves, maps, "eager"), flops=flops)
    sheet.measure(piece, "one batched", lambda: torch.bmm(stacked, stacked_weights), flops=flops)
    sheet.measure(piece, "triton", lambda: linear_parts(halves, maps, "triton"), flops=flops)


def time_linear_gelu(sheet: Sheet, rows: int, inner: int, out: int) -> None:
    """A linear map and the GELU after it."""
    x, w, b = noise(rows, inner), noise(out, inner), noise(out)
    given = halves_of(rows, inner, out)
    piece, flops = "linear+gelu", 2.0 * rows * inner * out
    sheet.measure(piece, "dense compiled", lambda: dense_linear_gelu(x, w, b), flops=flops)
    dense = [x], Maps([w], (0,), [b])
    sheet.measure(
        piece,
        "dense triton epilogue",
        lambda: linear_gelu_parts(*dense, POINT, "gelu", "triton"),
        flops=flops,
    )

    def products() -> list[Tensor]:
        return linear_parts(*given, "eager")

    ways: dict[str, Callable[[], object]] = {
        "two products, compiled gelu": lambda: compiled_gelu(*products()),
        "two products, triton gelu": lambda: gelu(products(), HALVES, "gelu", "triton"),
        "triton epilogue": lambda: linear_gelu_parts(*given, HALVES, "gelu", "triton"),
    }
    for way, call in ways.items():
        sheet.measure(piece, way, call, flops=flops / 2)


def halves_of(rows: int, inner: int, out: int) -> tuple[list[Tensor], Maps]:
    """Features and a linear map of both halves."""
    features = [noise(rows, inner // 2) for _ in range(2)]
    weights = [noise(out // 2, inner // 2) for _ in range(2)]
    return features, Maps(weights, (0, 1), (noise(out // 2), None))


def time_norms(sheet: Sheet, batch: int, tokens: int, channels: int) -> None:
    """Residual addition and layer norm."""
    x, branch, gain = noise(batch, tokens, channels), noise(batch, tokens, channels), noise(channels)
    parts = [noise(batch, tokens, channels // 2) for _ in range(4)]
    gains = [noise(channels // 2) for _ in range(5)]
    given = parts[:2], parts[2:], gains[:2], gains[2:]
    moved = 4.0 * x.numel() * BYTES
    sheet.measure("add+norm", "dense compiled", lambda: dense_add_norm(x, branch, gain), moved=moved)
    sheet.measure("add+norm", "halves compiled", lambda: compiled_add_norm(*given), moved=moved)
    sheet.measure(
        "add+norm",
        "halves triton",
        lambda: add_layer_norm_parts(*given, 1e-6, (1, 1), "triton"),
        moved=moved,
    )
    sheet.measure(
        "norm",
        "halves triton",
        lambda: layer_norm_parts(parts[:2], gains[2:], 1e-6, (1, 1), "triton"),
        moved=moved / 2,
    )


def time_token_linear(sheet: Sheet, batch: int, channels: int) -> None:
    """ResMLP's products of an image's tokens with the weight as it is learnt and as a GPU likes it."""
    for tokens, width in ((TOKENS, channels), (TOKENS // 2, channels // 2)):
        x, weight = noise(batch, tokens, width), noise(tokens, tokens)
        of_each, flops = weight.expand(batch, -1, -1), 2.0 * batch * tokens * tokens * width
        laid_out = aligned(weight)
        piece = f"mix {tokens} tokens"
        sheet.measure(piece, "as learnt", lambda of_each=of_each, x=x: torch.bmm(of_each, x), flops=flops)
        sheet.measure(
            piece,
            "aligned",
            lambda laid_out=laid_out, x=x, tokens=tokens: token_linear(x, laid_out, None, tokens),
            flops=flops,
        )


def time_attention(sheet: Sheet, batch: int, tokens: int, channels: int, heads: int) -> None:
    """Attention of one part, as X has it, and of halves, which the library needs side by side."""
    flops = 4.0 * batch * tokens * tokens * channels
    moved = 4.0 * batch * tokens * channels * BYTES
    for parts, name in ((1, "dense"), (2, "halves")):
        qkv = [noise(batch, tokens, 3 * channels // parts) for _ in range(parts)]
        ways: dict[str, Impl] = {"library": "eager", "triton": "triton"}
        for way, impl in ways.items():
            sheet.measure(
                "attention",
                f"{name} {way}",
                partial(attention_parts, qkv, heads, impl),
                flops=flops,
                moved=moved,
            )


def main() -> None:
    """Time all sizes at all batches."""
    torch.manual_seed(0)
    with (Path(os.environ.get("OUT", ".")) / "microbench.jsonl").open("w") as file:
        sheet = Sheet(file, SECONDS)
        time_peaks(sheet)
        for batch in BATCHES:
            for size, (C, N, heads) in SIZES.items():
                sheet.size = {"size": size, "batch": batch}
                rows = batch * N
                for piece, inner, out in (
                    ("qkv", C, 3 * C),
                    ("proj", C, C),
                    ("fc1", C, 4 * C),
                    ("fc2", 4 * C, C),
                ):
                    time_linear(sheet, piece, rows, inner, out)
                time_linear_gelu(sheet, rows, C, 4 * C)
                time_norms(sheet, batch, N, C)
                time_token_linear(sheet, batch, C)
                time_attention(sheet, batch, N, C, heads)


if __name__ == "__main__":
    main()
