"""One model, ready to run one pass: what is timed, and what has to happen before each timed call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.cells import Cell
from flopbench.engines import Deployed, Request, deploy
from flopbench.errors import FlopbenchError
from flopbench.flops.meta import initialised
from flopbench.inputs import Inputs, inputs_for, make_inputs
from flopbench.loss import loss_of, task_loss
from flopbench.models.catalog import parse_name
from flopbench.models.factory import create_model, perturb
from flopbench.modes import CAPTURING, COMPILING, CONVERTING, ENGINES, DType, Mode
from flopbench.private import compile_often, compiled_alone, keep_address
from flopbench.structures import mapped, tensors
from flopbench.symmetries import fold
from flopbench.timing.allocator import keep_freed_memory
from flopbench.timing.cache import Flush, flush_for

_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Images that a cell in int8 is calibrated on, at the least.
_CALIBRATION = 16
_COMPILE_MODES = {"compile": None, "max-autotune": "max-autotune", "cuda-graph": "reduce-overhead"}


@dataclass(frozen=True)
class Workload:
    """A pass of a model on fixed inputs, or a callable with its inputs.

    Attributes:
        model: the module, not compiled; its parameters and gradients are what the pass holds.
        prepare: runs before each call, outside the timed region.
        step: the timed call; its result is what `prepare` returned, worked on.
        logits: the forward pass as the timed one runs it (same mode and dtype), for the check of outputs:
            all that it gives, its tensors copied; of a callable as it gives it.
        inputs: what `logits` takes.
        optimiser: of a train pass; its state is part of what the pass holds.
        captured: whether the call is replayed as a CUDA graph, in so far as it can be.
        flushed_bytes: read before each call, outside the timed region, so that its data are in no cache.
        deployed: of what an engine executes; `model` is what it was made of.
    """

    model: nn.Module
    prepare: Callable[[], Any]
    step: Callable[[Any], Any]
    logits: Callable[[Inputs], Any]
    inputs: Inputs = field(default_factory=Inputs)
    optimiser: torch.optim.Optimizer | None = None
    captured: bool = False
    flushed_bytes: int = 0
    deployed: Deployed | None = None

    @classmethod
    def of(cls, function: Callable[..., Any], *args: Any, **kwargs: Any) -> "Workload":
        """Calls of `function(*args, **kwargs)`, with gradients where the caller has them switched on."""
        model = function if isinstance(function, nn.Module) else nn.Identity()
        inputs = Inputs(*args, **kwargs)
        return cls(model, lambda: None, lambda _: inputs.call(function), lambda x: x.call(function), inputs)

    def run(self) -> None:
        """One call, with what comes before it."""
        self.step(self.prepare())


def weights_dtype(cell: Cell) -> torch.dtype:
    """The dtype of a cell's weights and inputs; autocast, tf32 and engines that convert keep them in fp32."""
    if cell.mode in CONVERTING:
        return torch.float32
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
    ours = parse_name(name).spec is not None
    torch.manual_seed(seed)
    model = new_model(name, cell, device, values=not cell.pair.perturb)
    if not ours:
        model = model.to(device)
        # Weights without a shape can neither be perturbed nor given to an optimiser.
        batch_size = 1 if cell.pair.inputs is None else cell.batch_size
        initialised(model, inputs_for(model, cell.pair, batch_size, cell.image_size))
    if cell.pair.perturb:
        model = perturb(model.to_empty(device=device) if ours else model, seed)
    if cell.pair.cast:
        # Unlike `.to(dtype)` these leave complex numbers complex.
        {torch.float16: model.half, torch.bfloat16: model.bfloat16}.get(weights_dtype(cell), model.float)()
    for weight in chain(model.parameters(), model.buffers()):
        weight.data = _laid_out(weight.data, cell)
    return model


def new_model(name: str, cell: Cell, device: torch.device, *, values: bool = True) -> nn.Module:
    """A cell's model as it is built, in its own dtype; one of ours without `values` is on the meta device."""
    options: dict[str, Any] = {"image_size": cell.image_size, "num_classes": cell.num_classes}
    ours = parse_name(name).spec is not None
    if ours:
        options |= {"impl": cell.impl, **cell.options(name)}
    with torch.device("meta") if ours and not values else device:
        return create_model(name, **options)


