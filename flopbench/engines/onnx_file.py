"""A program as an ONNX file, for every engine that reads one."""

import re
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer
from torch.export import ExportedProgram

from flopbench.engines.base import Request, quiet
from flopbench.errors import FlopbenchError, gist

OPSET = 20
"""The first with a Gelu of its own. That of 23 has an Attention too, which ONNX Runtime runs on a CPU no
faster than the operators that it stands for."""


def write_onnx(program: ExportedProgram, path: Path, request: Request) -> None:
    """Write a program as an ONNX file, with what it says of itself.

    Its input is called `images` where it is one image, its output `logits` or `maps`; the first axis of both
    is called `batch`. The weights are in the file, or beside it (`files`) if they are more than it can hold.

    Raises:
        FlopbenchError: torch.onnx cannot take the program.
    """
    with quiet():
        made = _exported(program)
        _clean(made.model)
        made.model.metadata_props.update({**request.about, "opset": str(OPSET)} if request.about else {})
        made.save(path)


def files(path: Path) -> list[Path]:
    """An ONNX file, and that of its weights where these lie beside it."""
    return [one for one in (path, path.with_name(f"{path.name}.data")) if one.exists()]


def _exported(program: ExportedProgram) -> Any:
    try:
        return torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=_input_names(program),
            output_names=_output_names(program),
            optimize=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise FlopbenchError(f"torch.onnx cannot take {_network(program)}: {gist(str(cause))}") from error


def _input_names(program: ExportedProgram) -> list[str] | None:
    shapes = _shapes(program, program.graph_signature.user_inputs)
    return ["images"] if [len(shape) for shape in shapes] == [4] else None


def _output_names(program: ExportedProgram) -> list[str]:
    shapes = _shapes(program, program.graph_signature.user_outputs)
    if len(shapes) == 1:
        return [{2: "logits", 4: "maps"}.get(len(shapes[0]), "output")]
    return [f"output_{index}" for index in range(len(shapes))]


def _shapes(program: ExportedProgram, names: Any) -> list[Any]:
    nodes = {node.name: node for node in program.graph.nodes}
    return [nodes[name].meta["val"].shape for name in names]


def _network(program: ExportedProgram) -> str:
    """The class of the network, which a program knows of its operators alone."""
    for node in program.graph.nodes:
        for _, kind in node.meta.get("nn_module_stack", {}).values():
            return str(kind).rpartition(".")[2]
    return "the network"


def _clean(model: ir.Model) -> None:
    """Fold what is constant, name the batch, and forget the lines of source, which hold paths."""
    optimizer.inline(model)
    # The exporter's own optimiser also looks for patterns, which takes most of its time and leaves the
    # engines, which look for more, with nearly the same operators.
    optimizer.fold_constants(model, onnx_shape_inference=True)
    ir.passes.Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.ClearMetadataAndDocStringPass(),
    )(model)
    _name_batch(model)


def _name_batch(model: ir.Model) -> None:
    shape = model.graph.inputs[0].shape
    first = shape[0] if shape is not None else None
    symbol = first.value if isinstance(first, ir.SymbolicDim) else None
    if symbol is None:
        return
    word = re.compile(rf"\b{re.escape(symbol)}\b")

    def named(size: int | ir.SymbolicDim) -> int | str | None:
        return size if isinstance(size, int) else size.value and word.sub("batch", size.value)

    values = [*model.graph.inputs, *(value for node in model.graph.all_nodes() for value in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([named(size) for size in value.shape])
