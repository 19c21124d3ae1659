"""The pytest plugin: `flopbench.compare(baseline, candidate, input, min_speedup=1.2)` in anyone's tests.

    def test_my_block_is_worth_it(flopbench):
        flopbench.compare(plain_block, my_block, torch.randn(8, 197, 384), min_speedup=1.2)

The pair is measured as every other (`flopbench.timing.bench`), within pytest-benchmark's fixture: its
options say how long, its storage keeps the candidate's times, and the speed-up goes into `extra_info`, so
`--benchmark-save`, `--benchmark-compare` and `flopbench compare` work on the same files. With
`--benchmark-disable`, which pytest-xdist implies, outputs are checked and nothing is timed.

A speed-up that was asked for and not established, by an interval that contains it or because nothing was
timed, never passes unseen: the test fails, is skipped or warns, as `on_ambiguous` or the ini option
`flopbench_on_ambiguous` says.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import pytest

if TYPE_CHECKING:
    from flopbench.results import Flag, Interval
    from flopbench.timing.bench import Bench, Sampled
    from flopbench.timing.sampling import Rounds


OnAmbiguous = Literal["fail", "skip", "warn"]


class NotEstablishedWarning(UserWarning):
    """Something that a test asks for was neither shown nor refuted."""


class Comparison(NamedTuple):
    """What the fixture found: "pass", or "ambiguous". `speedup` is None where benchmarks are disabled."""

    speedup: "Interval | None"
    outcome: str


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini option `flopbench_on_ambiguous`."""
    parser.addini(
        "flopbench_on_ambiguous",
        f"What becomes of a test whose min_speedup was not established: {', '.join(get_args(OnAmbiguous))}.",
        default="skip",
    )


