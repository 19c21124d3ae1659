"""What is said of a name that does not exist, or of another's error, is one line that can be read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import flopbench
from flopbench.errors import in_one_line, out_of_memory, own_lines, unknown
from flopbench.symmetries.folding import Folded


@pytest.mark.parametrize(
    ("known", "hint"),
    [
        (["alpha", "omega"], "did you mean alpha?"),
        (["one", "two"], "known: one, two"),
        ([f"{n}" for n in range(1000)], "none of the 1000 known has a name like it"),
    ],
)
def test_unknown_names(known, hint):
    assert str(unknown("word", "alpa", known)) == f"unknown word 'alpa'; {hint}"


class Inner(nn.Module):
    def forward(self, x):
        return torch.linalg.inv(x.reshape(2, 3))  # innermost


class Outer(nn.Sequential):
    def forward(self, input):
        return super().forward(input)  # caller


def line(comment):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(number for number, text in enumerate(lines, 1) if text.endswith(f"# {comment}"))


def test_of_the_stack_the_users_own_lines_are_shown():
    with pytest.raises(RuntimeError) as caught:
        Outer(Inner())(torch.zeros(6))
    where = own_lines(caught.value)
    name = Path(__file__).name
    assert where == f"{name}:{line('innermost')} in forward, called from {name}:{line('caller')} in forward"
    told = in_one_line(caught.value)
    assert told.startswith(f"{type(caught.value).__name__}: ")
    assert told.endswith(f"({where})")
    assert "\n" not in told


def test_of_what_a_compiler_traces_the_line_is_told():
    folded = Folded(lambda x, weight: broken(x) + weight, torch.ones(3))
    with pytest.raises(RuntimeError) as caught:
        torch.compile(folded, backend="eager", fullgraph=True)(torch.ones(3))
    told = in_one_line(caught.value)
    assert f"({Path(__file__).name}:{line('traced')} in broken" in told
    assert "\n" not in told


def test_of_a_compilers_backend_what_it_raised_is_told():
    def backend(graph, inputs):
        raise ValueError("no such operator\n\nand more")

    with pytest.raises(RuntimeError) as caught:
        torch.compile(nn.Linear(3, 3), backend=backend)(torch.ones(3))
    assert in_one_line(caught.value).startswith(
        "BackendCompilerFailed: backend='backend' raised: ValueError: no such operator ("
    )


def broken(x):
    return torch._dynamo.graph_break() or x  # traced


def test_of_a_compiler_that_has_no_words_flopbenchs_own_line_is_told():
    package = Path(flopbench.__file__).parent
    text = "NotImplementedError: \n\nfrom user code:\n   "
    text += f'File "{package}/models/vit.py", line 3, in forward\n    x = self.a\n'
    inner = RuntimeError(f'{text}  File "/a/b.py", line 4, in g\n    y')
    assert in_one_line(inner) == "RuntimeError: NotImplementedError (b.py:4 in g)"
    error = RuntimeError(f"{text}\nSet TORCHDYNAMO_VERBOSE=1")
    error.add_note("ViT-S/16 called with float32 [2, 3]")
    where = "flopbench/models/vit.py:3 in forward; ViT-S/16 called with float32 [2, 3]"
    assert in_one_line(error) == f"RuntimeError: NotImplementedError ({where})"


def test_of_code_that_came_pickled_the_line_is_told_without_a_file():
    code = compile("def forward(x):\n    raise KeyError", "<dynamic-code>", "exec")
    exec(code, names := {"__name__": "mine"})
    with pytest.raises(KeyError) as caught:
        names["forward"](1)
    assert own_lines(caught.value).startswith("line 2 in forward")


def test_an_error_without_message_or_lines_is_named_by_its_type():
    assert in_one_line(AssertionError()) == "AssertionError"
    assert in_one_line(ValueError("\nfirst\nsecond")) == "ValueError: first"
    with pytest.raises(SyntaxError) as caught:
        compile("def net(:", "/home/somebody/nets.py", "exec")
    assert in_one_line(caught.value).endswith("(nets.py:1)") or "nets.py:1," in in_one_line(caught.value)
    assert "somebody" not in in_one_line(caught.value)


def test_code_without_a_file_is_named_by_its_function_and_notes_are_told():
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("class Net:\n def forward(self):\n  raise KeyError(1)", "<dynamic-code>", "exec"), space)
    with pytest.raises(KeyError) as caught:
        space["Net"]().forward()
    told = f"line 3 in Net.forward, called from {Path(__file__).name}:"
    assert own_lines(caught.value).startswith(told)
    caught.value.add_note("Net called with float32 [2, 3]\nat night")
    assert in_one_line(caught.value).endswith("; Net called with float32 [2, 3])")


class CompilerError(RuntimeError):
    """As torch's compilers wrap what went wrong in what they ran."""

    def __init__(self, inner: Exception, text: str = "backend='inductor' raised:") -> None:
        self.inner_exception = inner
        super().__init__(text)


def raised_from(cause: Exception | None, error: Exception, *, after: Exception | None = None) -> Exception:
    error.__cause__, error.__context__ = cause, after
    error.__suppress_context__ = cause is not None
    return error


FULL = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 12.00 GiB. GPU 0 has a total capacity of"
)


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        MemoryError(),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError(
            "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error\n"
            "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
            "Cuda failure 2 'out of memory'"
        ),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 9 bytes"
        ),
        RuntimeError("terminate called after throwing an instance of 'std::bad_alloc'"),
        OSError(12, "Cannot allocate memory"),
        CompilerError(FULL),
        CompilerError(
            ValueError("1"), "backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried"
        ),
        raised_from(FULL, RuntimeError("autotuning failed")),
        raised_from(
            None, RuntimeError("operation failed due to a previous error during capture"), after=FULL
        ),
        raised_from(CompilerError(FULL), RuntimeError("the first call failed")),
    ],
    ids=str,
)
def test_want_of_memory_is_recognised_in_every_spelling(error: Exception):
    line = out_of_memory(error)
    assert line
    assert "\n" not in line


@pytest.mark.parametrize(
    "error",
    [
        ValueError("mat1 and mat2 shapes cannot be multiplied"),
        # A kernel that wants more than a multiprocessor has.
        RuntimeError("out of resource: shared memory, Required: 264192, Hardware limit: 232448. Reducing"),
        RuntimeError("CUDA error: too many resources requested for launch"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        raised_from(ValueError("first"), RuntimeError("second"), after=FULL),
    ],
    ids=str,
)
def test_other_failures_are_not_want_of_memory(error: Exception):
    assert out_of_memory(error) is None
    assert out_of_memory(error, is_full=lambda: True) is None


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "FIND was unable to find an engine to execute this computation",
    ],
)
def test_where_words_can_mean_either_the_device_decides(text: str):
    assert out_of_memory(RuntimeError(text), is_full=lambda: False) is None
    assert out_of_memory(RuntimeError(text), is_full=lambda: True) == text


def test_an_error_in_a_circle_of_causes_is_looked_at_once():
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert out_of_memory(first) is None
