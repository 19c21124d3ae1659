"""What single operators cost: fvcore's handles and the operators that run have to say the same."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from flopbench.flops import count_forward, dispatch
from flopbench.flops.audit import CLOSED_FORM, audit
from flopbench.flops.dispatch import observe
from flopbench.flops.meta import build_on_meta
from flopbench.inputs import inputs_for
from flopbench.kernels.cpp import attention, gelu, linear
from flopbench.kernels.cpp.attention import attention_parts
from flopbench.kernels.cpp.gelu import gelu_parts
from flopbench.kernels.cpp.linear import linear_parts
from flopbench.symmetries.octic import OcticGroup


class Net(nn.Module):
    """A function of images and two weights."""

    def __init__(self, fn, *shapes):
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(shape) for shape in shapes)
        self.fn = fn

    def forward(self, x):
        return self.fn(x, *self.weights)


def both(model, size, device="meta"):
    """MACs that both counters agree on, when neither leaves anything out."""
    model = model.to(device)
    inputs = inputs_for(model, None, 2, size)
    traced, ran = count_forward(model, inputs), observe(model, inputs)
    assert not traced.uncounted
    assert not ran.uncounted
    assert traced.macs == ran.macs == traced.by_module[""]
    return traced


# Images are [2, 3, 4, 5].
@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bchw,c->bchw", [(3,)], 0),
        ("bchw,bchw->bchw", [None], 0),
        ("bchw->bc", [], 0),
        ("bchw,cd->bd", [(3, 7)], 2 * 3 * 7),
        ("bchw,kd->bd", [(6, 7)], 0),
        ("...w,vw", [(6, 5)], 2 * 3 * 4 * 5 * 6),
        ("bchw,wr,rk->bchk", [(5, 2), (2, 6)], 2 * 3 * 4 * (5 * 2 + 2 * 6)),
        ("bchw,wr,rk,kl->bchl", [(5, 2), (2, 6), (6, 4)], 2 * 3 * 4 * (5 * 2 + 2 * 6 + 6 * 4)),
        ("bchw,c,w->bh", [(3,), (5,)], 2 * 4 * 5 * 3 + 2 * 4 * 5),
        ("bchw,bchw->", [None], 2 * 3 * 4 * 5),
        ("bchw,cd->bdhw", [(1, 7)], 0),
    ],
)
def test_einsum_multiplies_what_it_sums_over(equation, shapes, macs):
    kept = [shape for shape in shapes if shape]
    own = [None] * (len(shapes) - len(kept))
    net = Net(lambda x, *weights: torch.einsum(equation, x, *[x for _ in own], *weights), *kept)
    assert both(net, (4, 5)).macs == macs


@pytest.mark.parametrize(
    ("fn", "shape", "macs"),
    [
        (lambda x, w: x @ w, (5,), 2 * 3 * 4 * 5),
        (lambda x, w: w @ x, (4,), 2 * 3 * 4 * 5),
        (lambda x, w: torch.mv(x[0, 0], w), (5,), 4 * 5),
        (lambda x, w: torch.dot(x[0, 0, 0], w), (5,), 5),
        (lambda x, w: torch.vdot(x[0, 0, 0], w), (5,), 5),
        (lambda x, w: torch.addmv(x[0, 0, :, 0], x[0, 0], w), (5,), 4 * 5),
        (lambda x, w: torch.addbmm(x[0, 0, :, :1], x[0], w.expand(3, 5, 1)), (5, 1), 3 * 4 * 5),
        (lambda x, w: torch.outer(x[0, 0, 0], w), (6,), 0),
        (lambda x, w: torch.inner(x, w), (6, 5), 2 * 3 * 4 * 5 * 6),
        (lambda x, w: torch.tensordot(x.movedim(1, 3), w, dims=2), (5, 3, 6), 2 * 5 * 6 * 12),
    ],
)
def test_products_with_vectors_and_of_any_axes(fn, shape, macs):
    assert both(Net(fn, shape), (4, 5)).macs == macs


@pytest.mark.parametrize(
    ("fn", "shape"),
    [(lambda x, w: x @ w, (5,)), (lambda x, w: torch.einsum("bchw,c->bhw", x, w), (3,))],
)
def test_gradients_of_a_vector_are_products(fn, shape):
    net = Net(fn, shape).to("meta")
    # The images need none, and the gradient of the vector sums over all else.
    assert observe(net, inputs_for(net, None, 2, (4, 5)), "backward").macs == 2 * 3 * 4 * 5


class Reader(nn.Module):
    """A recurrent layer over the columns of an image."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def forward(self, x):
        return self.memory(x.flatten(1, 2).mT)[0]


