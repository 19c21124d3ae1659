"""Attention of plain heads: which way it is computed, and that every way is the same function."""

import pytest
import torch
import torch.nn.functional as F
from torch._inductor.utils import run_and_get_code

from flopbench.kernels import attention as module
from flopbench.kernels.attention import attention, unfused_attention

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def heads(tokens=7, dtype=torch.bfloat16, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, tokens, 8, generator=generator).to(device, dtype).unbind(0)
    return q, k, v


def calls_the_fused_operator(*given) -> bool:
    called = []

    def spy(*args):
        called.append(args)
        return args[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", spy)
        attention(*given)
    return bool(called)


@pytest.mark.parametrize("without_tiles", [True, False])
def test_bf16_on_a_cpu_without_tiles_alone_keeps_scores(monkeypatch, without_tiles):
    monkeypatch.setattr(module, "_multiplies_bf16_without_tiles", lambda: without_tiles)
    assert calls_the_fused_operator(*heads()) is not without_tiles
    for other in (torch.float32, torch.float16, torch.float64):
        assert calls_the_fused_operator(*heads(dtype=other))
    assert calls_the_fused_operator(*heads(device="meta"))
    assert calls_the_fused_operator(*heads(tokens=module.MOST_TOKENS + 1))


def test_either_way_is_softmax_of_scores(monkeypatch):
    monkeypatch.setattr(module, "_multiplies_bf16_without_tiles", lambda: True)
    q, k, v = heads()
    wide = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(attention(q, k, v).double(), wide, rtol=0, atol=2e-2)
    exact = unfused_attention(q.double(), k.double(), v.double())
    torch.testing.assert_close(exact, wide, rtol=1e-12, atol=1e-12)


def test_scores_stay_in_memory_when_compiled(cpp_compiler):
    """Inductor knows attention when it sees it, and would call the operator that was avoided."""
    with torch.no_grad():
        result, codes = run_and_get_code(torch.compile(unfused_attention, dynamic=False), *heads())
    torch.testing.assert_close(result, unfused_attention(*heads()), rtol=0, atol=2e-2)
    assert "bmm" in codes[0]
    assert "scaled_dot_product" not in codes[0]
