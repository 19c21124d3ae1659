"""Other people's networks: each is counted, or it is said in a line what is not, and nothing is refused."""

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flopbench.cells import Cell
from flopbench.cli.flops import flops
from flopbench.errors import FlopbenchError
from flopbench.flops import command
from flopbench.flops.audit import CLOSED_FORM, FLOP_COUNTER, FVCORE, Audit, audit
from flopbench.flops.command import NEVER_RUN, Request
from flopbench.inputs import Inputs
from flopbench.modes import Pass
from flopbench.pairs import Pair

STEM = 4 * 16 * 48  # From 16 × 16 pixels to 4 × 4 tokens of 4 channels, by patches of 3 × 4 × 4.


def stem():
    return nn.Conv2d(3, 4, 4, stride=4)


def counted(network, pass_: Pass = "forward") -> command.Counts:
    name = f"{__name__}:{network.__name__}"
    cell = Cell.model_validate(
        {**NEVER_RUN, "pair": Pair(baseline=name, candidate=name), "pass": pass_, "image_size": 16}
    )
    return command.count(Request(cell))


def audited(network) -> Audit:
    return counted(network).audits[0]


class Tokens(nn.Module):
    """A stem, then whatever a test does with its tokens `[B, 16, 4]`."""

    def __init__(self):
        super().__init__()
        self.stem = stem()
        self.head = nn.Linear(4, 5)

    def tokens(self, x):
        return self.stem(x).flatten(2).mT


class Repeated(Tokens):
    def __init__(self):
        super().__init__()
        self.block = nn.Linear(4, 4)

    def forward(self, x):
        x = self.tokens(x)
        for _ in range(3):
            x = x + self.block(x)
        return self.head(x.mean(1))


def test_the_closed_form_leaves_out_a_layer_that_is_called_again_and_says_so():
    result = audited(Repeated)
    assert not result.notes
    assert result.macs == result.forward[FVCORE].macs == STEM + 3 * 16 * 4 * 4 + 4 * 5
    assert result.forward[CLOSED_FORM].macs == STEM + 4 * 5
    assert result.forward[CLOSED_FORM].uncounted == {"torch.nn.modules.linear.Linear called 3 times": 1}
    assert result.paper_sum is None


class LowRank(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)
        self.weight.requires_grad_(False)
        self.down = nn.Parameter(torch.zeros(1, 4))
        self.up = nn.Parameter(torch.zeros(4, 1))

    def forward(self, input):
        return super().forward(input) + F.linear(F.linear(input, self.down), self.up)


class Adapted(Tokens):
    def __init__(self):
        super().__init__()
        self.adapter = LowRank()

    def forward(self, x):
        return self.head(self.adapter(self.tokens(x)).mean(1))


class Steps(nn.Sequential):
    """A sequence with a product of its own."""

    def __init__(self):
        super().__init__(stem(), nn.Flatten(2))
        self.basis = nn.Parameter(torch.zeros(16, 3))

    def forward(self, input):
        return super().forward(input) @ self.basis


@pytest.mark.parametrize(
    ("network", "extra", "kind"),
    [(Adapted, 16 * 4 * (4 + 2) + 4 * 5, "LowRank"), (Steps, 4 * 16 * 3, "Steps")],
)
def test_the_closed_form_does_not_speak_of_types_that_derive_from_what_it_knows(network, extra, kind):
    result = audited(network)
    assert not result.notes
    assert result.macs == result.forward[FVCORE].macs == STEM + extra
    assert result.forward[CLOSED_FORM].uncounted == {f"{__name__}.{kind}": 1}
    assert 0 < result.forward[CLOSED_FORM].coverage < 1


def patched():
    head = nn.Linear(64, 5)
    model = nn.Sequential(stem(), nn.Flatten(), head)
    head.forward = lambda input: F.linear(F.linear(input, head.weight, head.bias), head.weight.mT)
    return model


def test_a_patched_forward_pass_is_left_out_and_named():
    result = audited(patched)
    assert result.macs == STEM + 2 * 64 * 5
    (kind,) = result.forward[CLOSED_FORM].uncounted
    assert kind.endswith("Linear with a forward pass of its own")


@dataclass
class Answer:
    classes: Tensor
    boxes: Tensor


class Detector(Tokens):
    def __init__(self, form: Any):
        super().__init__()
        self.form = form
        self.boxes = nn.Linear(4, 2)

    def forward(self, x):
        x = self.tokens(x)
        return self.form(self.head(x.mean(1)), self.boxes(x))


def as_tuple():
    return Detector(lambda *outputs: outputs)


def as_dict():
    return Detector(lambda classes, boxes: {"out": {"classes": classes}, "aux": [boxes]})


def as_dataclass():
    return Detector(Answer)


@pytest.mark.parametrize("network", [as_tuple, as_dict, as_dataclass])
def test_every_output_is_counted_and_differentiated_whatever_its_structure(network):
    counts = counted(network, "backward")
    result = counts.audits[0]
    assert not result.notes
    heads = 4 * 5 + 16 * 4 * 2
    assert {count.macs for count in result.forward.values()} == {STEM + heads}
    assert {count.macs for count in result.backward.values()} == {STEM + 2 * heads}
    assert counts.rows[-1].costs[0] is not None
    assert counts.rows[-1].costs[0].macs == STEM + 2 * heads