class Step(Reader):
    """One step of a recurrent layer."""

    def forward(self, x):
        out = self.memory(x.flatten(1, 2)[..., 0])
        return out[0] if isinstance(out, tuple) else out


# Columns have 12 elements, there are 5 of them and 2 images; 8 elements of state.
GATES = [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)]


@pytest.mark.parametrize(("kind", "gates"), GATES)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_recurrent_layers_multiply_at_every_step(kind, gates, device):
    layer = kind(12, 8, num_layers=2, bidirectional=True, batch_first=True)
    traced = both(Reader(layer), (4, 5), device)
    assert traced.macs == 2 * 5 * 2 * gates * 8 * ((12 + 8) + (16 + 8))


@pytest.mark.parametrize(
    ("net", "macs"),
    [
        (lambda: Reader(nn.LSTM(12, 8, proj_size=3, batch_first=True)), 2 * 5 * (32 * (12 + 3) + 8 * 3)),
        (lambda: Step(nn.LSTMCell(12, 8)), 2 * 32 * 20),
        (lambda: Step(nn.GRUCell(12, 8)), 2 * 24 * 20),
        (lambda: Step(nn.RNNCell(12, 8, nonlinearity="relu")), 2 * 8 * 20),
        (lambda: Reader(nn.RNN(12, 8, nonlinearity="relu", batch_first=True)), 2 * 5 * 8 * 20),
    ],
)
def test_steps_and_projections(net, macs):
    model = net().to("meta")
    assert both(model, (4, 5)).macs == macs
    inputs = inputs_for(model, None, 2, (4, 5))
    ran = observe(model, inputs)
    assert sum(count_forward(model, inputs).elementwise.values()) == (
        sum(call.elementwise or 0 for call in ran.calls)
    )


def test_gradients_of_an_lstm_in_one_operator_count_like_those_of_its_parts():
    model, counts = Reader(nn.LSTM(12, 8, batch_first=True)), {}
    for device in ("cpu", "meta"):
        model = model.to(device)
        counts[device] = observe(model, inputs_for(model, None, 2, (4, 5)), "backward").macs
    # In one operator it takes the gradients of the images and of the first state, which nobody asked for.
    unasked = 2 * 32 * (5 * 12 + 8)
    assert counts["cpu"] == 2 * 2 * 5 * 32 * 20
    assert counts["meta"] == counts["cpu"] - unasked


class Tokens(nn.Module):
    """Blocks of two linear layers on tokens, kept in memory or computed once more."""

    def __init__(self, again):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(2)
        )
        self.again = again

    def forward(self, x):
        x = self.stem(x).flatten(2).mT
        for block in self.blocks:
            x = block(x) if self.again is None else checkpoint(block, x, use_reentrant=self.again)
        return x


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_counts_what_is_computed_again(reentrant):
    kept, saving = Tokens(None).to("meta"), Tokens(reentrant).to("meta")
    inputs = inputs_for(kept, None, 1, (8, 8))
    plain, again = observe(kept, inputs, "backward"), observe(saving, inputs, "backward")
    linear = 4 * 4 * 8
    first = plain.macs - 2 * 2 * 2 * linear
    assert first == 4 * 4 * 48
    # Torch stops where nothing more was kept, before the last product of each block.
    repeated = 2 * linear * (2 if reentrant else 1)
    assert again.macs == plain.macs + repeated
    assert sum(call.macs for call in again.calls if call.again) == repeated
    owners = {call.module for call in again.calls if call.again and call.macs}
    assert owners >= {"blocks.0.0", "blocks.1.0"}
    for path in ("stem", "blocks.0.0", "blocks.0.2", "blocks.1.2"):
        own = [
            [c.macs for c in o.calls if c.module == path and not c.again and c.macs] for o in (plain, again)
        ]
        assert own[0] == own[1]
    assert not any(call.again for call in plain.calls)
    assert not again.unreached


