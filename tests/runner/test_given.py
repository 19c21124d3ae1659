"""Objects given from Python: jobs find them in a fresh process, or here, where everything stays as it was."""

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flopbench.inputs import Inputs
from flopbench.models.foreign import load
from flopbench.runner.given import Apart, Here, launcher_of
from flopbench.runner.here import as_it_was, networks_of
from flopbench.runner.jobs import COMPILE
from flopbench.runner.process import Report


def total(report: Report, name: str) -> float:
    """The sum of what a network makes of ones."""
    with torch.no_grad():
        return float(load(f"python:{name}")(torch.ones(2, 3)).sum())


def spoil(report: Report) -> None:
    network = load("python:net")
    for parameter in network.parameters():
        parameter.data.fill_(7.0)


def spoil_everything(report: Report) -> None:
    """All that a job may do to the networks and the process that it finds."""
    network = load("python:net")
    network.train().double()
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    network(torch.ones(2, 3, dtype=torch.float64)).sum().backward()
    optimiser.step()
    network.register_forward_hook(lambda *_: None)
    network.requires_grad_(False)
    network.note = "measured"
    (x,) = load("python:inputs").args
    x.fill_(5.0)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True)
    raise MemoryError


class Locked(nn.Module):
    """What cannot be pickled, for it holds a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.guard = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.guard:
            return self.norm(self.linear(x))


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_a_fresh_process_finds_what_was_given_and_changes_none_of_it():
    net = network()
    scale = 2.0
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    # A closure over a network and a local: by value.
    objects = {"net": net, "twice": lambda x: scale * net(x)}
    with launcher_of(objects) as launch:
        assert isinstance(launch, Apart)
        assert launch.flags == ()
        assert launch.file is not None
        folder = launch.file.parent
        single = launch(total, "net", timeout=60)
        double = launch("tests.runner.test_given:total", "twice", timeout=60)
        assert single.kind == double.kind == "done"
        assert double.value == pytest.approx(2 * single.value)
        assert launch(spoil, timeout=60).kind == "done"
    assert not folder.exists()
    assert all(value.equal(kept[name]) for name, value in net.state_dict().items())


def test_the_file_is_gone_after_an_interrupt():
    context = launcher_of({"net": network()})
    launch = context.__enter__()
    assert isinstance(launch, Apart)
    assert launch.file is not None
    assert launch.file.is_file()
    assert not context.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert not launch.file.parent.exists()


def test_without_objects_jobs_are_as_ever():
    with launcher_of({}, threads=1) as launch:
        assert isinstance(launch, Apart)
        assert launch(threads, timeout=60) == ("done", 1)


def threads(report: Report) -> int:
    return torch.get_num_threads()


class Unreadable:
    """Pickles, and cannot be unpickled where it did not begin."""

    def __init__(self) -> None:
        self.home = threading.get_native_id()

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[int]]:
        return at_home, (self.home,)


def at_home(home: int) -> Unreadable:
    assert home == threading.get_native_id(), "not at home"
    return Unreadable()


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (Locked, "net.guard does not pickle (TypeError: cannot pickle '_thread.lock' object"),
        (lambda: nn.Sequential(Locked()), "net.0.guard does not pickle"),
        (Unreadable, "a fresh process cannot unpickle it (AssertionError: not at home"),
        (lambda: torch.jit.script(nn.Linear(3, 2)), "net._c does not pickle"),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_what_cannot_be_given_to_a_process_is_worked_on_here_and_that_is_said(one: Any, told: str):
    with launcher_of({"net": one()}, threads=1) as launch:
        assert isinstance(launch, Here)
        (flag,) = launch.flags
        assert flag.kind == "in-process"
        assert told in flag.message
        assert "module:callable" in flag.remedy
        outcome = launch("tests.runner.test_given:total", "net", timeout=60)
        assert outcome.kind == "done", outcome.value


@pytest.fixture
def before() -> Iterator[None]:
    """Switches that are not as they begin, put back after the test."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = False, True


def state() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # pyright: ignore[reportIndexIssue, reportArgumentType]
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.is_grad_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
    ]


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("how", ["module", "function"])
def test_here_all_is_left_as_it_was(how: str):
    net, x = Locked().eval(), torch.randn(2, 3)
    net.linear.weight.requires_grad_(False)
    net.linear.bias.grad = gradient = torch.ones(2)
    addresses = {
        name: (id(value), value.data_ptr()) for name, value in net.state_dict(keep_vars=True).items()
    }
    values, given = {name: value.clone() for name, value in net.state_dict().items()}, x.clone()
    attributes, modes = dict(vars(net)), [module.training for module in net.modules()]
    began = state()
    launch = Here({"net": net if how == "module" else net.forward, "inputs": Inputs(x)}, "a test")
    outcome = launch(spoil_everything if how == "module" else train, timeout=60)
    assert outcome.kind == ("oom" if how == "module" else "done"), outcome.value
    assert state() == began
    assert all(value.equal(values[name]) for name, value in net.state_dict().items())
    assert {
        name: (id(value), value.data_ptr()) for name, value in net.state_dict(keep_vars=True).items()
    } == addresses
    assert [module.training for module in net.modules()] == modes
    assert vars(net).keys() == attributes.keys()
    assert not net._forward_hooks
    assert net.linear.bias.grad is gradient
    assert gradient.tolist() == [1.0, 1.0]
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, True]
    assert net.norm.weight.grad is None
    assert x.equal(given)


def train(report: Report) -> None:
    """A step of a network that a function holds."""
    network = load("python:net")
    network(torch.ones(2, 3)).sum().backward()


def test_what_shares_memory_shares_it_in_the_copies():
    rows = torch.arange(6.0)
    first, second = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)
    first.weight.data, second.weight.data = rows[:3].view(1, 3), rows[3:].view(1, 3)
    tied = nn.ModuleList([first, second, first])
    with as_it_was({"tied": tied}):
        copies = [layer.weight.data for layer in tied if isinstance(layer, nn.Linear)]
        assert copies[0].untyped_storage().data_ptr() == copies[1].untyped_storage().data_ptr()
        assert copies[0].data_ptr() != rows.data_ptr()
        assert copies[1].tolist() == [[3.0, 4.0, 5.0]]
        copies[0].zero_()
    assert rows.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert first.weight.data_ptr() == rows.data_ptr()


def test_networks_are_found_in_what_functions_hold():
    net, other = network(), Locked()
    known = {"deep": [{"net": net}]}

    def function(x: Tensor) -> Tensor:
        return known["deep"][0]["net"](x)

    found = networks_of([function, other.forward])
    assert {id(one) for one in found} == {id(one) for one in (*net.modules(), *other.modules())}


def test_here_an_error_is_told_and_an_interrupt_is_none():
    def interrupted(report: Report) -> None:
        raise KeyboardInterrupt

    def wrong(report: Report) -> None:
        raise ValueError("first\nsecond")

    here = Here({}, "a test")
    kind, line = here(wrong, timeout=1)
    assert kind == "error"
    assert line.startswith("ValueError: first (test_given.py:")
    with pytest.raises(KeyboardInterrupt):
        here(interrupted, timeout=1)


def test_here_nothing_is_compiled_beforehand():
    assert Here({}, "a test")(COMPILE, None, 2, timeout=1).kind == "timeout"
