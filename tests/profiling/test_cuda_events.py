"""Traces as CUPTI gives them, built of torch's own events: what no machine without a GPU can record."""

from itertools import count
from typing import Any

import pytest
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEvent

from flopbench.profiling.events import LAYER, STEP, Summary, covered, summarise

NO_THREAD = 2**64 - 1
BACKWARD = "autograd::engine::evaluate_function: "
OPTIMISER = "Optimizer.step#AdamW.step"


class Trace:
    """Events with the numbers, threads and copies of ranges that kineto gives them; times in µs."""

    def __init__(self) -> None:
        self.events: list[FunctionEvent] = []
        self.operators, self.launches = count(1), count(1)

    def host(self, name: str, start: float, end: float, thread: int = 1, sequence_nr: int = -1) -> None:
        """An operator, which has a number among the operators."""
        self._add(next(self.operators), name, start, end, thread=thread, sequence_nr=sequence_nr)

    def range(self, name: str, start: float, end: float, device: tuple[float, float] | None = None) -> None:
        """A `record_function`, and the copy of it that spans all that runs within it on the device."""
        number = next(self.operators)
        self._add(number, name, start, end, thread=1, is_user_annotation=True)
        if device:
            self._device(number, name, *device, is_user_annotation=True)

    def launch(
        self, at: float, *kernels: tuple[str, float, float], thread: int = 1, call: str = "cudaLaunchKernel"
    ) -> None:
        """A call of the runtime and what it starts on the device, all under one number."""
        number = next(self.launches)
        self._add(number, call, at, at + 1, thread=thread)
        for kernel in kernels:
            self._device(number, *kernel)

    def summary(self, *, norms: tuple[str, ...] = ()) -> Summary:
        """As the profiler hands its events over: sorted, with every event's caller."""
        events = EventList(
            sorted(self.events, key=lambda e: (e.time_range.start, -e.time_range.end)), use_device="cuda"
        )
        events._build_tree()
        return summarise(events, cuda=True, norms=norms)

    def _device(self, number: int, name: str, start: float, end: float, **more: Any) -> None:
        self._add(number, name, start, end, thread=7, device_type=DeviceType.CUDA, **more)

    def _add(self, number: int, name: str, start: float, end: float, **more: Any) -> None:
        event = FunctionEvent(
            id=number, name=name, start_us=start, end_us=end, use_device="cuda", fwd_thread=1, **more
        )
        self.events.append(event)


