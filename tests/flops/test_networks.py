"""Networks of any inputs and outputs: each counts what its definition says, by fvcore and as it runs."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flopbench.flops.audit import FLOP_COUNTER, FVCORE, audit, count_macs
from flopbench.flops.dispatch import observe
from flopbench.flops.trace import count_forward
from flopbench.inputs import Inputs

# B items of T tokens of C channels in H heads, F channels within an MLP.
B, T, C, H, F_ = 2, 6, 16, 2, 32
ATTENTION = B * T * (4 * C * C + 2 * T * C)
"""Projections of query, key, value and output; scores and what is mixed by them."""
BLOCK = ATTENTION + B * T * 2 * C * F_

TOKENS = torch.randint(0, 50, (B, T), generator=torch.Generator().manual_seed(0))
PADDING = torch.arange(T) >= torch.tensor([[6], [4]])
FEATURES = torch.randn(B, T, C, generator=torch.Generator().manual_seed(0))


class Encoder(nn.Module):
    """A transformer on token ids."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, C)
        layer = nn.TransformerEncoderLayer(C, H, F_, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(C, 3)

    def forward(self, ids, *, padding=None):
        x = self.blocks(self.embed(ids), src_key_padding_mask=padding)
        return {"logits": self.head(x.mean(1)), "features": x}


class Attends(nn.MultiheadAttention):
    def __init__(self):
        super().__init__(C, H, batch_first=True)

    def forward(self, x, padding):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x, x, x, key_padding_mask=padding, need_weights=False)


class Translates(nn.Transformer):
    def __init__(self):
        super().__init__(C, H, 1, 1, F_, batch_first=True)

    def forward(self, source, target):  # pyright: ignore[reportIncompatibleMethodOverride]
        mask = self.generate_square_subsequent_mask(target.shape[1], device=target.device)
        return super().forward(source, target, tgt_mask=mask, tgt_is_causal=True)


def translation(target: int) -> int:
    """MACs of an encoder layer on T tokens and a decoder layer that attends to itself and to these."""
    itself = 4 * C * C * target + 2 * C * target**2
    others = 2 * C * C * (target + T) + 2 * C * target * T
    return BLOCK + B * (itself + others + target * 2 * C * F_)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)

    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).view(B, T, 3, H, C // H).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Reads(nn.Module):
    """An LSTM over token ids, as they are or packed."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, C)
        self.memory = nn.LSTM(C, 8, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, ids, lengths=None):
        x = self.embed(ids)
        if lengths is None:
            return self.memory(x)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, last = self.memory(packed)
        return pad_packed_sequence(states, batch_first=True), last


def steps(count: int) -> int:
    """MACs of so many steps: 4 gates of 8 units, in two layers, in either direction."""
    return count * 2 * 4 * 8 * ((C + 8) + (2 * 8 + 8))


class Denoises(nn.Module):
    """A UNet of two levels, called with a sample and a time."""

    def __init__(self):
        super().__init__()
        self.time = nn.Linear(8, 8)
        self.stem = nn.Conv2d(4, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, 2, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.head = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, sample, timestep, return_dict=True):
        times = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        angles = times[:, None] * torch.exp(-torch.arange(4, device=sample.device) / 4)
        high = self.stem(sample) + self.time(torch.cat([angles.sin(), angles.cos()], 1))[..., None, None]
        low = F.silu(self.norm(self.down(high)))
        low = F.interpolate(low, scale_factor=2) + self.up(low)
        out = self.head(torch.cat([high, low], 1))
        return {"sample": out} if return_dict else (out,)


DENOISING = B * (64 * 8 * 4 * 9 + 16 * 8 * 8 * 9 + 16 * 8 * 8 * 4 + 64 * 4 * 16 * 9 + 8 * 8)
NOISE = torch.randn(B, 4, 8, 8)


@dataclass
class Batch:
    x: Tensor
    scale: float


class Nested(nn.Module):
    """Everything at once: a dataclass, a flag, a list, a dict, None; and a dict of them comes out."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, batch, flag, items, *, options, nothing):
        assert flag is True
        assert nothing is None
        found = [self.head(batch.x * batch.scale), *map(self.head, items)]
        return {"found": found, "one": (options["x"] @ self.head.weight.mT, None, 3)}


EVERYTHING = Inputs(
    Batch(torch.randn(3, 4), 2.0),
    True,
    [torch.randn(3, 4)] * 2,
    options={"x": torch.randn(3, 4)},
    nothing=None,
)

NETWORKS: dict[str, tuple[type[nn.Module], Inputs, int]] = {
    "tokens": (Encoder, Inputs(TOKENS), 2 * BLOCK + B * C * 3),
    "tokens and a mask by name": (Encoder, Inputs(TOKENS, padding=PADDING), 2 * BLOCK + B * C * 3),
    "padded attention": (Attends, Inputs(FEATURES, PADDING), ATTENTION),
    "encoder and decoder": (Translates, Inputs(FEATURES, FEATURES[:, :4]), translation(4)),
    "no mask": (Masked, Inputs(FEATURES), B * T * (3 * C * C + 2 * T * C)),
    "truth": (Masked, Inputs(FEATURES, mask=~PADDING[:, None, None]), B * T * (3 * C * C + 2 * T * C)),
    "bias": (Masked, Inputs(FEATURES, torch.zeros(B, H, T, T)), B * T * (3 * C * C + 2 * T * C)),
    "an LSTM": (Reads, Inputs(TOKENS), steps(B * T)),
    "a UNet": (Denoises, Inputs(NOISE, torch.tensor([1, 2])), DENOISING),
    "a UNet by name": (Denoises, Inputs(sample=NOISE, timestep=3, return_dict=False), DENOISING),
    "everything": (Nested, EVERYTHING, 4 * 3 * 4 * 2),
}


def built(make: type[nn.Module], device: str) -> nn.Module:
    with torch.device(device):
        return make()


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(("make", "inputs", "macs"), NETWORKS.values(), ids=NETWORKS.keys())
def test_networks_count_by_their_definition(make, inputs, macs, device):
    result = audit(built(make, device), "network", inputs.to(device), strict=False)
    for counter in (FVCORE, FLOP_COUNTER):
        assert result.forward[counter].macs == macs
        assert result.forward[counter].uncounted == {}
    assert result.backward[FLOP_COUNTER].uncounted == {}
    assert not result.notes


def test_packed_sequences_count_the_steps_that_are_there():
    result = audit(Reads(), "reads", Inputs(TOKENS, lengths=torch.tensor([6, 4])), strict=False)
    assert {count.macs for count in result.forward.values() if count.coverage == 1} == {steps(6 + 4)}
    assert FVCORE in result.forward
    assert not result.notes


def test_paths_are_those_of_the_network_whatever_it_takes():
    model = Encoder()
    for wrapped in (model, nn.DataParallel(model, device_ids=[])):
        by_module = count_forward(wrapped, Inputs(TOKENS, padding=PADDING)).by_module
        prefix = "" if wrapped is model else "module."
        assert by_module[f"{prefix}blocks.layers.1"] == BLOCK
        assert by_module[f"{prefix}head"] == B * C * 3
        assert by_module[f"{prefix}embed"] == 0


def test_a_tensor_that_comes_twice_is_one():
    x = torch.randn(3, 4)
    pair = Called(lambda a, b: (a + b) @ torch.ones(4, 5))
    assert count_forward(pair, Inputs(x, b=x)).macs == 3 * 4 * 5


class Called(nn.Module):
    def __init__(self, function: Any):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(4, 5))

    def forward(self, x, *rest, **named):
        return self.function(x, *rest, **named) if rest or named else self.function(x, self.weight)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        return gradient @ weight.mT, x.mT @ gradient


