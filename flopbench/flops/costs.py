"""Costs a layer or an operator: MACs, elementwise operations, bytes and parameters, kept apart."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from flopbench.flops.dispatch import Observation, observe
from flopbench.flops.recorder import Call, Operand
from flopbench.inputs import Inputs
from flopbench.models.averaged import layer_name
from flopbench.modes import Pass

# AdamW an element of a parameter: decay 1, first moment 3, second moment 4, denominator √, ÷ and + 9, step 6.
ADAMW_OPERATIONS = 23


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs in one pass over a batch, its children not included.

    Attributes:
        name: the module's path; "" for what the network does itself, "(optimiser)" for the step of AdamW.
        type: the module's class.
        macs: multiply-accumulates of matrix products and convolutions. FLOPs are twice as many.
        elementwise: elementwise and normalisation operations.
        bytes_read: by the operators as they run one by one, each reading its inputs from memory.
        bytes_written: by the same.
        fused_bytes: lower bound for the layer in one kernel: what comes from outside is read once, what is
            used outside is written once, parameters are read once, and nothing between is stored.
        parameters: trainable, the children's and those that another layer has before not included.
    """

    name: str
    type: str = ""
    macs: int = 0
    elementwise: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    fused_bytes: int = 0
    parameters: int = 0

    @property
    def bytes(self) -> int:
        """Read and written, unfused."""
        return self.bytes_read + self.bytes_written


FIGURES = ("macs", "elementwise", "bytes_read", "bytes_written", "fused_bytes", "parameters")


def total(costs: Iterable[LayerCost], name: str = "", type: str = "") -> LayerCost:
    """The sum of some costs under a name."""
    costs = list(costs)
    return LayerCost(name, type, *(sum(getattr(cost, figure) for cost in costs) for figure in FIGURES))


def layer_costs(
    model: nn.Module, inputs: Inputs, pass_: Pass = "forward", dtype_bytes: int = 4
) -> list[LayerCost]:
    """What each layer of a network costs in a pass, in the order of `model.named_modules()`.

    Counted on the operators that run (FlopCounterMode's formulas), so any network will do; on the meta
    device it costs neither memory nor arithmetic. A convolution, a fused attention and every other operator
    counts as one that reads its inputs and writes its outputs; views move nothing.

    Args:
        model: best built on the meta device.
        inputs: what it is called with, on its device. MACs, operations and the bytes of features grow with
            the batch, the bytes of weights do not.
        pass_: `forward`; `backward`, the gradients of all parameters alone; `train`, both and the step of
            AdamW, in one kernel that reads weight, gradient and two moments and writes all but the gradient.
        dtype_bytes: bytes an element of floating point, e.g. 2 for fp16 and bf16. Under autocast some
            operators would move more.

    Returns:
        A cost for each module that computes, moves or holds something itself, not by its children alone,
        by path; those within an averaged network by their path in that network.
    """
    costs = costs_of_layers(model, observe(model, inputs, pass_, dtype_bytes))
    return [*costs, optimiser_cost(model, dtype_bytes)] if pass_ == "train" else costs


def costs_of_layers(model: nn.Module, observation: Observation) -> list[LayerCost]:
    """The costs in a pass that has been observed already; the optimiser is not among them."""
    owned: dict[str, list[Call]] = {}
    for call in observation.calls:
        if call.reads or call.writes or call.macs:
            owned.setdefault(call.module, []).append(call)
    fused = fused_bytes(observation)
    costs = []
    # What modules share counts for the first of them.
    counted = set[nn.Parameter]()
    for path, module in model.named_modules():
        own = {p for p in module.parameters(recurse=False) if p.requires_grad} - counted
        counted |= own
        parameters = sum(p.numel() for p in own)
        if path in owned or parameters:
            cost = _sum(owned.get(path, []), layer_name(model, path), type(module).__name__)
            costs.append(replace(cost, fused_bytes=fused.get(path, 0), parameters=parameters))
    return costs


def costs_of_operators(observation: Observation) -> list[LayerCost]:
    """What each kind of operator costs in a pass, in the order in which they first run; views are left out.

    `fused_bytes` is what the operators move anyhow: each is a kernel of its own.
    """
    by_name: dict[str, list[Call]] = {}
    for call in observation.calls:
        if call.reads or call.writes:
            by_name.setdefault(call.operator, []).append(call)
    costs = [_sum(calls, name, "operator") for name, calls in by_name.items()]
    return [replace(cost, fused_bytes=cost.bytes) for cost in costs]


def _sum(calls: list[Call], name: str, kind: str) -> LayerCost:
    return LayerCost(
        name,
        kind,
        macs=sum(call.macs for call in calls),
        elementwise=sum(call.elementwise or 0 for call in calls),
        bytes_read=sum(operand.size for call in calls for operand in call.reads),
        bytes_written=sum(operand.size for call in calls for operand in call.writes),
    )


def optimiser_cost(model: nn.Module, dtype_bytes: int) -> LayerCost:
    """A step of AdamW in one kernel: reads weight, gradient and two moments, writes all but the gradient."""
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    read, written = 4 * count * dtype_bytes, 3 * count * dtype_bytes
    return LayerCost("(optimiser)", "AdamW", 0, ADAMW_OPERATIONS * count, read, written, read + written)


def fused_bytes(observation: Observation) -> dict[str, int]:
    """Path → the bytes that the module's own operators must move if they were one kernel a pass.

    Forward and backward are two kernels: what the second needs of the first goes through memory.
    """
    readers: dict[int, set[tuple[str, bool]]] = {}
    for call in observation.calls:
        for operand in call.reads:
            readers.setdefault(operand.storage, set()).add((call.module, call.backward))
    groups: dict[tuple[str, bool], list[Call]] = {}
    for call in observation.calls:
        groups.setdefault((call.module, call.backward), []).append(call)
    result: dict[str, int] = {}
    for (path, backward), calls in groups.items():
        produced: set[int] = set()
        reads, writes = _Union(), _Union()
        for call in calls:
            for operand in call.reads:
                if operand.storage not in produced:
                    reads.add(operand)
            for operand in call.writes:
                produced.add(operand.storage)
                used_elsewhere = readers.get(operand.storage, set()) - {(path, backward)}
                if used_elsewhere or operand.storage in observation.kept:
                    writes.add(operand)
        result[path] = result.get(path, 0) + reads.size() + writes.size()
    return result


class _Union:
    """Bytes of some parts of memory, each counted once."""

    def __init__(self) -> None:
        self._parts: dict[int, set[Operand]] = {}

    def add(self, operand: Operand) -> None:
        self._parts.setdefault(operand.storage, set()).add(operand)

    def size(self) -> int:
        # Parts that overlap without being the same cannot come to more than their memory.
        return sum(
            min(sum(part.size for part in parts), max(part.whole for part in parts))
            for parts in self._parts.values()
        )
