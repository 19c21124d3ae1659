"""Networks of somebody's own in every pass: any inputs and outputs, losses, frozen and tied parts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.inputs import Inputs
from flopbench.models import foreign
from flopbench.models.factory import perturb
from flopbench.pairs import Pair
from flopbench.runner.worker import inspect
from flopbench.timing.bench import Bench
from flopbench.timing.workload import Workload, build_model, cell_inputs, make_workload

CPU = torch.device("cpu")
PASSES = ["forward", "backward", "train"]


def cell(network: Any, inputs: Any, loss: Any = None, **changes: Any) -> Cell:
    """Of a network beside itself, given from Python."""
    foreign.put({"net": network, "inputs": inputs, "loss": loss})
    loss = "python:loss" if callable(loss) else loss
    own = {"inputs": "python:inputs", "loss": loss, "perturb": False, "cast": False}
    pair = Pair(baseline="python:net", candidate="python:net", **{**own, **changes.pop("pair", {})})
    fields = {"device": "cpu", "batch_size": 2, "pass": "forward", "dtype": "fp32", "mode": "eager"}
    return Cell.model_validate({"pair": pair, **fields, **changes})


def work(network: Any, inputs: Any, loss: Any = None, **changes: Any) -> Workload:
    this = cell(network, inputs, loss, **changes)
    made = make_workload(build_model("python:net", this, CPU), cell_inputs(this, CPU), this)
    made.run()
    return made


class Tokens(nn.Module):
    """A transformer's layer on token ids, its embedding tied to its head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(11, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, *, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.embed(ids)
        x = self.norm(x + self.attention(x, x, x, key_padding_mask=~mask, need_weights=False)[0])
        return {"logits": self.head(x), "last": x[:, -1]}


def tokens(batch_size: int) -> dict[str, Tensor]:
    ids = torch.randint(11, (batch_size, 5))
    return {"ids": ids, "mask": torch.arange(5).expand(batch_size, 5) < 4}


def next_token(output: dict[str, Tensor], inputs: Inputs) -> Tensor:
    return F.cross_entropy(output["logits"][:, :-1].flatten(0, 1), inputs.kwargs["ids"][:, 1:].flatten())


@dataclass
class Found:
    loss: Tensor
    maps: list[Tensor]


class Detector(nn.Module):
    """Takes a list of images, gives a dict per image and, to train, their losses."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 4)
        self.backbone.requires_grad_(False)
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))

    def forward(self, images: list[Tensor]) -> Any:
        boxes = [self.head(self.backbone((x - self.mean)[None]).mean((2, 3))) for x in images]
        if self.training:
            return Found(torch.stack([x.square().mean() for x in boxes]).sum(), boxes)
        return [{"boxes": x, "labels": x.argmax(-1)} for x in boxes]


class UNet(nn.Module):
    """Takes noisy images and a time step each; two convolutions and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 8, 2, stride=2), nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.time = nn.Linear(1, 8)

    def forward(self, sample: Tensor, step: Tensor) -> tuple[Tensor]:
        time = self.time(step.to(sample.dtype)[:, None])[..., None, None]
        return (sample + self.up(F.gelu(self.down(sample) + time)),)


def noise(batch_size: int, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    height, width = (side // 28 for side in image_size)
    return torch.randn(batch_size, 4, height, width), torch.arange(batch_size)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Any, Any]] = {
    "tokens": (Tokens, tokens, next_token),
    "lstm": (
        lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True),
        lambda batch_size: torch.randn(batch_size, 5, 3),
        lambda output, inputs: output[0].square().mean(),
    ),
    "detector": (Detector, lambda batch_size: [torch.rand(3, 8, 8) for _ in range(batch_size)], "loss"),
    "unet": (UNet, noise, lambda output, inputs: F.mse_loss(output[0], inputs.args[0])),
}


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_every_kind_are_taken_through_every_pass(name: str, pass_: str):
    build, inputs, loss = NETWORKS[name]
    network = build()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    bench = Bench.of(cell(network, inputs, loss, **{"pass": pass_}))
    assert bench.check() is not None
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    trained = {
        key for key, parameter in network.named_parameters(remove_duplicate=False) if parameter.requires_grad
    }
    assert moved == (trained if pass_ == "train" else set())
    assert [flag.message for flag in bench.unchecked] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_every_kind_are_counted_per_item(name: str):
    build, inputs, _ = NETWORKS[name]
    facts = inspect(lambda kind, value: None, cell(build(), inputs, batch_size=4))
    assert facts.flags == ()
    assert facts.baseline.macs
    if name == "unet":
        assert facts.baseline.macs == 8 + 2 * (4 * 4 * 8 * 4 * 4)


