"""TensorRT, on a GPU of NVIDIA's; not run on a GPU yet."""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from flopbench.engines.base import Engine, Request, Session
from flopbench.engines.onnx_file import write_onnx
from flopbench.errors import FlopbenchError

# It has no types, and few machines have it.
trt: Any = import_module("tensorrt")

LARGEST_BATCH = 64
"""That an engine takes, where it is not exported at a larger one: memory is set aside for it."""


class TensorRt(Engine):
    """TensorRT 10 and later, by way of ONNX; not run on a GPU yet.

    The network is strongly typed: it computes in the dtypes that it was exported in. An engine runs with the
    version of TensorRT and on the kind of GPU that built it, with batches of 1 to `LARGEST_BATCH`, fastest
    with the one that it was exported at. What it says of itself is the engine's name, in JSON.
    """

    name = "tensorrt"
    suffix = ".engine"

    def version(self) -> str:
        """Of what is installed."""
        return trt.__version__

    def write(self, program: ExportedProgram, path: Path, request: Request) -> None:
        """A serialised engine, with the weights in it.

        Raises:
            FlopbenchError: TensorRT cannot take the network.
        """
        log = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(log)
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        parser = trt.OnnxParser(network, log)
        with TemporaryDirectory(prefix="flopbench-") as folder:
            # Read where it lies: weights may stand in a file beside it.
            source = Path(folder) / "network.onnx"
            write_onnx(program, source, request)
            if not parser.parse_from_file(str(source)):
                reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
                raise FlopbenchError(f"TensorRT cannot take this network: {reasons}")
        network.name = json.dumps(dict(request.about))
        config = builder.create_builder_config()
        if request.dtype != "tf32":
            # It is set as they come, and rounds the factors of products in fp32.
            config.clear_flag(trt.BuilderFlag.TF32)
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            one = network.get_input(i)
            profile.set_shape(one.name, *shapes(one.shape, _batch_size(program)))
        config.add_optimization_profile(profile)
        built = builder.build_serialized_network(network, config)
        if built is None:
            raise FlopbenchError("TensorRT cannot build this network: its messages, above, say why")
        path.write_bytes(built)

    def load(self, path: Path, request: Request, threads: int) -> Session:
        """An execution context. Its calls return before the GPU has computed, as torch's do."""
        runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise FlopbenchError(
                f"{path.name}: not an engine of TensorRT {self.version()} on this kind of GPU: export it here"
            )
        return _Session(engine)


class _Session:
    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._context = engine.create_execution_context()
        # On torch's default stream TensorRT would wait for the GPU in every call.
        self._stream: Any = torch.cuda.Stream()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        given = [engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names]
        self._inputs = [name for name, is_given in zip(names, given, strict=True) if is_given]
        self._outputs = [name for name, is_given in zip(names, given, strict=True) if not is_given]

    def __call__(self, *tensors: Tensor) -> Any:
        tensors = tuple(x.contiguous() for x in tensors)
        for name, x in zip(self._inputs, tensors, strict=True):
            if not self._context.set_input_shape(name, tuple(x.shape)):
                low, _, high = self._engine.get_tensor_profile_shape(name, 0)
                raise FlopbenchError(
                    f"{name} has shape {tuple(x.shape)}: this engine takes {tuple(low)} to {tuple(high)}"
                )
            self._context.set_tensor_address(name, x.data_ptr())
        outputs = [self._empty(name, tensors[0].device) for name in self._outputs]
        current: Any = torch.cuda.current_stream()
        # Memory that is freed meanwhile is used again on the current stream, so after this one.
        self._stream.wait_stream(current)
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise FlopbenchError("TensorRT could not execute this network: its messages, above, say why")
        current.wait_stream(self._stream)
        return outputs[0] if len(outputs) == 1 else outputs

    def _empty(self, name: str, device: torch.device) -> Tensor:
        dtypes = {
            trt.DataType.FLOAT: torch.float32,
            trt.DataType.HALF: torch.float16,
            trt.DataType.BF16: torch.bfloat16,
            trt.DataType.INT32: torch.int32,
            trt.DataType.INT64: torch.int64,
            trt.DataType.BOOL: torch.bool,
        }
        shape = tuple(self._context.get_tensor_shape(name))
        output = torch.empty(shape, dtype=dtypes[self._engine.get_tensor_dtype(name)], device=device)
        self._context.set_tensor_address(name, output.data_ptr())
        return output


def shapes(shape: Sequence[int], batch_size: int) -> list[tuple[int, ...]]:
    """The least shape of an input, the one to be fastest with, and the largest.

    Args:
        shape: with -1 for the batch, where it may vary.
        batch_size: to be fastest with.
    """
    sizes = 1, batch_size, max(batch_size, LARGEST_BATCH)
    return [tuple(batch if side == -1 else side for side in shape) for batch in sizes]


def _batch_size(program: ExportedProgram) -> int:
    assert program.example_inputs is not None
    return program.example_inputs[0][0].shape[0]
