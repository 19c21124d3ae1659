"""The gate tests itself: does it stay silent when nothing changed, and does it see what was slowed down?

A pair of small networks is timed by the engine that times everything else. A trial does what
`flopbench gate --against` does: base and new alternate A B B A, four records each, and what is ambiguous
is measured as much again. The new candidate does a known share of work more. Nothing is simulated: the
slow-down is real work, and the noise is the machine's. A record lasts two thirds of a second, where a
cell of a suite gets several: what is found here is found there. What stays unseen is what differs from
one process to the next (the layout of memory), for all trials share one, and the drift between days that
a stored baseline meets.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flopbench.cells import Cell
from flopbench.modes import DeviceKind
from flopbench.pairs import Pair
from flopbench.regression.against import ORDER
from flopbench.regression.compare import cell_changes
from flopbench.regression.decision import Outcome, correct, worst
from flopbench.results import CellRecord, ModelResult
from flopbench.suites import MinimumEffect
from flopbench.timing.allocator import keep_freed_memory
from flopbench.timing.bench import Bench
from flopbench.timing.sampling import Rounds
from flopbench.timing.workload import Workload

EFFECTS = (0.0, 1.0, 1.5, 2.0, 3.0)
"""Injected slow-downs, in multiples of the minimum effect."""
FALSE_ALARMS = 0.01
POWER = 0.95
POWER_AT = 2.0
"""Multiple of the minimum effect that must fail: what "power at the stated minimum effect" is read as. The
minimum effect is the tolerance, and only what lies beyond it with its whole 95 % interval fails. A change of
exactly that much is measured above it as often as below, so it fails by chance alone, about once in thirty
trials, and must not more often: it was declared harmless. Twice as much is the first round figure beyond."""

# Work of a call: enough steps that one more is a small share, and each long enough to be mostly arithmetic.
STEPS = 100
WIDTH = 64
ROUNDS = 16
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
        """Share of the decisions without a change that failed."""
        return self.share(0.0, Outcome.FAIL)

    @property
    def false_alarms_at_most(self) -> float:
        """The rate of false alarms that so few decisions can rule out with 95 % confidence."""
        counts = self.outcomes[0.0]
        return upper_limit(counts[Outcome.FAIL], counts.total())

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


def upper_limit(events: int, trials: int, confidence: float = 0.95) -> float:
    """The largest rate at which so few events in so many trials are not yet implausible.

    Source: C. J. Clopper, E. S. Pearson, *The use of confidence or fiducial limits illustrated in the case
    of the binomial*, Biometrika 26, 1934.
    """
    from scipy.special import betaincinv

    return float(betaincinv(events + 1, trials - events, confidence)) if events < trials else 1.0


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
        trials: without a change, each judged in both directions, as either side could be the base; half
            as many at the slow-down that must be found, a fifth at the others.
        on_trial: told how many of how many trials are done.
    """
    power = Power(effect)
    shares = {0.0: 1, POWER_AT: 2}
    plan = [(multiple, max(1, trials // shares.get(multiple, 5))) for multiple in EFFECTS]
    total, done = sum(count for _, count in plan), 0
    machine = _Trials(device)
    for multiple, count in plan:
        counts = power.outcomes.setdefault(multiple * effect, Counter())
        for _ in range(count):
            counts.update(machine.trial(multiple * effect, effect))
            done += 1
            on_trial(done, total)
    return power


class _Trials:
    def __init__(self, device: DeviceKind) -> None:
        keep_freed_memory()
        self.device: DeviceKind = device
        self.input = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)).to(device)

    def trial(self, slowdown: float, effect: float) -> list[Outcome]:
        """The gate's word on a base and a slowed-down side; without a slow-down, on both directions."""
        effects = MinimumEffect(speedup=effect, throughput=effect)
        base, new = self._alternate(slowdown)
        directions = [(base, new)] if slowdown else [(base, new), (new, base)]
        outcomes = [_decide(*sides, effects) for sides in directions]
        if Outcome.AMBIGUOUS in outcomes:
            for side, more in zip((base, new), self._alternate(slowdown), strict=True):
                side += more
            outcomes = [
                _decide(*sides, effects) if outcome is Outcome.AMBIGUOUS else outcome
                for sides, outcome in zip(directions, outcomes, strict=True)
            ]
        return outcomes

    def _alternate(self, slowdown: float) -> tuple[list[CellRecord], list[CellRecord]]:
        sides: dict[str, list[CellRecord]] = {"A": [], "B": []}
        for turn in range(2 * REPLICATES):
            side = ORDER[turn % len(ORDER)]
            sides[side].append(self._record(slowdown if side == "B" else 0.0))
        return sides["A"], sides["B"]

    def _record(self, slowdown: float) -> CellRecord:
        rounds = self._rounds(slowdown)
        # Stands for the pair where a record asks for a cell; its name is never shown.
        pair = Pair(baseline="vit_ti16", candidate="vit_ti16.flop")
        fields = {"batch_size": 1, "pass": "forward", "dtype": "fp32", "mode": "eager"}
        baseline, candidate = (
            ModelResult(name=name, label=name, parameters=WIDTH * WIDTH, samples=tuple(map(tuple, side)))
            for name, side in ((pair.baseline, rounds.baseline), (pair.candidate, rounds.candidate))
        )
        return CellRecord(
            cell=Cell.model_validate({"pair": pair, "device": self.device, **fields}),
            status="ok",
            started="",
            wall_seconds=0.0,
            speedup=rounds.speedup,
            baseline=baseline,
            candidate=candidate,
        )

    def _rounds(self, slowdown: float) -> Rounds:
        # The candidate is the faster one, as in a pair that is worth gating.
        steps = {"baseline": STEPS + STEPS // 4, "candidate": round(STEPS * (1 + slowdown))}
        bench = Bench(
            {role: Workload.of(Steps(count, self.device), self.input) for role, count in steps.items()},
            self.device,
        )
        bench.first_calls()
        bench.check()
        bench.warm_up(0.0)
        # The number of rounds is fixed: so few seconds keep the turns short, which a light load allows.
        return bench.sample(seconds=1.0, precision=0.0, min_rounds=ROUNDS, max_rounds=ROUNDS).rounds


def _decide(base: list[CellRecord], new: list[CellRecord], effects: MinimumEffect) -> Outcome:
    changes = correct(cell_changes(base, new, effects, ("speedup", "throughput"), paired=True))
    return worst(change.outcome for change in changes)
