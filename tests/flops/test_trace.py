import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flopbench.flops import count_forward
from flopbench.flops.meta import build_on_meta
from flopbench.inputs import Inputs, inputs_for


class Fn(nn.Module):
    """A network of one function of the images."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x)


def macs(fn, size=(8, 6), batch=2):
    model = Fn(fn)
    count = count_forward(model, inputs_for(model, None, batch, size))
    assert not count.uncounted
    return count.macs


# ViT-B/16 at 224 × 224: what its published definition counts to.
@pytest.mark.parametrize(("name", "expected"), [("vit_ti16", 1_253_683_200), ("vit_b16", 17_563_828_224)])
def test_baselines_count_exactly(name, expected):
    model = build_on_meta(name)
    count = count_forward(model, inputs_for(model))
    assert count.macs == expected
    assert not count.uncounted
    assert count.by_module["head"] == {"vit_ti16": 192, "vit_b16": 768}[name] * 1000


def test_fused_and_unfused_attention_count_the_same():
    models = [build_on_meta("vit_ti16.flop", attention=kind) for kind in ("fused", "unfused")]
    fused, unfused = (count_forward(model, inputs_for(model)) for model in models)
    assert fused.macs == unfused.macs
    assert fused.by_operator["scaled_dot_product_attention"] == 12 * 2 * 197 * 197 * 192


def test_count_scales_with_the_batch_and_leaves_the_model_as_it_was():
    model = build_on_meta("vit_ti16.hybrid", depth=2)
    model.train()
    first, second = model.get_submodule("blocks.0"), model.get_submodule("blocks.1")
    first.eval()
    one, eight = (count_forward(model, inputs_for(model, None, batch)) for batch in (1, 8))
    assert eight.macs == 8 * one.macs
    assert model.training
    assert not first.training
    assert second.training


def test_weights_on_a_device_count_like_those_on_meta():
    sizes = {"depth": 1, "image_size": (32, 32), "num_classes": 3}
    from flopbench import create_model

    models = (create_model("vit_ti16", **sizes), build_on_meta("vit_ti16", **sizes))
    real, meta = (count_forward(model, inputs_for(model, None, 1, (32, 32))) for model in models)
    assert real.macs == meta.macs


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        # Images are [2, 3, 8, 6].
        (lambda x: x @ x.new_zeros(6, 5), 2 * 3 * 8 * 6 * 5),
        (lambda x: x.new_zeros(4, 8) @ x, 2 * 3 * 4 * 8 * 6),
        (lambda x: torch.bmm(x[:, 0], x[:, 0].mT), 2 * 8 * 6 * 8),
        (lambda x: torch.baddbmm(x[:, 0], x[:, 0].new_zeros(2, 8, 7), x.new_zeros(2, 7, 6)), 2 * 8 * 7 * 6),
        (lambda x: torch.einsum("bchw,cd->bdhw", x, x.new_zeros(3, 7)), 2 * 3 * 8 * 6 * 7),
        (lambda x: torch.einsum("...w,vw->...v", x, x.new_zeros(5, 6)), 2 * 3 * 8 * 6 * 5),
        (lambda x: F.conv2d(x, x.new_zeros(4, 3, 3, 3), padding=1), 2 * 8 * 6 * 4 * 3 * 9),
        (lambda x: F.conv2d(x, x.new_zeros(4, 3, 4, 2), padding="same"), 2 * 8 * 6 * 4 * 3 * 8),
        (lambda x: F.conv2d(x, x.new_zeros(3, 1, 7, 7), padding=3, groups=3), 2 * 8 * 6 * 3 * 49),
        (lambda x: F.conv2d(x, x.new_zeros(4, 3, 2, 2), stride=2), 2 * 4 * 3 * 4 * 3 * 4),
        (lambda x: F.conv_transpose2d(x, x.new_zeros(3, 4, 2, 2), stride=2), 2 * 8 * 6 * 3 * 4 * 4),
        (lambda x: F.conv1d(x[:, 0], x.new_zeros(5, 8, 3)), 2 * 4 * 5 * 8 * 3),
        (lambda x: F.scaled_dot_product_attention(x, x[:, :, :2], x[:, :, :2, :4]), 2 * 3 * 8 * 2 * (6 + 4)),
    ],
)
def test_products_count_by_their_definition(fn, expected):
    assert macs(fn) == expected


def test_elementwise_work_is_kept_apart():
    count = count_forward(Fn(lambda x: F.gelu(x) + 1), Inputs(torch.zeros(1, 3, 4, 4)))
    assert count.macs == 0
    assert count.elementwise == {"gelu": 8 * 48, "add": 48}


def test_unknown_operators_are_named():
    count = count_forward(Fn(lambda x: torch.cdist(x, x)), Inputs(torch.zeros(1, 3, 4, 4)))
    assert count.uncounted == {"cdist": 1}
    assert count.coverage == 0