def test_what_is_computed_again_is_named_beside_the_closed_form():
    saving = Tokens(False).to("meta")
    result = audit(saving, "saving", inputs_for(saving, None, 1, (8, 8)))
    plain = audit(Tokens(None).to("meta"), "plain", inputs_for(saving, None, 1, (8, 8)))
    assert result.backward[CLOSED_FORM].uncounted["products computed again"] == 2
    assert result.backward[CLOSED_FORM].macs == plain.backward[CLOSED_FORM].macs
    assert result.backward[CLOSED_FORM].coverage < 1


class Kept(nn.Module):
    """Makes its kernel of a basis, and keeps it in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.basis = nn.Buffer(torch.randn(2, 9))
        self.coordinates = nn.Parameter(torch.randn(4, 3, 2))
        self.norm = nn.BatchNorm2d(4)
        self.mean = self.norm.get_buffer("running_mean")
        self.kernel = None

    def make(self):
        return (self.coordinates @ self.basis).view(4, 3, 3, 3)

    def train(self, mode=True):
        self.kernel = None if mode else self.make().detach()
        return super().train(mode)

    def forward(self, x):
        return self.norm(F.conv2d(x, self.make() if self.kernel is None else self.kernel, padding=1))


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_counted_where_they_reach_the_weights(training):
    model = Kept().train(training)
    inputs, before = inputs_for(model, None, 2, (8, 8)).map(lambda x: x + 1), model.mean.clone()
    convolution, kernel = 2 * 64 * 4 * 27, 4 * 3 * 2 * 9
    forward, backward = (observe(model, inputs, pass_) for pass_ in ("forward", "backward"))
    assert (forward.macs, forward.training) == (convolution, False)
    assert (backward.macs, backward.training, backward.unreached) == (convolution + kernel, True, ())
    (note,) = audit(model, "kept", inputs_for(model, None, 1, (8, 8)), strict=False).notes
    assert "training mode" in note
    assert observe(model, inputs, "train").macs == 2 * (convolution + kernel)
    # All is as it was: the mode and what hangs on it, running means, gradients.
    assert model.training is training
    assert (model.kernel is None) is training
    assert torch.equal(model.mean, before)
    assert model.coordinates.grad is None


def test_parameters_that_no_gradient_reaches_are_named():
    model = Net(lambda x, used, unused: x * used, (1,), (1,)).to("meta")
    observation = observe(model, inputs_for(model, None, 1, (4, 4)), "backward")
    assert observation.unreached == ("weights.1",)
    assert not observation.training


def test_an_operator_without_a_gradient_reaches_nothing():
    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            return x * weight

        @staticmethod
        def backward(ctx, *gradients):
            return gradients[0], None

    model = Net(lambda x, one, other: Rounded.apply(x * one, other), (1,), (1,)).to("meta")
    assert observe(model, inputs_for(model, None, 1, (4, 4)), "backward").unreached == ("weights.1",)


def test_what_cannot_be_trained_without_targets_is_counted_in_evaluation_mode():
    class Detector(Net):
        def forward(self, x):
            assert not self.training, "targets should not be none when in training mode"
            return super().forward(x)

    model = Detector(lambda x, used, unused: x @ used, (5, 2), (1,)).to("meta")
    observation = observe(model, inputs_for(model, None, 1, (4, 5)), "backward")
    assert (observation.macs, observation.training) == (3 * 4 * 5 * 2, False)


def test_our_own_networks_run_once_for_their_gradients(monkeypatch):
    modes = []

    def note(*arguments, training):
        modes.append(training)
        return genuine(*arguments, training=training)

    genuine = dispatch._observe
    monkeypatch.setattr(dispatch, "_observe", note)
    model = build_on_meta("vit_ti16.flop", image_size=32, depth=1)
    assert observe(model, inputs_for(model, None, 1, (32, 32)), "backward").unreached == ("norm.weight_a",)
    assert modes == [False]


def test_a_counter_that_lacks_an_operator_is_left_out_and_says_which():
    model = Net(lambda x, a, b: torch.linalg.multi_dot([x.flatten(1), a, b]), (12, 4), (4, 2)).to("meta")
    (note,) = audit(model, "chain", inputs_for(model, None, 1, (2, 2)), strict=False).notes
    assert note == "fvcore left out of the comparison: it cannot count linalg_multi_dot"


def test_all_outputs_are_differentiated():
    heads = Net(lambda x, a, b: {"a": x @ a, "more": [x @ b]}, (5, 2), (5, 3)).to("meta")
    observation = observe(heads, inputs_for(heads, None, 1, (4, 5)), "backward")
    assert observation.macs == 3 * 4 * 5 * (2 + 3)
    assert not observation.unreached


def test_a_weight_may_be_a_modules_argument():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 3, 1, 1))
            self.inner = Net(lambda pair, weight: pair[0] + pair[1] * weight, (1,))

        def forward(self, x):
            return self.inner((x, self.token))

    model = Outer().to("meta")
    inputs = inputs_for(model, None, 1, (4, 4))
    assert observe(model, inputs).macs == 0
    assert not observe(model, inputs, "backward").unreached


class InCpp(nn.Module):
    """One of flopbench's operators in C++, on octic parts made of the images."""

    impl = "cpp"

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        x = x.flatten(1).unsqueeze(1).to("meta")
        return tuple(self.fn([x[..., :16]] * 4 + [x[..., :32]] * 2))


