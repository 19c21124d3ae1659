from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from flopbench.profiling.events import LAYER, STEP, folded, part_of, summarise


@dataclass
class Event:
    """What `summarise` reads of a profiler's event; times in microseconds."""

    name: str
    start: float
    end: float
    own: float = 0.0
    cpu_parent: "Event | None" = None
    device_type: str = "DeviceType.CPU"
    sequence_nr: int = -1

    @property
    def time_range(self) -> Any:
        return SimpleNamespace(start=self.start, end=self.end)

    @property
    def self_cpu_time_total(self) -> float:
        return self.own


def test_own_times_within_the_steps_add_up_by_group_part_and_operator():
    step = Event(STEP, 0, 100)
    layer = Event(LAYER + "blocks.3.mlp", 0, 100, 5, step)
    deeper = Event(LAYER + "blocks.3.mlp.fc1", 10, 60, 1, layer)
    events = [
        step,
        layer,
        deeper,
        Event("aten::linear", 10, 50, 2, deeper),
        Event("aten::gelu", 60, 80, 20, layer),
        Event("aten::mm", 200, 300, 100),
    ]
    events.append(Event("aten::addmm", 12, 48, 36, events[3]))
    summary = summarise(events, cuda=False)
    assert summary.groups == pytest.approx({"matrix products": 38e-6, "elementwise": 20e-6})
    assert summary.parts == pytest.approx({"blocks.*.mlp": 58e-6})
    assert {o.name: o.calls for o in summary.operators} == {
        "aten::addmm": 1,
        "aten::linear": 1,
        "aten::gelu": 1,
    }
    assert summary.stacks["blocks.*.mlp;blocks.3.mlp.fc1;aten::linear;aten::addmm"] == pytest.approx(36)
    assert folded(summary.stacks).splitlines()[0] == "blocks.*.mlp;blocks.3.mlp.fc1;aten::linear 2"


def test_elementwise_work_of_a_norm_layer_is_normalisation():
    step = Event(STEP, 0, 10)
    norm = Event(LAYER + "norm", 0, 10, 0, step)
    events = [step, norm, Event("aten::mul", 1, 5, 4, norm)]
    assert summarise(events, cuda=False, norms=["norm"]).groups == pytest.approx({"normalisation": 4e-6})
    assert summarise(events, cuda=False).groups == pytest.approx({"elementwise": 4e-6})


def test_a_gradient_belongs_to_the_layer_of_its_forward_operator():
    mark = Event(LAYER + "blocks.0.attn", 0, 10)
    forward = Event("aten::mm", 1, 2, 1, mark, sequence_nr=7)
    step = Event(STEP, 20, 60)
    node = Event("autograd::engine::evaluate_function: MmBackward0", 21, 40, 1, step, sequence_nr=7)
    events = [mark, forward, step, node, Event("aten::mm", 22, 39, 17, node)]
    summary = summarise(events, cuda=False)
    assert summary.parts == pytest.approx({"blocks.*.attn": 18e-6})
    assert summary.groups == pytest.approx({"other": 1e-6, "matrix products": 17e-6})


def test_the_optimiser_is_a_part_of_its_own():
    step = Event(STEP, 0, 10)
    optimiser = Event("Optimizer.step#AdamW.step", 0, 10, 1, step)
    events = [
        Event(LAYER + "head", -5, -1),
        step,
        optimiser,
        Event("aten::_fused_adamw_", 1, 9, 8, optimiser),
    ]
    assert summarise(events, cuda=False).parts["(optimiser)"] == pytest.approx(9e-6)


def test_slow_calls_stay_out():
    events = []
    for index, length in enumerate((10, 10, 10, 500)):
        step = Event(STEP, 1000 * index, 1000 * index + length)
        events += [step, Event("aten::mm", 1000 * index, 1000 * index + length, length, step)]
    summary = summarise(events, cuda=False)
    assert summary.calls == 4
    assert summary.groups == pytest.approx({"matrix products": 10e-6})


def test_without_a_step_there_is_nothing():
    assert summarise([Event("aten::mm", 0, 1, 1)], cuda=False).groups == {}


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("blocks.3.attn.qkv", "blocks.*.attn"),
        ("blocks.3", "blocks.*"),
        ("stages.0.1.mlp.fc1", "stages.*.*.mlp"),
        ("head", "head"),
        ("patch_embed.proj", "patch_embed"),
        ("", "(network)"),
    ],
)
def test_part_of(path: str, part: str):
    assert part_of(path) == part
