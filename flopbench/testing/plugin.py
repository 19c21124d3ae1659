"""The pytest plugin: `flopbench.compare(baseline, candidate, input, min_speedup=1.2)` in anyone's tests.

    def test_my_block_is_worth_it(flopbench):
        flopbench.compare(plain_block, my_block, torch.randn(8, 197, 384), min_speedup=1.2)

It stands on pytest-benchmark's fixture: its options choose the rounds, its storage keeps the candidate's
times, and the speed-up goes into `extra_info`, so `--benchmark-save`, `--benchmark-compare` and
`flopbench compare` work on the same files. With `--benchmark-disable` outputs are checked, and nothing
is timed.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flopbench.results import Interval

MIN_ROUNDS, MAX_ROUNDS = 6, 1000
BLOCK_SECONDS = 1e-3
"""A timed block of short calls is at least this long."""

Call = Callable[[], Any]


class Comparison:
    """What the fixture found. `speedup` is None where benchmarks are disabled."""

    def __init__(self, speedup: "Interval | None", outcome: str) -> None:
        self.speedup = speedup
        self.outcome = outcome


class FlopbenchFixture:
    """Compares two callables side by side; `benchmark` is pytest-benchmark's fixture."""

    def __init__(self, benchmark: Any, request: pytest.FixtureRequest) -> None:
        self.benchmark = benchmark
        self.request = request

    def compare(
        self,
        baseline: Callable[..., Any],
        candidate: Callable[..., Any],
        *inputs: Any,
        min_speedup: float | None = None,
        grad: bool = False,
        strict: bool = False,
    ) -> Comparison:
        """Time `baseline(*inputs)` and `candidate(*inputs)` in turn, and assert the speed-up.

        Args:
            baseline: what the candidate is compared with.
            candidate: what pytest-benchmark's table shows the times of.
            inputs: the same for both; tensors, modules' features, anything.
            min_speedup: time of the baseline / time of the candidate that is asked for. Fails when the
                whole 95 % interval lies below; an interval that contains it is measured once more.
            grad: call with gradients switched on (they are off otherwise).
            strict: an ambiguous result fails as well.

        Returns:
            The speed-up with its interval, and the outcome.

        Raises:
            AssertionError: outputs that are not finite or differ in shape, or a speed-up too small.
        """
        import torch

        before, after = _timed_call(baseline, inputs), _timed_call(candidate, inputs)
        with torch.set_grad_enabled(grad):
            problem = _difference(before(), after())
            if problem:
                # Raised within pytest-benchmark, which otherwise complains of a fixture never used.
                self.benchmark.pedantic(_fail, args=(problem,))
            if not self.benchmark.enabled:
                self.benchmark.pedantic(after)
                return Comparison(None, "pass")
            rounds = self._measure(before, after)
            speedup, outcome = _decide(rounds, min_speedup)
            if outcome == "ambiguous":
                rounds = _alternate(before, after, rounds)
                speedup, outcome = _decide(rounds, min_speedup)
        text = f"speed-up {speedup.estimate:.3f}× [{speedup.low:.3f}, {speedup.high:.3f}]"
        if min_speedup is not None:
            text += f", at least {min_speedup:g}× asked for: {outcome}"
        self._keep(rounds, speedup, min_speedup, outcome, text)
        if outcome == "fail" or (strict and outcome == "ambiguous"):
            raise AssertionError(text)
        return Comparison(speedup, outcome)

    def _measure(self, before: Call, after: Call) -> list[tuple[float, float]]:
        """(seconds a call of the baseline, of the candidate) a round; pytest-benchmark times the latter."""
        # Warm both up, and learn how long they take.
        for call in (before, after, before):
            _seconds(call, 1)
        longest = max(_seconds(before, 2), _seconds(after, 2))
        calls = max(1, math.ceil(BLOCK_SECONDS / longest))
        options = self.request.config.option
        fitting = int(float(options.benchmark_max_time) / (2 * longest * calls))
        count = max(int(options.benchmark_min_rounds), min(MAX_ROUNDS, fitting), MIN_ROUNDS)
        baseline: list[float] = []
        # The baseline's block comes right after each of the candidate's, outside its timed region.
        self.benchmark.pedantic(
            after, rounds=count, iterations=calls, teardown=lambda: baseline.append(_seconds(before, calls))
        )
        # Looping, pytest-benchmark calls once more than it times.
        return list(zip(baseline[:count], self.benchmark.stats.stats.data, strict=True))

    def _keep(
        self,
        rounds: list[tuple[float, float]],
        speedup: "Interval",
        min_speedup: float | None,
        outcome: str,
        text: str,
    ) -> None:
        from flopbench.regression.pytest_benchmark import EXTRA

        self.benchmark.extra_info[EXTRA] = {
            "speedup": speedup.estimate,
            "low": speedup.low,
            "high": speedup.high,
            "min_speedup": min_speedup,
            "outcome": outcome,
            "round_speedups": [float(f"{a / b:.6g}") for a, b in rounds],
        }
        self.request.node.add_report_section("call", "flopbench", text)


@pytest.fixture
def flopbench(benchmark: Any, request: pytest.FixtureRequest) -> FlopbenchFixture:
    """Compare the speed of two callables, with pytest-benchmark: see `FlopbenchFixture.compare`."""
    return FlopbenchFixture(benchmark, request)


def _timed_call(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Call:
    """The call, ended only when the device has ended it."""
    import torch

    on_cuda = any(x.is_cuda for x in _tensors(inputs))

    def call() -> Any:
        result = function(*inputs)
        if on_cuda:
            torch.cuda.synchronize()
        return result

    return call


def _seconds(call: Call, calls: int) -> float:
    import time

    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _alternate(before: Call, after: Call, rounds: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """As many rounds again, added to those measured."""
    calls = max(1, math.ceil(BLOCK_SECONDS / max(min(rounds[0]), 1e-9)))
    more = [(_seconds(before, calls), _seconds(after, calls)) for _ in rounds]
    return rounds + more


def _decide(rounds: list[tuple[float, float]], min_speedup: float | None) -> tuple["Interval", str]:
    from flopbench.regression.decision import decide
    from flopbench.results import Interval
    from flopbench.timing.statistics import ratio_interval

    speedup = ratio_interval(tuple((a,) for a, _ in rounds), tuple((b,) for _, b in rounds))
    if min_speedup is None:
        return speedup, "pass"
    # How much slower than asked for: the slow end of the speed-up is the bad end of this.
    slower = Interval(
        estimate=min_speedup / speedup.estimate - 1,
        low=min_speedup / speedup.high - 1,
        high=min_speedup / speedup.low - 1,
    )
    return speedup, decide(slower, 0.0).value


def _difference(before: Any, after: Any) -> str:
    """Why the two outputs cannot be those of one task, or nothing."""
    ours, theirs = _tensors(after), _tensors(before)
    for tensor in ours:
        if not bool(tensor.isfinite().all()):
            return f"the candidate's output {tuple(tensor.shape)} is not finite"
    # Features laid out differently (two halves for one tensor) hold as many numbers all the same.
    sizes = [sum(tensor.numel() for tensor in side) for side in (theirs, ours)]
    if sizes[0] != sizes[1]:
        return f"the baseline gives {sizes[0]} numbers, the candidate {sizes[1]}: not the same task"
    return ""


def _fail(message: str) -> None:
    raise AssertionError(message)


def _tensors(tree: Any) -> list[Any]:
    import torch

    if isinstance(tree, torch.Tensor):
        return [tree]
    return [t for item in tree for t in _tensors(item)] if isinstance(tree, list | tuple) else []