@dataclass
class FlopbenchFixture:
    """Compares two callables side by side; `benchmark` is pytest-benchmark's fixture."""

    benchmark: Any
    request: pytest.FixtureRequest

    def compare(
        self,
        baseline: Callable[..., Any],
        candidate: Callable[..., Any],
        *arguments: Any,
        inputs: Any = None,
        same: "str | Callable[[Any, Any], Any] | None" = None,
        tolerance: float | None = None,
        min_speedup: float | None = None,
        grad: bool = False,
        on_ambiguous: OnAmbiguous | None = None,
    ) -> Comparison:
        """Time `baseline(*arguments)` and `candidate(*arguments)` in turn, and assert the speed-up.

        Once per test.

        Args:
            baseline: what the candidate is compared with.
            candidate: what pytest-benchmark's table shows the times of.
            arguments: the same for both; tensors, modules' features, anything. Where a tensor among them or a
                module's parameter is on a GPU, CUDA events time the calls.
            inputs: instead of these: a tensor, a tuple of arguments, a dict of arguments by name, or
                `flopbench.Inputs`, which may also be the only one of `arguments`.
            same: what of their outputs has to be equal: "output" for all, a part by its key, attribute or
                index, or a function of both outputs that says so.
            tolerance: largest difference of that, relative to its root mean square; by default as large as
                rounding in its dtype may be.
            min_speedup: time of the baseline / time of the candidate that is asked for. Fails when the
                whole 95 % interval lies below; an interval that contains it is measured once more.
            grad: call with gradients switched on (they are off otherwise).
            on_ambiguous: what becomes of the test where `min_speedup` was not established: "fail", "skip" or
                "warn"; by default what the ini option `flopbench_on_ambiguous` says, by itself "skip".

        Returns:
            The speed-up with its interval, and the outcome.

        Warns:
            NotEstablishedWarning: an output that could not be checked, or that only one of both gives; with
                "warn" an ambiguous speed-up.

        Raises:
            AssertionError: outputs not finite, of nothing in common, or not the `same`; a speed-up too small.
            FlopbenchError: a second comparison in one test, an `on_ambiguous` that is none, or both
                `arguments` and `inputs`.
        """
        import torch
        from pytest_benchmark.fixture import FixtureAlreadyUsed

        from flopbench.errors import FlopbenchError
        from flopbench.inputs import Inputs
        from flopbench.timing.bench import Bench
        from flopbench.timing.workload import Workload

        doubt = on_ambiguous or self.request.config.getini("flopbench_on_ambiguous")
        if doubt not in get_args(OnAmbiguous):
            raise FlopbenchError(f"on_ambiguous {doubt!r}: choose one of {', '.join(get_args(OnAmbiguous))}")
        if arguments and inputs is not None:
            raise FlopbenchError("arguments by position and inputs=: give either")
        if len(arguments) == 1 and isinstance(arguments[0], Inputs):
            (inputs,) = arguments
        given = Inputs(*arguments) if inputs is None else Inputs.of(inputs)
        workloads = {
            "baseline": Workload.of(baseline, *given.args, **given.kwargs),
            "candidate": Workload.of(candidate, *given.args, **given.kwargs),
        }
        parameters = [p for workload in workloads.values() for p in workload.model.parameters()]
        device = "cuda" if any(tensor.is_cuda for tensor in (*given.tensors, *parameters)) else "cpu"

        def measure() -> "tuple[Sequence[Flag], Sampled | None]":
            # Anew in each call: with --benchmark-cprofile there is a second, under the profiler.
            bench = Bench(workloads, device, same=same, tolerance=tolerance)
            with torch.set_grad_enabled(grad):
                bench.first_calls()
                bench.check()
                return bench.unchecked, self._sample(bench, min_speedup) if self.benchmark.enabled else None

        # pytest-benchmark pauses tracers (coverage) while it runs this, and knows of errors within.
        try:
            unchecked, sampled = self.benchmark.pedantic(measure)
        except FixtureAlreadyUsed:
            raise FlopbenchError(
                "flopbench.compare measures once per test, and not beside benchmark(...): make a test of "
                "each comparison, e.g. with pytest.mark.parametrize"
            ) from None
        for flag in unchecked:
            warnings.warn(f"{flag.message}; {flag.remedy}", NotEstablishedWarning, stacklevel=2)
        if sampled is not None:
            speedup, outcome, text = self._judge(sampled, min_speedup)
        elif min_speedup is not None:
            speedup, outcome = None, "ambiguous"
            text = (
                f"speed-up of at least {min_speedup:g}× asked for, and nothing timed: benchmarks are disabled"
            )
        else:
            return Comparison(None, "pass")
        if outcome == "fail" or (outcome == "ambiguous" and doubt == "fail"):
            raise AssertionError(text)
        if outcome == "ambiguous" and doubt == "skip":
            pytest.skip(text)
        if outcome == "ambiguous":
            warnings.warn(text, NotEstablishedWarning, stacklevel=2)
        return Comparison(speedup, outcome)

    def _sample(self, bench: "Bench", min_speedup: float | None) -> "Sampled":
        from flopbench.timing.statistics import MIN_ROUNDS

        # Those of the command line, or of the test's own mark.
        options = self.benchmark.stats.options
        seconds, least = float(options["max_time"]), max(options["min_rounds"], MIN_ROUNDS)
        bench.warm_up(0.1 * seconds)
        sampled = bench.sample(seconds=seconds, min_rounds=least)
        if _decide(sampled.rounds, min_speedup)[1] == "ambiguous":
            sampled = bench.sample(seconds=seconds, min_rounds=least)
        return sampled

    def _judge(self, sampled: "Sampled", min_speedup: float | None) -> "tuple[Interval, str, str]":
        """The speed-up, the outcome, and both in words; the figures go to pytest-benchmark and the report."""
        from flopbench.regression.pytest_benchmark import EXTRA

        rounds = sampled.rounds
        speedup, outcome = _decide(rounds, min_speedup)
        text = f"speed-up {speedup.estimate:.3f}× [{speedup.low:.3f}, {speedup.high:.3f}]"
        if min_speedup is not None:
            text += f", at least {min_speedup:g}× asked for: {outcome}"
        if speedup.low == speedup.high:
            text += (
                "; all rounds took the same, which is no interval: the clock is too coarse for these calls"
            )
        # It has kept the seconds of the whole measurement; the candidate's rounds take their place.
        kept = self.benchmark.stats
        kept.iterations = len(rounds.candidate[0])
        kept.stats.data[:] = [fmean(row) for row in rounds.candidate]
        flags = [f"{flag.kind}: {flag.message}; {flag.remedy}" for flag in sampled.flags]
        self.benchmark.extra_info[EXTRA] = {
            "speedup": speedup.estimate,
            "low": speedup.low,
            "high": speedup.high,
            "min_speedup": min_speedup,
            "outcome": outcome,
            "round_speedups": [
                float(f"{geometric_mean(a) / geometric_mean(b):.6g}")
                for a, b in zip(rounds.baseline, rounds.candidate, strict=True)
            ],
            "baseline_seconds": [float(f"{fmean(row):.9g}") for row in rounds.baseline],
            "flags": flags,
        }
        self.request.node.add_report_section("call", "flopbench", "\n".join([text, *flags]))
        return speedup, outcome, "; ".join([text, *flags]) if outcome == "ambiguous" else text


@pytest.fixture
def flopbench(benchmark: Any, request: pytest.FixtureRequest) -> FlopbenchFixture:
    """Compare the speed of two callables, with pytest-benchmark: see `FlopbenchFixture.compare`."""
    return FlopbenchFixture(benchmark, request)


def _decide(rounds: "Rounds", min_speedup: float | None) -> tuple["Interval", str]:
    from flopbench.regression.decision import decide
    from flopbench.results import Interval

    # Two rounds or more have one.
    speedup = cast(Interval, rounds.speedup)
    if min_speedup is None:
        return speedup, "pass"
    # How much slower than asked for: the slow end of the speed-up is the bad end of this.
    slower = Interval(
        estimate=min_speedup / speedup.estimate - 1,
        low=min_speedup / speedup.high - 1,
        high=min_speedup / speedup.low - 1,
    )
    # Without any spread between rounds the ends of the interval mean nothing.
    return speedup, "ambiguous" if speedup.low == speedup.high else decide(slower, 0.0).value