def cell_inputs(cell: Cell, device: torch.device, seed: int = 0) -> Inputs:
    """What both of a cell's models are called with, in its dtype, images in its memory format."""
    dtype = weights_dtype(cell) if cell.pair.cast else None
    inputs = make_inputs(cell.pair, cell.batch_size, cell.image_size, device=device, dtype=dtype, seed=seed)
    with torch.no_grad():
        return inputs.map(lambda x: _laid_out(x, cell).requires_grad_(x.requires_grad))


def _laid_out(x: Tensor, cell: Cell) -> Tensor:
    """Images and kernels of convolutions in the cell's memory format; all else has none."""
    if x.ndim != 4 or x.layout is not torch.strided or x.is_nested:
        return x
    channels_last = cell.memory_format == "channels_last"
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def make_workload(
    model: nn.Module, inputs: Inputs, cell: Cell, calibration: Sequence[tuple[Tensor, ...]] = ()
) -> Workload:
    """The cell's pass of `model` on `inputs`, compiled where the cell says so (on the first call).

    What an engine quantises is calibrated on `calibration`, inputs like those to come; by default on what
    cells are measured with, which is enough to tell times.

    Sets what a process has but once, for one cell is measured at a time: the precision of products, that
    cuDNN looks for its fastest convolutions, and that freed memory is kept. For a forward pass layers have
    the weights that they compute with (`fold`), as whoever deploys a network would: `model` can do nothing
    but infer then.

    Raises:
        FlopbenchError: a train pass of a model without parameters that require gradients, or a loss that
            cannot be found.
    """
    set_precision(cell.dtype)
    # As whoever times networks has it: shapes do not change, and the first call waits for the search.
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()
    if cell.pass_ == "forward" and cell.mode not in ENGINES:
        fold(model.eval(), branches=cell.dtype != "autocast-fp16")
    network: Callable[..., Any] = model
    deployed = None
    if cell.mode in ENGINES:
        deployed = _deployed(model, inputs, cell, calibration)
        network = deployed.session
    elif cell.mode == "compile-blocks":
        compile_in_place(model, cell.mode)
    elif cell.mode != "eager":
        network = torch.compile(model, mode=_COMPILE_MODES[cell.mode], dynamic=False)
    run = _under_autocast(lambda given: given.call(network), cell)
    captured = cell.device == "cuda" and cell.mode in CAPTURING
    if captured:
        # Else every replay begins with a copy of them. Other inputs, as in a check, are captured anew.
        for tensor in inputs.tensors:
            keep_address(tensor)
    flush = flush_for(cell, inputs.tensors[0].device) or (lambda: None)

    def workload(prepare: Callable[[], Any], step: Callable[[Any], Any], optimiser: Any = None) -> Workload:
        flushed = flush.buffer.nbytes if isinstance(flush, Flush) else 0
        return Workload(model, prepare, step, logits, inputs, optimiser, captured, flushed, deployed)

    def logits(given: Inputs) -> Any:
        # With gradients wherever the timed call has them: it must be the same compiled graph. A CUDA graph
        # writes its next output over this one.
        with torch.set_grad_enabled(cell.pass_ != "forward"):
            return mapped(run(given), lambda x: x.detach().clone())

    if cell.pass_ == "forward":

        def forward(_: Any) -> Any:
            with torch.no_grad():
                return run(inputs)

        return workload(flush, forward)
    model.train()
    loss = loss_of(cell.pair) or (task_loss(cell.task) if cell.pass_ == "train" else None)
    graded = [tensor for tensor in inputs.tensors if tensor.requires_grad]

    def forget_gradients(of: nn.Module | torch.optim.Optimizer) -> None:
        # Those of the call before are dropped, not added to: adding is the optimiser's business.
        of.zero_grad(set_to_none=True)
        for tensor in graded:
            tensor.grad = None

    def evaluate(given: Inputs) -> Any:
        output = given.call(network)
        return loss(output, given) if loss else output

    run_to_loss = _under_autocast(evaluate, cell)
    if cell.pass_ == "backward":

        def prepare() -> tuple[list[Tensor], list[Tensor]]:
            forget_gradients(model)
            outputs = [part for part in tensors(run_to_loss(inputs)) if part.requires_grad]
            if not outputs:
                raise FlopbenchError("nothing of the output can be differentiated: measure the forward pass")
            made = torch.ones_like if loss else torch.randn_like
            gradients = [made(part) / part.numel() for part in outputs]
            flush()
            return outputs, gradients

        def backward(prepared: tuple[list[Tensor], list[Tensor]]) -> None:
            torch.autograd.backward(*prepared)

        return workload(prepare, backward)

    optimiser = _optimiser(model, cell)

    def train(_: Any) -> None:
        forget_gradients(optimiser)
        run_to_loss(inputs).backward()
        optimiser.step()

    return workload(flush, train, optimiser)


