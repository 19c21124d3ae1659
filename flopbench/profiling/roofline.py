"""The least time that a device needs for a network, layer by layer, from counted work and measured peaks.

A layer takes at least its FLOPs at the peak of a large matrix product and at least its bytes at the rate of
a copy of that many bytes, so at least the longer of both (Williams, Waterman, Patterson, *Roofline*, 2009).
Unfused, each operator reads its inputs and writes its outputs; fused, a layer is one kernel, in the
backward pass another one. On CUDA each kernel takes the device some time however small it is, and the host
has to launch it: both are measured once and multiplied, a prediction like the rest.
"""

from contextlib import suppress

import torch
from torch import nn

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError, in_one_line
from flopbench.flops.costs import LayerCost, costs_of_layers, optimiser_cost
from flopbench.flops.dispatch import Observation, observe
from flopbench.flops.meta import initialised
from flopbench.inputs import inputs_for
from flopbench.loss import loss_of
from flopbench.models.catalog import parse_name
from flopbench.models.factory import create_model
from flopbench.modes import CAPTURING, DeviceKind, DType, Mode
from flopbench.profiling.events import part_of
from flopbench.results import Bound, Peaks


class Work:
    """What one call of a model has to do, whatever the device: counted once, bounded often."""

    def __init__(self, name: str, cell: Cell) -> None:
        """Count a pass of the model `name` as `cell` runs it.

        Raises:
            FlopbenchError: it cannot be built or run, neither on the meta device nor on the CPU.
        """
        self.dtype: DType = cell.dtype
        # Autocast keeps residuals in fp32: its bytes are a lower bound.
        size = 4 if cell.dtype in ("fp32", "tf32") else 2
        model, observed = _observed(name, cell, size)
        self.uncounted = observed.uncounted
        self.layers: list[LayerCost] = costs_of_layers(model, observed)
        computing = [call for call in observed.calls if call.reads or call.writes]
        self.operators = len(computing)
        self.fused_operators = len({(call.module, call.backward) for call in computing})
        if cell.pass_ == "train":
            self.layers.append(optimiser_cost(model, size))
            self.operators += 1
            self.fused_operators += 1

    @property
    def macs(self) -> int:
        """Of the whole call."""
        return sum(layer.macs for layer in self.layers)

    def bytes_moved(self, mode: Mode) -> int:
        """Of the whole call: operator by operator when eager, layer by layer when compiled."""
        return sum(layer.bytes if mode == "eager" else layer.fused_bytes for layer in self.layers)

    def bound(self, peaks: Peaks) -> Bound:
        """The least time on a device with these peaks.

        Raises:
            FlopbenchError: the peak of the dtype was not measured.
        """
        rate = peak_of(peaks, self.dtype)
        parts: dict[str, tuple[float, float]] = {}
        for layer in self.layers:
            unfused = _longer(layer, layer.bytes, rate, peaks)
            fused = _longer(layer, layer.fused_bytes, rate, peaks)
            before = parts.get(part_of(layer.name), (0.0, 0.0))
            parts[part_of(layer.name)] = (before[0] + unfused, before[1] + fused)
        return Bound(
            arithmetic=2 * self.macs / rate,
            unfused=sum(unfused for unfused, _ in parts.values()),
            fused=sum(fused for _, fused in parts.values()),
            launches=self.operators * (peaks.launch_seconds or 0.0),
            operators=self.operators,
            fused_launches=self.fused_operators * (peaks.launch_seconds or 0.0),
            fused_operators=self.fused_operators,
            kernel_seconds=peaks.kernel_seconds or 0.0,
            parts=parts,
        )


def _observed(name: str, cell: Cell, dtype_bytes: int) -> tuple[nn.Module, Observation]:
    """A model and its pass, on the meta device, or else where its path may depend on values."""

    def on(device: str) -> tuple[nn.Module, Observation]:
        with torch.device(device):
            model = create_model(name, cell.image_size, cell.num_classes, **cell.options(name)).eval()
            inputs = inputs_for(model, cell.pair, cell.batch_size, cell.image_size)
            initialised(model, inputs)
        return model, observe(model, inputs, cell.pass_, dtype_bytes, loss_of(cell.pair))

    parsed = parse_name(name)
    if parsed.spec is not None:
        return on("meta")
    if not parsed.given:
        # Somebody else's network may do anything, `sys.exit` included.
        with suppress(Exception, SystemExit):
            return on("meta")
    try:
        return on("cpu")
    except FlopbenchError:
        raise
    except (Exception, SystemExit) as error:
        raise FlopbenchError(f"cannot count {name}: {in_one_line(error)}") from error


def peak_of(peaks: Peaks, dtype: DType) -> float:
    """FLOP/s of a matrix product in the dtype, or in the low precision of an autocast one.

    Raises:
        FlopbenchError: it was not measured.
    """
    low: dict[DType, DType] = {"autocast-bf16": "bf16", "autocast-fp16": "fp16"}
    for name in (dtype, low.get(dtype, dtype)):
        if name in peaks.flops_per_second:
            return peaks.flops_per_second[name]
    known = ", ".join(peaks.flops_per_second) or "none"
    raise FlopbenchError(
        f"the peaks hold no matrix products in {dtype}, only in {known}: calibrate with {dtype}"
    )


def _longer(layer: LayerCost, moved: int, rate: float, peaks: Peaks) -> float:
    # The working set is what a layer holds at once; its operators move parts of it again and again.
    return max(2 * layer.macs / rate, moved / peaks.bandwidth(layer.fused_bytes))


def least_seconds(bound: Bound, device: DeviceKind, mode: Mode) -> float:
    """The least time as `mode` runs a network: eager unfused, else fused, with its launches.

    A CPU starts an operator when the one before has ended, so launches add; in compiled networks they are
    calls of functions, which cost next to nothing. A GPU's host runs ahead, so the longer of launching and
    working counts; a CUDA graph is launched once.
    """
    eager = mode == "eager"
    if device == "cpu":
        return bound.unfused + bound.launches if eager else bound.fused
    work, count, launches = (
        (bound.unfused, bound.operators, bound.launches)
        if eager
        else (bound.fused, bound.fused_operators, bound.fused_launches)
    )
    return max(work + count * bound.kernel_seconds, 0.0 if mode in CAPTURING else launches)


def predicted_speedup(baseline: Bound, candidate: Bound, device: DeviceKind, mode: Mode) -> float:
    """The speed-up that the two bounds allow: the prediction where nothing was measured."""
    return least_seconds(baseline, device, mode) / least_seconds(candidate, device, mode)
