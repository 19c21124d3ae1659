"""One model, ready to run one pass: what is timed, and what has to happen before each timed call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flopbench.cells import CAPTURING, Cell, DType
from flopbench.errors import FlopbenchError
from flopbench.flops.meta import initialised
from flopbench.inputs import inputs_for
from flopbench.models.catalog import parse_name
from flopbench.models.factory import create_model, perturb
from flopbench.private import keep_address
from flopbench.structures import leaves, tensors
from flopbench.symmetries import fold
from flopbench.testing.invariance import random_images
from flopbench.timing.allocator import keep_freed_memory
from flopbench.timing.cache import Flush, flush_for

_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
_COMPILE_MODES = {"compile": None, "max-autotune": "max-autotune", "cuda-graph": "reduce-overhead"}


@dataclass(frozen=True)
class Workload:
    """A pass of a model on a fixed input, or a callable with its inputs.

    Attributes:
        model: the module, not compiled; its parameters and gradients are what the pass holds.
        prepare: runs before each call, outside the timed region.
        step: the timed call; its result is what `prepare` returned, worked on.
        logits: the forward pass as the timed one runs it (same mode and dtype), for the check of outputs:
            all that it gives, its tensors copied and in the order of `leaves`; of a callable as it gives it.
        inputs: what `logits` takes.
        optimiser: of a train pass; its state is part of what the pass holds.
        captured: whether the call is replayed as a CUDA graph, in so far as it can be.
        flushed_bytes: read before each call, outside the timed region, so that its data are in no cache.
    """

    model: nn.Module
    prepare: Callable[[], Any]
    step: Callable[[Any], Any]
    logits: Callable[..., Any]
    inputs: tuple[Any, ...] = ()
    optimiser: torch.optim.Optimizer | None = None
    captured: bool = False
    flushed_bytes: int = 0

    @classmethod
    def of(cls, function: Callable[..., Any], *inputs: Any) -> "Workload":
        """Calls of `function(*inputs)`, with gradients where the caller has them switched on."""
        model = function if isinstance(function, nn.Module) else nn.Identity()
        return cls(model, lambda: None, lambda _: function(*inputs), function, inputs)

    def run(self) -> None:
        """One call, with what comes before it."""
        self.step(self.prepare())


def weights_dtype(cell: Cell) -> torch.dtype:
    """The dtype of a cell's weights and images; autocast and tf32 keep them in fp32."""
    return _LOW.get(cell.dtype, torch.float32)


def product_dtype(dtype: DType) -> torch.dtype:
    """The dtype of the factors of matrix products; tf32 rounds those of fp32."""
    return _LOW.get(dtype.removeprefix("autocast-"), torch.float32)


def build_model(name: str, cell: Cell, device: torch.device, seed: int = 0) -> nn.Module:
    """A cell's model on its device, in the cell's dtype, with perturbed weights if its pair says so.

    Our own networks are laid out on the meta device first, so that no time goes into an
    initialisation that the perturbation overwrites. The cell's memory format is that of images and
    weights; in between our networks keep to their own.
    """
    options: dict[str, Any] = {"image_size": cell.image_size, "num_classes": cell.num_classes}
    ours = parse_name(name).spec is not None
    if ours:
        options |= {"impl": cell.impl, **cell.options(name)}
    torch.manual_seed(seed)
    with torch.device("meta") if ours and cell.pair.perturb else device:
        model = create_model(name, **options)
    if not ours:
        # Weights without a shape can neither be perturbed nor given to an optimiser.
        initialised(model, inputs_for(model, cell.pair, 1, cell.image_size))
    if cell.pair.perturb:
        model = perturb(model.to_empty(device=device) if ours else model, seed)
    model = model.to(weights_dtype(cell))
    return model.to(memory_format=_memory_format(cell))  # pyright: ignore[reportCallIssue]


def make_images(cell: Cell, device: torch.device, seed: int = 0) -> Tensor:
    """Normal noise `[B, 3, H, W]` in the cell's dtype and memory format, the same for both of a pair."""
    images = random_images(cell.batch_size, cell.image_size, device=device, seed=seed)
    return images.to(weights_dtype(cell), memory_format=_memory_format(cell))