def _deployed(
    model: nn.Module, inputs: Inputs, cell: Cell, calibration: Sequence[tuple[Tensor, ...]]
) -> Deployed:
    """A cell's model in the engine that is its mode.

    Raises:
        FlopbenchError: it is called with more than tensors, one after the other.
    """
    if inputs.kwargs or not all(isinstance(x, Tensor) for x in inputs.args):
        raise FlopbenchError(
            f"mode {cell.mode} takes networks that are called with tensors alone, one after the other: "
            f"{cell.pair.spoken} is called with {inputs}"
        )
    if cell.dtype == "int8" and not calibration:
        # Of one image alone, the ranges of its features would be taken for those of all.
        device, batches = inputs.tensors[0].device, -(-_CALIBRATION // cell.batch_size)
        calibration = [cell_inputs(cell, device, seed).args for seed in range(batches)]
    name: Any = cell.mode
    return deploy(name, model, inputs.args, Request(cell.dtype, cell.device, calibration=calibration))


def _optimiser(model: nn.Module, cell: Cell) -> torch.optim.Optimizer:
    """AdamW of what is trained.

    Raises:
        FlopbenchError: nothing is, or it has gradients that AdamW does not take.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise FlopbenchError(
            f"a train pass of {cell.pair.spoken} needs parameters that require gradients, and one of its "
            "networks has none: measure forward"
        )
    if any(isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse for m in model.modules()):
        raise FlopbenchError(
            f"AdamW, with which {cell.pair.spoken} is trained, takes no sparse gradients: build its "
            "embeddings with sparse=False, or measure forward and backward"
        )
    # Of complex numbers there is no fused version.
    fused = all(parameter.is_floating_point() for parameter in trained)
    return torch.optim.AdamW(trained, lr=1e-4, fused=fused)


def compile_in_place(model: nn.Module, mode: Mode) -> None:
    """Compile, at its first call, a network or each of its blocks; what is compiled already stays so.

    Raises:
        RuntimeError: blocks are to be compiled, and there are none.
    """
    if mode not in COMPILING:
        return
    compile_often()
    for unit in _compiled_units(model, mode):
        if not compiled_alone(unit):
            unit.compile(mode=_COMPILE_MODES.get(mode), dynamic=False)


def compiled_kinds(model: nn.Module, mode: Mode) -> set[tuple[Any, ...]]:
    """What the pieces of a network that are compiled each in one consist of: those of one kind share what is
    compiled, in whichever network they are.
    """
    return {
        tuple(
            (type(part), *(weight.shape for weight in part.parameters(recurse=False)))
            for part in unit.modules()
        )
        for unit in _compiled_units(model, mode)
    }


def _compiled_units(model: nn.Module, mode: Mode) -> list[nn.Module]:
    return repeated_blocks(model) if mode == "compile-blocks" else [model]


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The members of every list of modules of one class, which share one compilation per shape.

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


def _under_autocast(function: Callable[[Inputs], Any], cell: Cell) -> Callable[[Inputs], Any]:
    if not cell.dtype.startswith("autocast-"):
        return function

    def autocast(inputs: Inputs) -> Any:
        with torch.autocast(cell.device, product_dtype(cell.dtype)):
            return function(inputs)

    return autocast


def set_precision(dtype: DType) -> None:
    """Full fp32 products and convolutions, which cuDNN rounds to tf32 by default, unless `dtype` is tf32."""
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
