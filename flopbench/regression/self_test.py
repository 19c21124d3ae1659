"""The gate tests itself: does it stay silent when nothing changed, and does it see what was slowed down?

A pair of small networks is timed by the engine that times everything else. A trial takes a base run of a
few replicates and a new one, whose candidate does a known share of work more, and has the gate decide.
Nothing is simulated: the slow-down is real work, and the noise is the machine's. What stays unseen is
what differs from one process to the next (the layout of memory), for all trials share one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flopbench.regression.compare import cell_changes
from flopbench.regression.decision import Outcome, correct, worst
from flopbench.results import CellRecord, ModelResult
from flopbench.suites import Cell, DeviceKind, MinimumEffect, Pair
from flopbench.timing.clock import CLOCKS, Clock
from flopbench.timing.sampling import sample_pair, warm_up
from flopbench.timing.workload import Workload

EFFECTS = (0.0, 1.0, 1.5, 2.0, 3.0)
"""Injected slow-downs, in multiples of the minimum effect."""
FALSE_ALARMS = 0.01
POWER = 0.95
POWER_AT = 2.0
"""Multiple of the minimum effect that must fail. At 1.0 the change equals the tolerance, and a gate that asks
for the whole interval to lie beyond it cannot fail more often than by chance."""

# Work of a call: enough steps that one more is a small share, and each long enough to be mostly arithmetic.
STEPS = 100
WIDTH = 64
ROUNDS = 6
REPLICATES = 4


@dataclass
class Power:
    """What the gate said in the trials.

    Attributes:
        effect: the minimum effect, a fraction.
        outcomes: injected slow-down (a fraction) → how often each outcome came.
    """

    effect: float
    outcomes: dict[float, Counter[Outcome]] = field(default_factory=dict)

    def share(self, multiple: float, outcome: Outcome) -> float:
        """Share of the trials with a slow-down of `multiple` minimum effects that had this outcome."""
        counts = self.outcomes[multiple * self.effect]
        return counts[outcome] / max(1, counts.total())

    @property
    def false_alarms(self) -> float:
        """Share of the trials without a change that failed."""
        return self.share(0.0, Outcome.FAIL)

    @property
    def power(self) -> float:
        """Share of the trials with a slow-down of twice the minimum effect that failed."""
        return self.share(POWER_AT, Outcome.FAIL)

    @property
    def smallest_found(self) -> float | None:
        """The smallest injected slow-down that failed in 95 % of its trials."""
        found = [m for m in EFFECTS if m and self.share(m, Outcome.FAIL) >= POWER]
        return found[0] * self.effect if found else None

    @property
    def holds(self) -> bool:
        """Whether the gate is fit for use on this machine."""
        return self.false_alarms < FALSE_ALARMS and self.power >= POWER


class Steps(nn.Module):
    """`steps` products with a fixed matrix: work in small equal parts."""

    def __init__(self, steps: int, device: DeviceKind) -> None:
        super().__init__()
        self.steps = steps
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(WIDTH, WIDTH, generator=generator) * WIDTH**-0.5
        self.weight = nn.Parameter(weight.to(device), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[WIDTH, WIDTH]` to the same shape."""
        for _ in range(self.steps):
            x = torch.tanh(x @ self.weight)
        return x


def self_test(
    device: DeviceKind,
    *,
    effect: float,
    trials: int,
    on_trial: Callable[[int, int], None] = lambda done, of: None,
) -> Power:
    """Let the gate decide on real measurements with known slow-downs.

    Args:
        device: cpu or cuda.
        effect: the minimum effect, a fraction.
        trials: without a change; each slow-down gets a quarter as many.
        on_trial: told how many of how many trials are done.
    """
    power = Power(effect)
    plan = [(multiple * effect, trials if multiple == 0 else max(1, trials // 4)) for multiple in EFFECTS]
    total, done = sum(count for _, count in plan), 0
    bench = _Bench(device)
    for slowdown, count in plan:
        counts = power.outcomes.setdefault(slowdown, Counter())
        for _ in range(count):
            counts[bench.trial(slowdown, effect)] += 1
            done += 1
            on_trial(done, total)
    return power


class _Bench:
    def __init__(self, device: DeviceKind) -> None:
        self.device: DeviceKind = device
        self.clock: Clock = CLOCKS[device]()
        self.input = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)).to(device)
        # The candidate is the faster one, as in a pair that is worth gating.
        self.baseline = self._workload(STEPS + STEPS // 4)
        warm_up(self.clock, self.baseline, seconds=1.0)

    def trial(self, slowdown: float, effect: float) -> Outcome:
        """A base run, a new one slowed down, and the gate's word; measured again once if it cannot tell."""
        effects = MinimumEffect(speedup=effect, throughput=effect)
        base, new = self._run(0.0), self._run(slowdown)
        outcome = _decide(base, new, effects)
        return _decide(base, new + self._run(slowdown), effects) if outcome is Outcome.AMBIGUOUS else outcome

    def _run(self, slowdown: float) -> list[CellRecord]:
        return [self._record(slowdown) for _ in range(REPLICATES)]

    def _record(self, slowdown: float) -> CellRecord:
        candidate = self._workload(round(STEPS * (1 + slowdown)))
        for _ in range(3):
            candidate.run()
        rounds = sample_pair(
            self.clock,
            self.baseline,
            candidate,
            calls=1,
            precision=0.0,
            seconds=60.0,
            max_rounds=ROUNDS,
        )
        samples = [tuple(map(tuple, side)) for side in (rounds.baseline, rounds.candidate)]
        baseline, candidate_result = (
            ModelResult(name=name, label=name, parameters=WIDTH * WIDTH, samples=side)
            for name, side in zip(("vit_ti16", "vit_ti16.flop"), samples, strict=True)
        )
        return CellRecord(
            cell=_CELL.model_copy(update={"device": self.device}),
            status="ok",
            started="",
            wall_seconds=0.0,
            baseline=baseline,
            candidate=candidate_result,
            speedup=rounds.speedup,
        )

    def _workload(self, steps: int) -> Workload:
        model = Steps(steps, self.device).eval()

        def step(_: object) -> None:
            with torch.no_grad():
                model(self.input)

        return Workload(model, lambda: None, step, model)


# Stands for the pair above where a record asks for a cell; its name is never shown.
_CELL = Cell.model_validate(
    {
        "pair": Pair(baseline="vit_ti16", candidate="vit_ti16.flop"),
        "device": "cpu",
        "batch_size": 1,
        "pass": "forward",
        "dtype": "fp32",
        "mode": "eager",
    }
)


def _decide(base: list[CellRecord], new: list[CellRecord], effects: MinimumEffect) -> Outcome:
    changes = correct(cell_changes(base, new, effects, ("speedup", "throughput")))
    return worst(change.outcome for change in changes)