def test_the_items_are_those_asked_for_wherever_their_axis_lies():
    steps_first = nn.LSTM(3, 4)
    per_item = 5 * (3 * 16 + 4 * 16)
    for inputs in (lambda batch_size: torch.randn(5, batch_size, 3), torch.randn(5, 2, 3)):
        facts = inspect(lambda kind, value: None, cell(steps_first, inputs))
        assert facts.baseline.macs == per_item


def test_a_network_that_cannot_be_counted_is_measured_all_the_same():
    class Shy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 1:
                raise ValueError("one is too few")
            return x.sum(-1)

    this = cell(Shy(), lambda batch_size: torch.randn(batch_size, 3))
    facts = inspect(lambda kind, value: None, this)
    assert facts.baseline.macs is None
    flag, _ = facts.flags
    assert flag.kind == "uncounted"
    assert flag.message.startswith("the MACs of net could not be counted: ValueError: one is too few")
    assert Bench.of(this).check() is not None


def test_dtypes_are_cast_where_asked_and_never_what_is_no_floating_point():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
            self.codes = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)

        def forward(self, x: Tensor, ids: Tensor) -> Tensor:
            return self.linear(x) * self.phase.abs().to(x.dtype) * self.codes + ids[:, None]

    inputs = (torch.randn(2, 3), torch.ones(2, dtype=torch.int64))
    for cast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        made = work(Mixed(), inputs, dtype="bf16", pair={"cast": cast})
        assert [x.dtype for x in made.inputs.tensors] == [dtype, torch.int64]
        kinds = {name: parameter.dtype for name, parameter in made.model.named_parameters()}
        assert kinds["linear.weight"] is dtype
        assert (kinds["phase"], kinds["codes"]) == (torch.complex64, torch.int8)
    work(Mixed(), inputs, **{"pass": "train"})
    filled = perturb(Mixed())
    assert filled.codes.tolist() == [1, 1]
    assert (filled.phase != 1).all()


def test_shared_and_frozen_parameters_are_perturbed_once():
    network = Tokens()
    network.norm.requires_grad_(False)
    before = network.norm.weight.clone()
    perturb(network)
    assert network.head.weight is network.embed.weight
    assert not torch.equal(network.norm.weight, before)


def test_images_alone_have_a_memory_format():
    class Volume(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.deep = nn.Conv2d(2, 3, 3), nn.Conv3d(1, 2, 3)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.flat(x), self.deep(y)

    inputs = (torch.randn(2, 2, 5, 5, requires_grad=True), torch.randn(2, 1, 5, 5, 5))
    made = work(Volume(), inputs, memory_format="channels_last")
    images, volumes = made.inputs.tensors
    weight = made.model.get_parameter("flat.weight")
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (images, weight))
    assert images.requires_grad
    assert images.is_leaf
    assert volumes.is_contiguous()


def test_inputs_that_require_gradients_have_a_backward_pass_and_stay_the_user_s():
    given = torch.randn(2, 3, requires_grad=True)
    made = work(lambda x, y: (x * y).relu(), (given, given), **{"pass": "backward"})
    assert len({id(x) for x in made.inputs.tensors}) == 1
    first = made.inputs.tensors[0].grad
    made.run()
    assert made.inputs.tensors[0].grad is not first
    assert given.grad is None