@torch.library.custom_op("flopbench_tests::product", mutates_args=())
def product(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


@product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


def test_products_within_somebodys_autograd_function_are_counted_as_they_run():
    model, inputs = Called(Product.apply), Inputs(torch.randn(3, 4, requires_grad=True))
    assert count_forward(model, inputs).uncounted == {"Product": 1}
    counted = count_macs(model, inputs)
    assert (counted.macs, counted.uncounted) == (4 * 5, {})
    assert observe(model, inputs, "backward").macs == 2 * 3 * 4 * 5


def test_what_a_custom_operator_computes_is_named_not_guessed():
    model, inputs = Called(product), Inputs(torch.randn(3, 4))
    counted = count_macs(model, inputs)
    assert (counted.macs, counted.uncounted, counted.coverage) == (0, {"flopbench_tests::product": 1}, 0)
    assert observe(model, inputs).uncounted == counted.uncounted


class Detects(nn.Module):
    """Boxes of a feature map, those that overlap left out, and a product on each of the rest."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 2 * 2, 5)

    def forward(self, images):
        torchvision = import_module("torchvision")

        x = F.hardswish(self.stem(images))
        boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [4, 4, 8, 8]], device=x.device)
        kept = boxes[torchvision.ops.nms(boxes, boxes.sum(1), 0.5)]
        found = torchvision.ops.roi_align(x, [kept] * len(x), 2)
        return [{"boxes": kept, "scores": scores} for scores in self.head(found.flatten(1)).chunk(len(x))]


def test_detectors_count_the_boxes_that_they_keep():
    pytest.importorskip("torchvision")
    result = audit(Detects(), "detector", Inputs(torch.randn(2, 3, 8, 8)), strict=False)
    # Of three boxes two are the same.
    assert {result.forward[name].macs for name in (FVCORE, FLOP_COUNTER)} == {
        2 * 64 * 4 * 27 + 2 * 2 * 16 * 5
    }
    for counted in (result.forward[FVCORE], result.forward[FLOP_COUNTER], result.backward[FLOP_COUNTER]):
        assert counted.uncounted == {}
