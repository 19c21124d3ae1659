"""The eager operations that specify the fused ones."""

from typing import Any

import pytest
import torch
from torch._inductor.utils import run_and_get_code
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from flopbench.kernels.gelu import pointwise_parts
from flopbench.kernels.layer_norm import layer_norm_parts
from flopbench.kernels.residual import add_scaled
from flopbench.kernels.token_linear import aligned, padded, token_linear
from flopbench.kernels.transform import HALVES, QUARTERS, to_mirror_pairs
from flopbench.symmetries.octic import OCTIC


@pytest.mark.parametrize("transform", [HALVES, QUARTERS, OCTIC.transform])
def test_transforms_are_orthogonal(transform):
    parts = [torch.randn(5, 3 * count, dtype=torch.double) for count in transform.slices]
    points = transform.points(parts)
    assert {point.shape for point in points} == {(5, 3)}
    torch.testing.assert_close(transform.parts(points), parts)
    squares = [sum(x.square().sum() for x in tensors) for tensors in (parts, points)]
    torch.testing.assert_close(*squares)


def test_mirror_pairs_are_those_of_the_halves():
    parts = torch.randn(2, 5, dtype=torch.double).unbind()
    torch.testing.assert_close(to_mirror_pairs(*to_mirror_pairs(*parts)), list(parts))
    torch.testing.assert_close(to_mirror_pairs(*parts), HALVES.points(parts))


@pytest.mark.parametrize("bias", [True, False])
def test_token_linear_is_a_linear_layer_of_the_transpose(bias):
    x, weight = torch.randn(2, 5, 3, dtype=torch.double), torch.randn(4, 5, dtype=torch.double)
    b = torch.randn(4, dtype=torch.double) if bias else None
    expected = torch.nn.functional.linear(x.mT, weight, b).mT
    torch.testing.assert_close(token_linear(x, weight, b, 4), expected)
    # In rows that a GPU's library likes the weight is another tensor and the same map.
    torch.testing.assert_close(token_linear(x, padded(weight), b, 4), expected)


@pytest.mark.parametrize(("tokens", "rows"), [(98, 104), (196, 200), (256, 256)])
def test_token_weights_are_padded_on_a_gpu_alone(tokens, rows):
    with FakeTensorMode():
        for device in ("cpu", "cuda"):
            weight = torch.empty(tokens, tokens, dtype=torch.bfloat16, device=device)
            once = aligned(weight)
            if device == "cpu" or rows == tokens:
                assert once is weight
            else:
                assert (once.shape, once.stride()) == ((rows, tokens), (1, rows))
            assert aligned(once) is once


def test_autocast_casts_a_token_weight_once(monkeypatch):
    x, weight, bias = torch.randn(2, 5, 3), torch.randn(5, 5), torch.randn(5)
    expected = token_linear(x, weight, bias, 5)
    for given in (weight, padded(weight)):
        profiled = torch.profiler.profile(record_shapes=True, acc_events=True)
        with torch.autocast("cpu", torch.bfloat16), profiled as profile:
            y = token_linear(x, given, bias, 5)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), expected, rtol=3e-2, atol=3e-2)
        events: Any = profile.events()
        cast = [e.input_shapes[0] for e in events if e.name == "aten::_to_copy"]
        assert [2, *given.shape] not in cast
        assert [*given.shape] in cast


def test_autocast_leaves_double_precision():
    x, weight, bias = torch.randn(2, 5, 3).double(), torch.randn(5, 5).double(), torch.randn(5).double()
    expected = token_linear(x, weight, bias, 5)
    for given in (weight, padded(weight)):
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(token_linear(x, given, bias, 5), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what inductor imports
def test_compiled_the_padding_stays(cpp_compiler):
    def mix(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return 2 * token_linear(x.sin(), padded(weight), None, 5)

    given = torch.randn(2, 5, 16), torch.randn(5, 5)
    y, code = run_and_get_code(torch.compile(mix, dynamic=False), *given)
    torch.testing.assert_close(y, mix(*given))
    # The product reads columns of 8 elements for all samples.
    assert "(2, 8, 5), (0, 1, 8)" in code[0]


def test_add_scaled():
    x, branch, gamma = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(4)
    torch.testing.assert_close(add_scaled(x, branch, gamma), x + gamma * branch)
    torch.testing.assert_close(add_scaled(x, branch, None), x + branch)


def test_layer_norm_keeps_the_dtype_and_is_exact_in_half_precision():
    # A mean that half precision cannot hold: statistics are taken in fp32.
    s, a = torch.randn(2, 4, 512).unbind()
    x = (s + 300).bfloat16(), a.bfloat16()
    gain, bias = torch.ones(512), torch.zeros(512)
    low = layer_norm_parts(x, (gain, gain, bias), 1e-6, (1, 1))
    assert low[0].dtype == low[1].dtype == torch.bfloat16
    wide = layer_norm_parts([part.double() for part in x], (gain, gain, bias), 1e-6, (1, 1))
    torch.testing.assert_close(low[0].double(), wide[0], rtol=1e-2, atol=1e-2)


def test_gradients():
    def random(*shape) -> Any:
        return torch.randn(*shape, dtype=torch.double, requires_grad=True)

    assert gradcheck(
        lambda s, a, *affine: layer_norm_parts((s, a), affine, 1e-6, (1, 1)),
        (random(2, 3), random(2, 3), *random(3, 3).unbind()),
    )
    assert gradcheck(
        lambda *parts: pointwise_parts(parts, OCTIC.transform, "gelu"),
        [random(1, 2 * count) for count in OCTIC.transform.slices],
    )
    assert gradcheck(
        lambda x, weight, bias: token_linear(x, weight, bias, 4), (random(2, 3, 2), random(4, 3), random(4))
    )
    assert gradcheck(add_scaled, (random(2, 3), random(2, 3), random(3)))