def test_a_part_of_the_output_is_the_loss():
    network = Detector()
    made = work(
        network, lambda batch_size: [torch.rand(3, 8, 8)] * batch_size, "loss", **{"pass": "backward"}
    )
    (loss,), _ = made.prepare()
    assert loss.ndim == 0
    assert network.backbone.weight.grad is None


@pytest.mark.parametrize("dtype", ["autocast-bf16", "fp32"])
def test_the_loss_is_taken_under_autocast_where_the_dtype_says_so(dtype: str):
    seen = []

    def loss(output: Tensor, inputs: Inputs) -> Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), output.dtype))
        return output.float().mean()

    work(nn.Linear(3, 2), torch.randn(2, 3), loss, dtype=dtype, **{"pass": "train"})
    low = dtype != "fp32"
    assert seen == [(low, torch.bfloat16 if low else torch.float32)]


FROZEN = nn.Linear(3, 2).requires_grad_(False)


@pytest.mark.parametrize(
    ("network", "loss", "pass_", "message"),
    [
        (nn.Linear(3, 2), "loss", "backward", r"no part 'loss': it is a tensor \(2, 2\)$"),
        (nn.Linear(3, 2), lambda y, _: y, "train", r"is a tensor \(2, 2\), not a tensor of one number$"),
        (nn.Linear(3, 2), lambda y, _: 3.0, "train", "is a float, not a tensor of one number$"),
        (
            nn.Linear(3, 2),
            lambda y, _: y.detach().sum(),
            "backward",
            "has no gradient: nothing that requires",
        ),
        (FROZEN, lambda y, _: y.sum(), "train", "needs parameters that require gradients"),
        (FROZEN, None, "backward", "nothing of the output can be differentiated"),
        (lambda x: {"a": x}, None, "train", "needs parameters that require gradients"),
        (
            nn.LSTM(3, 2),
            None,
            "train",
            r"needs logits \[B, K\] or \[B, K, H, W\], the network gives a tuple: state a loss",
        ),
    ],
)
def test_what_cannot_be_differentiated_is_one_line(network: Any, loss: Any, pass_: str, message: str):
    with pytest.raises(FlopbenchError, match=message) as caught:
        work(network, torch.randn(2, 3), loss, **{"pass": pass_})
    assert "\n" not in str(caught.value)


def test_sparse_gradients_have_no_step_and_a_backward_pass():
    ids, network = torch.randint(5, (2, 3)), nn.Embedding(5, 4, sparse=True)
    work(network, ids, **{"pass": "backward"})
    assert network.weight.grad is not None
    with pytest.raises(
        FlopbenchError, match="takes no sparse gradients: build its embeddings with sparse=False"
    ):
        work(network, ids, lambda y, _: y.sum(), **{"pass": "train"})


def test_a_frozen_backbone_has_no_moments():
    made = work(Detector(), lambda batch_size: [torch.rand(3, 8, 8)], "loss", **{"pass": "train"})
    assert made.optimiser is not None
    held = [parameter for group in made.optimiser.param_groups for parameter in group["params"]]
    assert [tuple(parameter.shape) for parameter in held] == [(4, 4), (4,)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what the compiler imports
def test_what_is_compiled_takes_arguments_by_name(monkeypatch: pytest.MonkeyPatch):
    compiled = []

    def compile_(model: Any, **options: Any) -> Any:
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", compile_)
    work(Tokens(), tokens, mode="compile")
    work(lambda x, scale: x * scale, {"x": torch.ones(2), "scale": torch.ones(2)}, mode="compile")
    assert [type(model).__name__ for model in compiled] == ["Tokens", "Called"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what inductor imports
def test_every_input_of_a_cuda_graph_stays_where_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    made = work(Tokens(), tokens, next_token, device="cuda", mode="cuda-graph")
    assert [hasattr(x, "_dynamo_static_input_type") for x in made.inputs.tensors] == [True, True]