def eager_training_step() -> Trace:
    """A norm, a layer with a product and a copy of ours, the product's gradient, the optimiser."""
    trace = Trace()
    trace.range(STEP, 0, 200, device=(10, 190))
    trace.range(LAYER + "blocks.0.norm", 1, 10, device=(10, 20))
    trace.host("aten::mul", 2, 8)
    trace.launch(3, ("void at::native::vectorized_elementwise_kernel<4, MulFunctor>()", 10, 20))
    trace.range(LAYER + "blocks.0.mlp", 10, 40, device=(20, 60))
    trace.range(LAYER + "blocks.0.mlp.fc1", 11, 30, device=(20, 50))
    trace.host("aten::linear", 12, 29)
    trace.host("aten::addmm", 13, 28, sequence_nr=5)
    trace.launch(15, ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT", 20, 45), ("splitKreduce_kernel", 45, 50))
    # Launched by Triton's own launcher, with no operator around it: the profiler knows no thread.
    trace.launch(35, ("gelu_kernel", 50, 60), thread=NO_THREAD, call="cuLaunchKernelEx")
    trace.host(BACKWARD + "AddmmBackward0", 50, 70, thread=2, sequence_nr=5)
    trace.host("aten::mm", 52, 68, thread=2)
    trace.launch(55, ("nvjet_tst_64x64_64x4_1x2_h_bz_NNT", 70, 110), thread=2)
    trace.range(OPTIMISER, 80, 100, device=(110, 180))
    trace.host("aten::_fused_adamw_", 82, 98)
    trace.launch(85, ("multi_tensor_apply_kernel<FusedAdam>", 110, 180))
    trace.launch(199, ("Memcpy DtoH (Device -> Pinned)", 180, 190), call="cudaMemcpyAsync")
    return trace


def test_time_by_operator_is_the_kernels_and_no_more():
    summary = eager_training_step().summary(norms=("blocks.0.norm",))
    assert {o.name: (o.group, round(1e6 * o.seconds), o.calls) for o in summary.operators} == {
        "aten::_fused_adamw_": ("elementwise", 70, 1),
        "aten::mm": ("matrix products", 40, 1),
        "aten::addmm": ("matrix products", 30, 2),
        "aten::mul": ("normalisation", 10, 1),
        "gelu_kernel": ("elementwise", 10, 1),
        "Memcpy DtoH (Device -> Pinned)": ("layout", 10, 1),
    }
    assert sum(summary.groups.values()) == pytest.approx(170e-6)
    assert summary.busy == pytest.approx(170e-6)


def test_a_kernel_belongs_to_the_layer_whose_call_launched_it():
    summary = eager_training_step().summary()
    assert summary.parts == pytest.approx(
        {"blocks.*.norm": 10e-6, "blocks.*.mlp": 80e-6, "(optimiser)": 70e-6, "(network)": 10e-6}
    )


def test_a_kernels_stack_is_that_of_its_launch():
    stacks = eager_training_step().summary().stacks
    assert stacks["blocks.*.mlp;blocks.0.mlp.fc1;aten::linear;aten::addmm;splitKreduce_kernel"] == 5
    assert stacks["blocks.*.mlp;blocks.0.mlp;gelu_kernel"] == 10


def test_kernels_of_a_graph_go_by_their_own_names():
    trace = Trace()
    trace.range(STEP, 0, 100, device=(10, 80))
    trace.range("## Call CompiledFxGraph fabcdefghijklmnopqrstuvwxyz ##", 1, 9, device=(10, 80))
    kernels = (
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT", 10, 30),
        ("triton_per_fused_add_native_layer_norm_3", 31, 40),
        # A second stream of the graph, at the same time.
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>()", 35, 60),
        ("triton_poi_fused_gelu_view_4", 60, 65),
        ("linear_parts_kernel", 65, 75),
        ("ours_under_a_name_that_says_nothing", 75, 80),
    )
    trace.launch(2, *kernels, call="cudaGraphLaunch")
    summary = trace.summary()
    assert {o.name for o in summary.operators} == {name for name, *_ in kernels}
    assert summary.groups == pytest.approx(
        {"matrix products": 30e-6, "normalisation": 9e-6, "attention": 25e-6, "elementwise": 10e-6}
    )
    assert summary.parts == {}
    assert summary.busy == pytest.approx(69e-6)


def test_a_compiled_networks_kernels_are_its_generated_ones_and_the_operators_it_calls():
    trace = Trace()
    trace.range(STEP, 0, 100)
    trace.range("Torch-Compiled Region: 0/0", 1, 60, device=(10, 40))
    trace.host("aten::addmm", 2, 10)
    trace.launch(3, ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT", 10, 30))
    trace.host("triton_poi_fused_gelu_0", 20, 30)
    trace.launch(22, ("triton_poi_fused_gelu_0", 30, 40), call="cuLaunchKernel")
    assert trace.summary().groups == pytest.approx({"matrix products": 20e-6, "elementwise": 10e-6})


def test_a_kernel_whose_launch_is_not_in_the_trace_counts_all_the_same():
    trace = Trace()
    trace.range(STEP, 0, 100)
    trace.range(LAYER + "head", 1, 60)
    trace.host("aten::addmm", 2, 10)
    trace._device(99, "sm90_xmma_gemm_bf16bf16", 20, 50)
    summary = trace.summary()
    assert summary.groups == pytest.approx({"matrix products": 30e-6})
    assert summary.parts == pytest.approx({"(network)": 30e-6})


def test_what_runs_outside_the_calls_is_left_out():
    trace = Trace()
    trace.launch(0, ("nvjet", 1, 20))
    trace.range(STEP, 50, 100, device=(60, 90))
    trace.launch(51, ("nvjet", 60, 90))
    trace.launch(110, ("nvjet", 120, 190))
    assert trace.summary().groups == pytest.approx({"matrix products": 30e-6})


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0),
        ([(0, 2), (4, 5)], 3),
        ([(4, 6), (0, 5)], 6),
        ([(0, 9), (1, 2), (3, 4)], 9),
        ([(0, 1), (1, 2)], 2),
    ],
)
def test_the_union_of_intervals(spans: list[tuple[float, float]], length: float):
    assert covered(spans) == length
