"""Every Triton kernel on a GPU, forward and backward, against the eager operations in fp64."""

from importlib import import_module

import pytest
import torch

from tests.gpu.cases import ALLOWED, CASES, SIZES, Case, Inputs, Size, error_of

SHORT = {torch.bfloat16: "bf16", torch.float32: "fp32"}


@pytest.fixture
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """One config for a shape: what is asked here is whether it is right, not which is the fastest."""
    monkeypatch.setattr(import_module("flopbench.kernels.triton.linear"), "tuned", False)


@pytest.mark.cuda
@pytest.mark.usefixtures("untuned")
@pytest.mark.filterwarnings("default")  # what others warn of on a GPU is to be seen, and no failure
@pytest.mark.parametrize("dtype", ALLOWED, ids=SHORT.get)
@pytest.mark.parametrize("strided", [False, True], ids=["dense", "strided"])
@pytest.mark.parametrize("size", [name for name in SIZES if name != "L"])
@pytest.mark.parametrize("name", CASES)
def test_agreement(name: str, size: str, strided: bool, dtype: torch.dtype):
    torch.manual_seed(0)
    error = error_of(CASES[name], Inputs(SIZES[size], strided), dtype)
    assert error <= ALLOWED[dtype] * CASES[name].slack


def test_one_row_that_is_wrong_is_seen():
    def call(impl: str, size: Size, x: torch.Tensor) -> torch.Tensor:
        factor = torch.ones(x.shape[:-1], device=x.device)
        factor[-1, -1] = 1 if impl == "eager" else 1.05
        return x * factor[..., None].to(x.dtype)

    case = Case(call, lambda inputs: inputs.parts(1))
    given = Inputs(Size(64, 197, 1), strided=False, batch=16, device="cpu")
    assert error_of(case, given, torch.bfloat16) > ALLOWED[torch.bfloat16]
    right = Case(lambda impl, size, x: call("eager", size, x), case.inputs)
    assert error_of(right, given, torch.bfloat16) < ALLOWED[torch.bfloat16]


@pytest.mark.parametrize("strided", [False, True])
def test_strided_is_what_operations_and_gradients_get(strided: bool):
    seen = []

    class Same(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
            seen.append(gradient)
            return gradient

    case = Case(
        lambda impl, size, x: Same.apply(x) if impl == "triton" else x.clone(), lambda inputs: inputs.parts(1)
    )
    error_of(case, Inputs(Size(8, 3, 1), strided, batch=2, device="cpu"), torch.bfloat16)
    assert [x.stride() for x in seen] == [(24, 8, 1) if strided else (12, 4, 1)] * 2
