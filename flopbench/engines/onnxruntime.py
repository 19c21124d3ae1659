"""ONNX Runtime, on a CPU."""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor
from torch.export import ExportedProgram

from flopbench.engines.base import Engine, Request, Session

OPSET = 20
"""The first with a Gelu of its own."""


class OnnxRuntime(Engine):
    """ONNX Runtime's CPU execution provider."""

    name = "onnxruntime"
    suffix = ".onnx"

    def version(self) -> str:
        """Of what is installed."""
        return onnxruntime.__version__

    def provider(self, request: Request) -> str:
        """Its execution provider."""
        return "CPUExecutionProvider"

    def write(self, program: ExportedProgram, path: Path, request: Request) -> None:
        """An ONNX file with the weights in it."""
        write_onnx(program, path, request)

    def contents(self, path: Path) -> str:
        """The version of ONNX's operators, and how many there are."""
        model = onnx.load(str(path), load_external_data=False)
        return f"ONNX opset {model.opset_import[0].version}, {len(model.graph.node)} nodes"

    def load(self, path: Path, request: Request, threads: int) -> Session:
        """A session with a pool of so many threads."""
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session: Any = onnxruntime.InferenceSession(str(path), options, providers=[self.provider(request)])
        names = [one.name for one in session.get_inputs()]

        def call(*tensors: Tensor) -> Any:
            given = {name: x.numpy() for name, x in zip(names, tensors, strict=True)}
            outputs = [torch.from_numpy(x) for x in session.run(None, given)]
            return outputs[0] if len(outputs) == 1 else outputs

        return call


def write_onnx(program: ExportedProgram, path: Path, request: Request) -> None:
    """A program as an ONNX file, with the weights in it and what it says of itself."""
    made: Any = torch.onnx.export(program, dynamo=True, opset_version=OPSET, optimize=True, verbose=False)
    model = made.model_proto
    onnx.helper.set_model_props(model, dict(request.about))
    onnx.save(model, str(path))
