import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flopbench.flops.dispatch import observe
from flopbench.flops.stock import stock_counts
from flopbench.inputs import Inputs, inputs_for
from flopbench.symmetries.irreps import IrrepLinear


def test_backward_operators_belong_to_the_layers_whose_gradients_they_are(build):
    model, size = build("vit_ti16.flop")
    inputs = inputs_for(model, None, 1, size)
    forward, backward = observe(model, inputs), observe(model, inputs, "backward")
    macs: dict[tuple[str, str], int] = {}
    for pass_, observation in (("forward", forward), ("backward", backward)):
        for call in observation.calls:
            macs[pass_, call.module] = macs.get((pass_, call.module), 0) + call.macs
    linears = [name for name, module in model.named_modules() if isinstance(module, IrrepLinear)]
    assert len(linears) == 2 * 4
    linears.append("head")
    for name in linears:
        assert macs["backward", name] == 2 * macs["forward", name] > 0
    assert macs["backward", "patch_embed"] == macs["forward", "patch_embed"]
    assert 2 * macs["backward", "blocks.0.attn"] == 5 * macs["forward", "blocks.0.attn"]


def test_unfused_attention_computes_its_scores_once(build):
    model, size = build("vit_ti16", attention="unfused")
    inputs = inputs_for(model, None, 1, size)
    calls = {pass_: observe(model, inputs, pass_).calls for pass_ in ("forward", "backward")}
    macs = {
        pass_: sum(call.macs for call in calls[pass_] if call.module == "blocks.0.attn") for pass_ in calls
    }
    assert macs["backward"] == 2 * macs["forward"] > 0


def test_train_is_forward_and_backward(build):
    model, size = build("convnext_t.flop")
    inputs = inputs_for(model, None, 2, size)
    forward, backward, train = (observe(model, inputs, pass_) for pass_ in ("forward", "backward", "train"))
    assert train.macs == forward.macs + backward.macs
    assert sum(call.macs for call in train.calls) == train.macs


def test_depthwise_gradients_count_by_group_where_torch_counts_all_of_them():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 7, padding=3, groups=8))
    stock = stock_counts(model, inputs_for(model, None, 1, (16, 16)))
    depthwise, first = 16 * 16 * 8 * 49, 16 * 16 * 8 * 3
    assert stock.backward_macs == first + 2 * depthwise
    assert stock.backward > stock.backward_macs


def test_fvcore_as_it_comes_leaves_out_fused_attention(build):
    model, size = build("vit_ti16")
    stock = stock_counts(model, inputs_for(model, None, 1, size))
    assert stock.fvcore_without_rule == {"scaled_dot_product_attention": 2}
    assert stock.fvcore < stock.macs


class Fn(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4, 4, device="meta"))
        self.fn = fn

    def forward(self, x):
        return self.fn(x, self.weight)


def moved(fn):
    observation = observe(Fn(fn), Inputs(torch.zeros(2, 3, 4, 4, device="meta")), dtype_bytes=2)
    reads = sum(operand.size for call in observation.calls for operand in call.reads)
    return reads, sum(operand.size for call in observation.calls for operand in call.writes)


@pytest.mark.parametrize(
    ("fn", "read", "written"),
    [
        # Elements; images are [2, 3, 4, 4], weights [4, 4], at 2 bytes each.
        (lambda x, w: x + 1, 96, 96),
        (lambda x, w: x + w, 96 + 16, 96),
        (lambda x, w: x * x, 96, 96),
        (lambda x, w: x.flatten(2).mT[:, :8].unsqueeze(0), 0, 0),
        (lambda x, w: x[:, :1].expand(2, 3, 4, 4) + 1, 32, 96),
        (lambda x, w: x[:, :, 1:].contiguous(), 72, 72),
        (lambda x, w: torch.empty_like(x), 0, 0),
        (lambda x, w: torch.zeros_like(x), 0, 96),
        (lambda x, w: F.linear(x.flatten(0, 2), w), 96 + 16, 96),
        (lambda x, w: x.mul(2).add_(w), 96 + 96 + 16, 96 + 96),
    ],
)
def test_bytes_that_operators_move(fn, read, written):
    assert moved(fn) == (2 * read, 2 * written)
