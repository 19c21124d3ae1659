"""OpenVINO, on a CPU; its networks in int8 are made by NNCF."""

from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from torch import Tensor
from torch.export import ExportedProgram

from flopbench.engines.base import Engine, Request
from flopbench.errors import FlopbenchError

_PRECISION = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}
"""What is not quantised is computed in it. It is always named: of its own accord OpenVINO computes networks
of fp32 in bf16 where a CPU has units for that."""


class OpenVino(Engine):
    """OpenVINO's CPU plugin."""

    name = "openvino"
    suffix = ".xml"

    def version(self) -> str:
        """Of what is installed."""
        return openvino.__version__

    def provider(self, request: Request) -> str:
        """The device's full name."""
        return openvino.Core().get_property("CPU", "FULL_DEVICE_NAME").strip() or "CPU"

    def files(self, path: Path) -> tuple[Path, ...]:
        """The graph, and the weights beside it."""
        return path, path.with_suffix(".bin")

    def write(self, program: ExportedProgram, path: Path, request: Request) -> None:
        """OpenVINO's IR: the graph, and in a .bin beside it the weights, both of which a reader needs."""
        model: Any = openvino.convert_model(program)
        model.reshape(dict(zip(model.inputs, _shapes(program), strict=True)))
        _let_products_broadcast(model)
        if request.dtype == "int8":
            model = _quantised(model, request.calibration)
        for key, value in request.about.items():
            model.set_rt_info(value, key)
        openvino.save_model(model, path, compress_to_fp16=False)

    def contents(self, path: Path) -> str:
        """How many operations its graph has."""
        return f"OpenVINO IR, {len(openvino.Core().read_model(path).get_ops())} operations"

    def load(self, path: Path, request: Request, threads: int) -> "OpenVinoSession":
        """A session with one stream of so many threads.

        Raises:
            FlopbenchError: this CPU does not compute in bf16.
        """
        core = openvino.Core()
        if request.dtype == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise FlopbenchError("openvino has no bf16 on this CPU: choose --dtype fp32 or int8")
        settings = {
            "INFERENCE_PRECISION_HINT": _PRECISION[request.dtype],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
        }
        return OpenVinoSession(core.compile_model(path, "CPU", settings))


class OpenVinoSession:
    """A compiled network with the one request that runs it.

    It reads what it is called with where that lies, and gives its own memory, which its next call overwrites.
    """

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.request = compiled.create_infer_request()

    def __call__(self, *tensors: Tensor) -> Any:
        """A tensor, or a list of several."""
        given = [x.detach().numpy() for x in tensors]
        made = self.request.infer(given, share_inputs=True, share_outputs=True)
        outputs = [torch.from_numpy(x) for x in made.to_tuple()]
        return outputs[0] if len(outputs) == 1 else outputs


def layers(session: OpenVinoSession) -> Counter[tuple[str, str]]:
    """What a network was compiled to: how many layers of each type and precision, such as ("MVN", "f32").

    Each is one kernel: what OpenVINO fused into it is not among them.
    """
    facts = [node.get_rt_info() for node in session.compiled.get_runtime_model().get_ops()]
    return Counter((one["layerType"].astype(str), one["runtimePrecision"].astype(str)) for one in facts)


def _shapes(program: ExportedProgram) -> list[openvino.PartialShape]:
    """Of the program's inputs; only what is dynamic in the program is so for OpenVINO."""
    names = set(program.graph_signature.user_inputs)
    found = [node.meta["val"].shape for node in program.graph.nodes if node.name in names]
    return [openvino.PartialShape([n if isinstance(n, int) else -1 for n in shape]) for shape in found]


def _let_products_broadcast(model: Any) -> None:
    """Give products the weights that torch.export repeats for each sample as they are, as they need no more.

    ResMLP's products over tokens have the weights on their left.
    """
    for product in _of_type(model, "MatMul"):
        for operand in product.inputs():
            source = operand.get_source_output().get_node()
            if source.get_type_name() == "Broadcast" and _constant(source):
                operand.replace_source_output(source.input_value(0))
    model.validate_nodes_and_infer_types()


def _of_type(model: Any, kind: str) -> list[Any]:
    return [op for op in model.get_ops() if op.get_type_name() == kind]


def _constant(op: Any) -> bool:
    """Whether an operation's first argument is one."""
    return op.input_value(0).get_node().get_type_name() == "Constant"


def _keep_rank_when_choosing(model: Any) -> None:
    """Let what chooses one column of a feature drop the axis only afterwards.

    Else OpenVINO moves the scales of quantised features past it as they are, with an axis too many.
    """
    ops = openvino.opset13
    for choice in _of_type(model, "Gather"):
        data, index, axis = (choice.input_value(i) for i in range(3))
        if index.get_partial_shape().rank == 0:
            first = ops.constant(np.zeros(1, dtype=np.int64))
            kept = ops.gather(data, ops.unsqueeze(index, first), axis)
            choice.output(0).replace(ops.squeeze(kept, axis).output(0))


def _quantised(model: Any, calibration: Sequence[tuple[Tensor, ...]]) -> Any:
    """The network with products of int8, symmetric: weights per channel, features per tensor.

    Products with the weights on their left, and depthwise convolutions, stay in fp32: what NNCF makes of
    them has scales for rows of the result, or for channels that lie last, and OpenVINO has no kernel.
    """
    # It imports much, of which only int8 has need.
    import nncf

    _keep_rank_when_choosing(model)
    items = [tuple(x.detach().numpy() for x in tensors) for tensors in calibration]
    kept = [op for op in _of_type(model, "MatMul") if _constant(op)] + _of_type(model, "GroupConvolution")
    # Its progress is no output of ours.
    with redirect_stdout(StringIO()):
        model = nncf.quantize(
            model,
            nncf.Dataset(items),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(items),
            # Named after the networks it was made for: norms and sums of blocks are not quantised.
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=[op.get_friendly_name() for op in kept]),
        )
    for quantiser in _of_type(model, "FakeQuantize"):
        _make_odd(quantiser)
    model.validate_nodes_and_infer_types()
    return model


def _make_odd(quantiser: Any) -> None:
    """Let a signed quantiser round −x to the negative of what it rounds x to.

    NNCF's have one step more below zero than above. What changes its sign when an image is mirrored would be
    clipped, and rounded, another way on either side.
    """
    low, high = (quantiser.input_value(i).get_node() for i in (1, 2))
    levels = quantiser.get_attributes()["levels"]
    if levels % 2 or not np.allclose(low.get_data() * (levels - 2), -high.get_data() * levels):
        return
    negative = openvino.opset13.constant(-high.get_data()).output(0)
    for i in (1, 3):
        quantiser.input(i).replace_source_output(negative)
    quantiser.set_attribute("levels", levels - 1)
