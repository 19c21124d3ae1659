"""TensorRT: what we ask it for. There is none here: a stand-in takes down what it is asked."""

import json
import sys
from enum import IntEnum
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from flopbench.engines import Request, write
from flopbench.errors import FlopbenchError
from flopbench.modes import DType

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

NAME = "flopbench.engines.tensorrt"
Mode = IntEnum("Mode", {"INPUT": 1, "OUTPUT": 2})
Flag = IntEnum("Flag", {"TF32": 3})
Typed = IntEnum("Typed", {"STRONGLY_TYPED": 1})
DTypes = IntEnum("DTypes", {"FLOAT": 0, "HALF": 1, "BF16": 2, "INT32": 3, "INT64": 4, "BOOL": 5})


class StandIn:
    """A `tensorrt` that parses ONNX with onnx, and builds and executes nothing."""

    __version__ = "10.0"
    NetworkDefinitionCreationFlag = Typed
    BuilderFlag = Flag
    TensorIOMode = Mode
    DataType = DTypes

    def __init__(self):
        self.flags = set(Flag)
        self.profile = {}
        self.typed = 0
        self.parses = True
        self.builds = b"engine"
        self.network = SimpleNamespace(num_inputs=0, get_input=self.get_input)
        self.weights = None

    class Logger:
        ERROR = 1

        def __init__(self, severity):
            pass

    def Builder(self, log):  # noqa: N802
        return SimpleNamespace(
            create_network=self.create_network,
            create_builder_config=lambda: SimpleNamespace(
                clear_flag=self.flags.remove, add_optimization_profile=lambda profile: None
            ),
            create_optimization_profile=lambda: SimpleNamespace(set_shape=self.set_shape),
            build_serialized_network=lambda network, config: self.builds,
        )

    def OnnxParser(self, network, log):  # noqa: N802
        error = SimpleNamespace(desc=lambda: "an operator is unknown")
        return SimpleNamespace(parse_from_file=self.parse, num_errors=1, get_error=lambda i: error)

    def Runtime(self, log):  # noqa: N802
        return SimpleNamespace(
            deserialize_cuda_engine=lambda content: Engine() if content == b"engine" else None
        )

    def create_network(self, flags):
        self.typed = flags
        return self.network

    def parse(self, path):
        model = onnx.load(path)
        self.weights = model.graph.initializer[0].data_type
        self.inputs = model.graph.input
        self.network.num_inputs = len(self.inputs)
        return self.parses

    def get_input(self, i):
        sides = self.inputs[i].type.tensor_type.shape.dim
        shape = tuple(-1 if side.dim_param else side.dim_value for side in sides)
        return SimpleNamespace(name=self.inputs[i].name, shape=shape)

    def set_shape(self, name, *shapes):
        self.profile[name] = shapes


class Engine:
    """Of one input of 1 to 64 rows; its context gives zeros, for it writes into no memory."""

    num_io_tensors = 2

    def create_execution_context(self):
        self.addresses, self.streams = {}, []
        return SimpleNamespace(
            set_input_shape=self.set_input_shape,
            set_tensor_address=self.addresses.__setitem__,
            get_tensor_shape=lambda name: (self.batch, 5),
            execute_async_v3=self.execute,
        )

    def get_tensor_name(self, i):
        return ("x", "y")[i]

    def get_tensor_mode(self, name):
        return Mode.INPUT if name == "x" else Mode.OUTPUT

    def get_tensor_dtype(self, name):
        return DTypes.BF16

    def get_tensor_profile_shape(self, name, profile):
        return [(1, 4), (2, 4), (64, 4)]

    def set_input_shape(self, name, shape):
        self.batch = shape[0]
        return self.batch <= 64

    def execute(self, stream):
        assert set(self.addresses) == {"x", "y"}
        assert stream == 7
        return True


@pytest.fixture
def trt(monkeypatch):
    one = StandIn()
    monkeypatch.setitem(sys.modules, "tensorrt", one)
    sys.modules.pop(NAME, None)
    yield one
    sys.modules.pop(NAME, None)


@pytest.fixture
def tensorrt(trt):
    return import_module(NAME).TensorRt()


def exported(tensorrt, path, batch=8, dtype=torch.float32, computes: DType = "fp32", about=None):
    request = Request(computes, "cuda", about or {})
    write(tensorrt, nn.Linear(4, 5).to(dtype), (torch.ones(batch, 4, dtype=dtype),), path, request)
    return path


def test_any_batch_is_asked_for_and_the_exported_one_is_the_fastest(trt, tensorrt, tmp_path):
    exported(tensorrt, tmp_path / "x.engine", batch=8)
    assert list(trt.profile.values()) == [((1, 4), (8, 4), (64, 4))]


def test_a_batch_larger_than_most_is_the_largest(trt, tensorrt, tmp_path):
    exported(tensorrt, tmp_path / "x.engine", batch=256)
    assert list(trt.profile.values()) == [((1, 4), (256, 4), (256, 4))]


@pytest.mark.parametrize(
    ("dtype", "of_weights", "tf32"),
    [("fp32", torch.float32, False), ("tf32", torch.float32, True), ("fp16", torch.float16, False)],
)
def test_it_computes_in_the_dtype_that_was_exported(trt, tensorrt, tmp_path, dtype, of_weights, tf32):
    exported(tensorrt, tmp_path / "x.engine", dtype=of_weights, computes=dtype)
    assert trt.typed == 1 << Typed.STRONGLY_TYPED
    assert (Flag.TF32 in trt.flags) is tf32
    expected = onnx.TensorProto.FLOAT16 if of_weights == torch.float16 else onnx.TensorProto.FLOAT
    assert trt.weights == expected


def test_the_file_is_the_engine_and_is_named_by_what_it_says(trt, tensorrt, tmp_path):
    path = exported(tensorrt, tmp_path / "x.engine", about={"model": "E(ViT)"})
    assert path.read_bytes() == b"engine"
    assert json.loads(trt.network.name) == {"model": "E(ViT)"}


def test_what_it_cannot_take_or_build_is_told_in_one_line(trt, tensorrt, tmp_path):
    trt.builds = None
    with pytest.raises(FlopbenchError, match="TensorRT cannot build this network"):
        exported(tensorrt, tmp_path / "x.engine")
    trt.parses = False
    with pytest.raises(FlopbenchError, match="TensorRT cannot take this network: an operator is unknown"):
        exported(tensorrt, tmp_path / "x.engine")
    (tmp_path / "x.engine").write_bytes(b"another's")
    with pytest.raises(FlopbenchError, match=r"x\.engine: not an engine of TensorRT 10\.0"):
        tensorrt.load(tmp_path / "x.engine", Request(device="cuda"), 1)


def test_calls_give_tensors_of_the_engines_dtype_and_refuse_other_batches(monkeypatch, tensorrt, tmp_path):
    stream = SimpleNamespace(cuda_stream=7, wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    path = exported(tensorrt, tmp_path / "x.engine")
    session = tensorrt.load(path, Request(device="cuda"), 1)
    logits = session(torch.ones(3, 4))
    assert (logits.shape, logits.dtype) == ((3, 5), torch.bfloat16)
    with pytest.raises(
        FlopbenchError, match=r"x has shape \(65, 4\): this engine takes \(1, 4\) to \(64, 4\)"
    ):
        session(torch.ones(65, 4))