class Detaches(Tokens):
    def forward(self, x):
        x = self.tokens(x)
        return x * self.head(x).detach().mean()


def test_a_layer_that_no_gradient_reaches_is_left_out_of_the_closed_form():
    result = audited(Detaches)
    assert result.notes == ("gradients do not reach 2 of 4 parameters, the first head.weight",)
    assert result.backward[CLOSED_FORM].macs == result.backward[FLOP_COUNTER].macs == STEM
    assert result.backward[CLOSED_FORM].uncounted == {"Linear that no gradient reached": 1}


class Decides(Tokens):
    def forward(self, x):
        x = self.tokens(x).mean(1)
        return x if x.isnan().any().item() else self.head(x)


class Keeps(Tokens):
    def forward(self, x):
        x = self.tokens(x)
        return self.head(x[x.isfinite().all(-1)])


def test_where_the_path_depends_on_data_the_count_is_of_the_cpu_and_says_so():
    result = audited(Decides)
    assert result.macs == STEM + 4 * 5
    assert any(note.startswith("counted on the CPU") for note in result.notes)
    assert audited(Keeps).macs == STEM + 16 * 4 * 5


def plain():
    return nn.Sequential(stem(), nn.GELU(), nn.Flatten(), nn.Linear(64, 5))


def half():
    return plain().half()


def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 4, stride=4), nn.GELU(), nn.Flatten(), nn.LazyLinear(5))


def parallel():
    return nn.Sequential(nn.DataParallel(nn.Sequential(stem(), nn.GELU())), nn.Flatten(), nn.Linear(64, 5))


def hooked():
    patches = stem()
    nn.utils.weight_norm(patches)
    return nn.Sequential(patches, nn.GELU(), nn.Flatten(), nn.Linear(64, 5))


def traced():
    return torch.fx.symbolic_trace(plain())


def scripted():
    return torch.jit.script(plain())


def partly_scripted():
    return nn.Sequential(torch.jit.script(nn.Sequential(stem(), nn.GELU())), nn.Flatten(), nn.Linear(64, 5))


def compiled():
    return torch.compile(plain())


def compiled_in_place():
    model = plain()
    model.compile()
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "network",
    [plain, half, lazy, parallel, hooked, traced, scripted, partly_scripted, compiled, compiled_in_place],
)
def test_a_network_counts_the_same_whatever_it_is_wrapped_in(network):
    result = audited(network)
    assert result.macs == STEM + 64 * 5
    assert result.backward[FLOP_COUNTER].macs == STEM + 2 * 64 * 5
    assert not any("disagree" in note for note in result.notes)
    for note in result.notes:
        assert note.startswith("fvcore left out: ")
    assert (FVCORE in result.forward) == (not result.notes)
    parameters = sum(p.numel() for p in plain().parameters())
    assert result.parameters == parameters + (4 if network is hooked else 0)


class Untrainable(Tokens):
    def forward(self, x):
        return self.head(self.tokens(x)).detach()


def test_a_doubt_about_the_backward_pass_costs_no_forward_count():
    result = audited(Untrainable)
    assert result.macs == STEM + 16 * 4 * 5
    assert result.backward == {}
    assert result.train_macs is None
    (note,) = result.notes
    assert note == "backward pass not counted: no gradient comes from the outputs to a trainable weight"
    with pytest.raises(FlopbenchError, match=r"cannot count the backward pass of .*no gradient"):
        counted(Untrainable, "backward")


class Contradicts(Tokens):
    """fvcore sees another network than the one that runs."""

    def forward(self, x):
        x = self.tokens(x)
        traced = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        return self.head(x if traced else torch.cat([x, x]))


def test_counters_that_disagree_are_both_reported_with_the_reason():
    counts = counted(Contradicts)
    result = counts.audits[0]
    assert result.macs - result.forward[FVCORE].macs == 16 * 4 * 5
    (note,) = result.notes
    assert note.startswith("counters disagree in head (Linear, ")
    assert f"- {counts.labels[0]}: {note}\n" in counts.text("markdown")
    assert note in counts.text("json")
    with torch.device("meta"), pytest.raises(FlopbenchError, match="counters disagree in head"):
        audit(Contradicts(), "strict", Inputs(torch.zeros(1, 3, 16, 16)))


class Leaves(Tokens):
    def forward(self, x):
        sys.exit(self.stem(x).numel())


def aborts():
    os.abort()


def prints():
    print("somebody's banner")
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))


def test_a_network_has_a_process_of_its_own_to_end_and_to_print_in(capfd):
    with pytest.raises(FlopbenchError, match=r"cannot count .*aborts: the process died of SIGABRT"):
        flops(f"{__name__}:aborts", images="3x16x16")
    flops(f"{__name__}:prints", images="3x16x16", output="json")
    assert json.loads(capfd.readouterr().out)["networks"][0]["macs"] == 3 * 16 * 16 * 2


def refuses():
    raise KeyError("width")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            Leaves,
            r"cannot run .*Leaves on 1 image of 3x16x16: SystemExit: 64 \(test_foreign\.py:\d+ in forward\)$",
        ),
        (refuses, r"cannot build .*refuses: KeyError: 'width' \(test_foreign\.py:\d+ in refuses\)$"),
    ],
)
def test_what_ends_a_network_is_one_line(network, message):
    with pytest.raises(FlopbenchError, match=message):
        counted(network)
