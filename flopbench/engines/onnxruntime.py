"""ONNX Runtime, on a CPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import onnx
import onnxruntime
import torch
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor
from torch.export import ExportedProgram

from flopbench.engines.base import Engine, Request, Session, quiet
from flopbench.engines.onnx_file import files, write_onnx
from flopbench.kernels import Name


class OnnxRuntime(Engine):
    """ONNX Runtime's CPU execution provider."""

    name = "onnxruntime"
    suffix = ".onnx"
    # It has kernels for a layer norm and a GELU, but none for what E(X) writes out in their place.
    idiom: ClassVar[Mapping[str, Name]] = {
        "layer_norm": "joined",
        "add_layer_norm": "joined",
        "linear_gelu": "folded",
        "attention": "unfused",
    }

    def version(self) -> str:
        """Of what is installed."""
        return onnxruntime.__version__

    def provider(self, request: Request) -> str:
        """Its execution provider."""
        return "CPUExecutionProvider"

    def files(self, path: Path) -> list[Path]:
        """An ONNX file, and that of its weights where these lie beside it."""
        return files(path)

    def write(self, program: ExportedProgram, path: Path, request: Request) -> None:
        """An ONNX file; for int8 products with weights are quantised, calibrated on the inputs given."""
        if request.dtype != "int8":
            write_onnx(program, path, request)
            return
        with TemporaryDirectory(prefix="flopbench-") as folder:
            whole = Path(folder) / "fp32.onnx"
            write_onnx(program, whole, request)
            quantise(whole, path, request.calibration)

    def contents(self, path: Path) -> str:
        """The version of ONNX's operators, and how many there are."""
        model = onnx.load(str(path), load_external_data=False)
        return f"ONNX opset {model.opset_import[0].version}, {len(model.graph.node)} nodes"

    def load(self, path: Path, request: Request, threads: int) -> Session:
        """A session with a pool of so many threads."""
        session: Any = onnxruntime.InferenceSession(
            str(path), options(threads), providers=[self.provider(request)]
        )
        names = [one.name for one in session.get_inputs()]

        def call(*tensors: Tensor) -> Any:
            # The arrays share their memory with the tensors, both ways.
            given = {name: x.detach().numpy() for name, x in zip(names, tensors, strict=True)}
            outputs = [torch.from_numpy(x) for x in session.run(None, given)]
            return outputs[0] if len(outputs) == 1 else outputs

        return call


def options(threads: int) -> Any:
    """What a session is made with: its own pool of so many threads, the caller's among them."""
    made: Any = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    made.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Threads that wait for the next call spin, and would take a core from the other model's turn. Within a
    # call they have to: an operator that first has to wake them is slower. So they stop when a call ends.
    made.add_session_config_entry("session.force_spinning_stop", "1")
    # Of errors alone: warnings are about what the optimiser leaves as it is.
    made.log_severity_level = 3
    return made


def quantise(source: Path, target: Path, calibration: Sequence[tuple[Tensor, ...]]) -> None:
    """Rewrite an fp32 ONNX file in int8: products with weights and convolutions, static, per channel.

    Weights and activations alike are symmetric about zero. So the quantised −x is minus the quantised x, and
    what changes its sign under a symmetry still does.

    Args:
        source: the file.
        target: what is written.
        calibration: inputs whose largest values scale the activations.
    """
    large = len(files(source)) > 1
    prepared = source.with_name("prepared.onnx")
    with quiet():
        # The optimiser's first level alone: the quantiser knows none of the fused operators of the others.
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True, save_as_external_data=large)
        quantization.quantize_static(
            str(prepared),
            str(target),
            _Calibration(source, calibration),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_without_weights(prepared),
            use_external_data_format=large,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )


def _without_weights(path: Path) -> list[str]:
    """The products of activations, which are attention's: its small weights eight bits do not tell apart."""
    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {one.name for one in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and weights.isdisjoint(node.input)]


class _Calibration(quantization.CalibrationDataReader):
    """Inputs, one after the other, as the quantiser asks for them."""

    def __init__(self, path: Path, inputs: Sequence[tuple[Tensor, ...]]) -> None:
        session: Any = onnxruntime.InferenceSession(str(path), options(1), providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        self._left = iter([dict(zip(names, map(_array, given), strict=True)) for given in inputs])

    def get_next(self) -> Any:
        """The next input by name, None at the end."""
        return next(self._left, None)


def _array(x: Tensor) -> Any:
    return x.detach().numpy()
