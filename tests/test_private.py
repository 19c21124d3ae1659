"""Torch's private names, by what they are for: a version of torch that lacks one fails here by name."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.autograd.profiler import profile
from torch.nn.modules import module as modules
from torch.utils.hooks import RemovableHandle
from torch.utils.module_tracker import ModuleTracker

from flopbench import private

# torch's own, of what inductor imports.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def nothing(*_):
    return None


class Looker:
    """As fvcore's hooks are."""

    def __call__(self, *_):
        return None


Looker.__module__ = "fvcore.nn.jit_analysis"

BUILT_IN: Any = [].append
HOOKS: dict[str, tuple[Callable[[nn.Module, Callable], RemovableHandle], bool]] = {
    "none": (lambda module, hook: nn.Identity().register_forward_hook(hook), False),
    "before": (lambda module, hook: module.register_forward_pre_hook(hook), True),
    "with arguments": (lambda module, hook: module.register_forward_pre_hook(hook, with_kwargs=True), True),
    "after": (lambda module, hook: module.register_forward_hook(hook), True),
    "built in": (lambda module, hook: module.register_forward_pre_hook(BUILT_IN), True),
    "a part": (lambda module, hook: module.register_forward_hook(partial(hook, 1)), True),
    "backward": (lambda module, hook: module.register_full_backward_hook(hook), True),
    "before backward": (lambda module, hook: module.register_full_backward_pre_hook(hook), True),
    "before all": (lambda module, hook: modules.register_module_forward_pre_hook(hook), True),
    "after all": (lambda module, hook: modules.register_module_forward_hook(hook), True),
    "all backward": (lambda module, hook: modules.register_module_full_backward_hook(hook), True),
    "before all backward": (
        lambda module, hook: modules.register_module_full_backward_pre_hook(hook),
        True,
    ),
    "looking on": (
        lambda module, hook: module.register_forward_hook(private.looking_on(lambda *_: None)),
        False,
    ),
    "torch's counter's": (
        lambda module, hook: modules.register_module_forward_hook(ModuleTracker()._fw_post_hook),
        False,
    ),
    "fvcore's": (lambda module, hook: module.register_forward_hook(Looker()), False),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooked(kind):
    """Asked within a trace too, where what looks on counts as well, and again once the hook is gone."""
    module = nn.Linear(2, 2)
    register, expected = HOOKS[kind]
    torch._dynamo.reset()

    @torch.compile(backend="eager", fullgraph=True)
    def traced(x):
        return x + 1 if private.hooked(module) else x

    x = torch.zeros(1)
    handle = register(module, nothing)
    try:
        assert private.hooked(module) is expected
        assert traced(x).item() == (kind != "none")
    finally:
        handle.remove()
    assert not private.hooked(module)
    assert traced(x).item() == 0


def test_version():
    x = torch.zeros(2)
    before = private.version(x)
    x.add_(1)
    assert private.version(x) > before


def test_storage_identity():
    x, empty = torch.zeros(4), torch.empty(0)
    assert private.storage_identity(x) == private.storage_identity(x[1:])
    assert private.storage_identity(empty) != private.storage_identity(torch.empty(0))
    assert private.storage_identity(x.to("meta")) != private.storage_identity(x)


def test_dispatch_mode_and_schema():
    seen = {}

    class Mode(private.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            returns = [value.alias_info for value in private.schema(func).returns]
            seen[str(func.overloadpacket)] = private.schema(func).is_mutable, returns[0] is not None
            return func(*args, **(kwargs or {}))

    with Mode():
        torch.zeros(2).view(1, 2).add_(1).mul(2)
    assert {seen[f"aten.{name}"] for name in ("zeros", "mul")} == {(False, False)}
    assert seen["aten.view"] == (False, True)
    assert seen["aten.add_"] == (True, True)


def test_tree_leaves():
    assert private.tree_leaves(([1, {"a": 2}], (3,))) == [1, 2, 3]


def test_has_meta_kernel():
    assert private.has_meta_kernel("aten::mm")
    library = torch.library.Library("flopbench_test", "DEF")
    library.define("shapeless(Tensor x) -> Tensor")
    assert not private.has_meta_kernel("flopbench_test::shapeless")


def test_backward_node():
    assert private.backward_node() is None
    nodes = []
    x = torch.zeros(1, requires_grad=True)
    y = x.exp()
    y.register_hook(lambda grad: nodes.append(private.backward_node()))
    y.sum().backward()
    assert nodes == [y.grad_fn]


def test_raw_events():
    with profile(use_kineto=True, profile_memory=True) as trace:
        torch.empty(1000)
    events = [event for event in private.raw_events(trace) if event.name() == "[memory]"]
    assert max(event.nbytes() for event in events) >= 4000
    assert all(event.start_ns() > 0 for event in events)


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("tiles", [True, False])
def test_multiplies_bf16_without_tiles(monkeypatch, bf16, tiles):
    assert isinstance(private.multiplies_bf16_without_tiles(), bool)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    assert private.multiplies_bf16_without_tiles() is (bf16 and not tiles)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert private.multiplies_bf16_without_tiles() is False


def test_compilers(monkeypatch):
    from torch._inductor import config

    private.compiler_version.cache_clear()
    compilers, told = private.cpp_compilers(), private.compiler_version()
    assert compilers
    assert all(isinstance(name, str) for name in compilers)
    assert told is None or re.fullmatch(r"[^/ ]+ \d+(\.\d+)+", told)
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        private.compiler_version.cache_clear()
        assert private.cpp_compilers() == ["no-such-compiler"]
        assert private.compiler_version() is None
    private.compiler_version.cache_clear()


def test_compile_cpp():
    if private.compiler_version() is None:
        pytest.skip("no C++ compiler is installed")
    assert private.compile_cpp('extern "C" int seven() { return 7; }').seven() == 7


def test_compiled_graphs():
    def backend(graph: Any, inputs: Any) -> Any:
        return graph.forward

    before = private.compiled_graphs()
    torch.compile(lambda x: x - 1, backend=backend)(torch.ones(1))
    assert private.compiled_graphs() == before
    if private.compiler_version() is not None:
        torch.compile(lambda x: x - 2)(torch.ones(1))
        assert sum(private.compiled_graphs()) == sum(before) + 1


def test_what_the_compiler_leaves_out():
    def network(x):
        y = x + 1
        print("seen")
        return y * 2

    def loop(x):
        for _ in range(2):
            if x.sum() > 0:
                x = x + 1
        return x

    torch.compiler.reset()
    functions, reasons = private.untraced()
    guards = private.failed_guards()
    compiled = torch.compile(network, backend="eager", dynamic=False)
    compiled(torch.ones(2))
    (broken,) = private.graph_breaks()
    assert "print" in broken.reason
    assert broken.user_stack[-1].line == 'print("seen")'
    assert private.untraced()[0] == functions
    assert private.failed_guards() == guards
    compiled(torch.ones(3))
    assert any("size" in failed for failed in private.failed_guards() - guards)
    torch.compile(loop, backend="eager")(torch.ones(2))
    assert private.untraced()[0] == functions + 1
    assert private.untraced()[1] - reasons


def test_generated_files():
    before = private.generated_files()
    if private.compiler_version() is not None:
        torch.compile(lambda x: torch.sort(x - 3).values)(torch.ones(2))
        assert any(
            "torch.ops.aten.sort" in Path(file).read_text()
            for file in private.generated_files()[len(before) :]
        )


def test_show_kernels_to_profiler():
    from torch._inductor import config

    with config.patch({"cpp.enable_kernel_profile": False}):
        private.show_kernels_to_profiler()
        assert config.cpp.enable_kernel_profile is True


def test_a_device_is_held_for_so_many_cycles(monkeypatch: pytest.MonkeyPatch):
    held: list[int] = []
    # It has to be there.
    monkeypatch.setattr(torch.cuda, "_sleep", held.append, raising=True)
    private.hold_device(7)
    assert held == [7]


def test_one_that_compiles_in_this_process_alone_awaits_no_other(monkeypatch: pytest.MonkeyPatch):
    from torch._inductor import async_compile

    monkeypatch.setattr(async_compile, "get_compile_threads", lambda: 1)
    monkeypatch.setattr(async_compile.AsyncCompile, "process_pool", pytest.fail)
    private.await_compile_processes()


def test_processes_that_are_late_are_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch):
    from torch._inductor.async_compile import AsyncCompile

    class Late:
        def result(self, timeout: float) -> None:
            raise TimeoutError

    monkeypatch.setattr(AsyncCompile, "use_process_pool", lambda: False)
    monkeypatch.setattr(AsyncCompile, "_ready_future", Late())
    private.await_compile_processes()


def test_who_compiles_for_others_keeps_to_itself_what_it_finds_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from torch._inductor import config
    from torch._inductor.runtime.autotune_cache import AutotuneCache

    # Both are set for good, in a process of its own.
    monkeypatch.setattr(AutotuneCache, "save", AutotuneCache.save)
    fastest = SimpleNamespace(kwargs={}, num_warps=4, num_stages=1)

    def tune(kernel: str) -> int:
        cache = AutotuneCache.create({}, str(tmp_path / kernel), "hash")
        assert cache is not None
        cache.save(fastest, 1)  # pyright: ignore[reportArgumentType]
        return len(list(tmp_path.glob("*.best_config")))

    assert tune("one.py") == 1
    with config.patch(compile_threads=7):
        private.compile_for_others(2)
        assert config.compile_threads == 2
    assert tune("two.py") == 1


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # torch's own, of its decompositions
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_has_tangent():
    x = torch.zeros(1)
    seen = [private.has_tangent([x])]
    with forward_ad.dual_level():
        seen += [private.has_tangent([x]), private.has_tangent([x, forward_ad.make_dual(x, x)])]
    torch.func.jvp(lambda x: seen.append(private.has_tangent([x])) or x, (x,), (x,))
    assert seen == [False, False, True, True]


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")
def test_watched():
    """Each of those who look on, and nobody before and after."""
    seen = []

    def look(x):
        seen.append(private.watched())
        return x + 1

    x = torch.zeros(1)
    look(x)
    torch.jit.trace(look, x, check_trace=False)
    torch.func.grad(lambda x: look(x).sum())(x)
    with torch.device("cpu"):
        look(x)
    with profile():
        look(x)

    @torch.compile(backend="eager", fullgraph=True)
    def traced(x):
        return x + 1 if private.watched() else x

    seen.append(bool(traced(x)))
    look(x)
    assert seen == [False, *5 * [True], False]


def test_a_tensor_that_keeps_its_address_is_no_input_to_be_copied():
    """The mark reaches the compiler's graph, and other tensors in its place are not compiled anew."""
    images, seen = torch.ones(2), []

    def backend(graph, inputs):
        seen.extend(node.meta["tensor_dict"] for node in graph.graph.nodes if node.op == "placeholder")
        return graph.forward

    private.keep_address(images)
    compiled = torch.compile(lambda x: x + 1, backend=backend)
    compiled(images)
    assert [found.get("_dynamo_static_input_type") for found in seen] == ["unguarded"]
    compiled(torch.zeros(2))
    assert len(seen) == 1


def test_what_is_captured_can_run_uncaptured():
    from torch._inductor import config

    with private.uncaptured():
        assert config.triton.force_cudagraphs_warmup
    assert not config.triton.force_cudagraphs_warmup


def test_a_function_is_compiled_for_more_than_a_few_blocks(monkeypatch):
    from torch._dynamo import config

    monkeypatch.setattr(config, "recompile_limit", 8)
    private.compile_often()
    assert config.recompile_limit == config.accumulated_recompile_limit > 100


def test_compiled_alone():
    module = nn.Linear(1, 1)
    assert not private.compiled_alone(module)
    module.compile(backend="eager")
    assert private.compiled_alone(module)


def test_what_torch_calls_pointwise_and_what_is_a_view():
    pointwise, views = private.pointwise_and_views()
    assert {"add", "tanh", "isnan", "clamp_min", "logical_xor"} <= pointwise
    assert {"view", "t", "transpose", "select", "view_as_real"} <= views
    assert not {"mm", "convolution", "sum"} & (pointwise | views)