OCTIC = OcticGroup.transform
LINEAR_MACS = 2 * (4 * 16 * 32 + 2 * 32 * 64)
POINTS_AND_BACK = 8 * 8 + 2 * (8 * 4 + 1)


def in_cpp(x, transform):
    weights = [part.new_zeros(2 * part.shape[-1], part.shape[-1]) for part in x[:5]]
    return linear_parts(x, weights, (0, 1, 2, 3, 4, 4), [x[0].new_zeros(32)], (0,), transform)


# Two images of a token of 128 channels.
@pytest.mark.parametrize(
    ("fn", "macs", "elementwise"),
    [
        (lambda x: in_cpp(x, None), LINEAR_MACS, 0),
        (lambda x: in_cpp(x, OCTIC), LINEAR_MACS, 2 * 32 * POINTS_AND_BACK),
        (lambda x: gelu_parts(x, OCTIC), 0, 2 * 16 * POINTS_AND_BACK),
        # Two heads, a score for each: q is scaled, and a softmax takes 5.
        (lambda x: attention_parts([part.repeat(1, 1, 3) for part in x], 2), 2 * 2 * 128, 2 * (128 + 2 * 5)),
    ],
)
def test_operators_in_cpp_count_parts_as_they_come(fn, macs, elementwise, monkeypatch):
    for module in (linear, gelu, attention):
        # Tensors without content need no compiler.
        monkeypatch.setattr(module, "load", lambda: None)
    model = InCpp(fn)
    counted = both(model, (6, 8))
    assert counted.macs == macs
    assert sum(counted.elementwise.values()) == elementwise
    ran = observe(model, inputs_for(model, None, 2, (6, 8)))
    assert sum(call.elementwise or 0 for call in ran.calls) == elementwise