def make_workload(model: nn.Module, images: Tensor, cell: Cell) -> Workload:
    """The cell's pass of `model` on `images`, compiled where the cell says so (on the first call).

    Sets what a process has but once, for a process measures one cell: the precision of products, that cuDNN
    looks for its fastest convolutions, and that freed memory is kept. For a forward pass layers have the
    weights that they compute with (`fold`), as who deploys a network would: `model` can do nothing but infer
    then.
    """
    set_precision(cell.dtype)
    # As whoever times networks has it: shapes do not change, and the first call waits for the search.
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()
    if cell.pass_ == "forward":
        fold(model.eval())
    network: Callable[[Tensor], Any] = model
    if cell.mode == "compile-blocks":
        for block in repeated_blocks(model):
            block.compile(dynamic=False)
    elif cell.mode != "eager":
        network = torch.compile(model, mode=_COMPILE_MODES[cell.mode], dynamic=False)
    run = _forward(network, cell)
    captured = cell.device == "cuda" and cell.mode in CAPTURING
    if captured:
        # Else every replay begins with a copy of them. Other images, as in a check, are captured anew.
        keep_address(images)
    flush = flush_for(cell, images.device) or (lambda: None)

    def workload(prepare: Callable[[], Any], step: Callable[[Any], Any], optimiser: Any = None) -> Workload:
        flushed = flush.buffer.nbytes if isinstance(flush, Flush) else 0
        return Workload(model, prepare, step, logits, (images,), optimiser, captured, flushed)

    def logits(x: Tensor) -> list[Any]:
        # With gradients wherever the timed call has them: it must be the same compiled graph. A CUDA graph
        # writes its next output over this one.
        with torch.set_grad_enabled(cell.pass_ != "forward"):
            parts = leaves(run(x))
        return [part.detach().clone() if isinstance(part, Tensor) else part for part in parts]

    if cell.pass_ == "forward":

        def forward(_: Any) -> Any:
            with torch.no_grad():
                return run(images)

        return workload(flush, forward)
    model.train()
    if cell.pass_ == "backward":

        def prepare() -> tuple[list[Tensor], list[Tensor]]:
            # The gradients of the call before are dropped, not added to: adding is the optimiser's business.
            model.zero_grad(set_to_none=True)
            outputs = [part for part in tensors(run(images)) if part.requires_grad]
            if not outputs:
                raise FlopbenchError("nothing of the output can be differentiated: measure the forward pass")
            gradients = [torch.randn_like(part) / part.numel() for part in outputs]
            flush()
            return outputs, gradients

        def backward(prepared: tuple[list[Tensor], list[Tensor]]) -> None:
            torch.autograd.backward(*prepared)

        return workload(prepare, backward)

    labels = torch.arange(cell.batch_size, device=images.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def train(_: Any) -> None:
        optimiser.zero_grad(set_to_none=True)
        logits = _class_scores(run(images)).float()
        F.cross_entropy(logits, labels % logits.shape[-1]).backward()
        optimiser.step()

    return workload(flush, train, optimiser)


def compiled_units(model: nn.Module, cell: Cell) -> list[nn.Module]:
    """What is compiled in one piece each, in a cell that compiles."""
    return repeated_blocks(model) if cell.mode == "compile-blocks" else [model]


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The members of every list of modules of one class, which share one compilation a shape.

    Of lists within lists (the blocks of stages) the innermost.

    Raises:
        RuntimeError: the model has no such list.
    """
    lists = (m for m in model.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1)
    blocks = [block for group in lists if len({type(b) for b in group}) == 1 for block in group]
    if not blocks:
        raise RuntimeError(f"{type(model).__name__} has no repeated blocks to compile; use mode compile")
    members = set(map(id, blocks))
    return [b for b in blocks if not any(id(part) in members for part in b.modules() if part is not b)]


def _class_scores(output: Any) -> Tensor:
    """What a network gives, if its training step is defined: logits `[B, K]` for the cross-entropy.

    Raises:
        FlopbenchError: it gives another thing.
    """
    if isinstance(output, Tensor) and output.ndim == 2:
        return output
    given = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    raise FlopbenchError(
        f"a training step needs logits [B, K], the network gives {given}: measure forward and backward"
    )


def _forward(network: Callable[[Tensor], Any], cell: Cell) -> Callable[[Tensor], Any]:
    if not cell.dtype.startswith("autocast-"):
        return network

    def autocast(images: Tensor) -> Any:
        with torch.autocast(cell.device, product_dtype(cell.dtype)):
            return network(images)

    return autocast


def set_precision(dtype: DType) -> None:
    """Full fp32 products and convolutions, which cuDNN rounds to tf32 by default, unless `dtype` is tf32."""
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"


def _memory_format(cell: Cell) -> torch.memory_format:
    return torch.channels_last if cell.memory_format == "channels_last" else torch.contiguous_format
