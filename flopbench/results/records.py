"""The records of a run and its cells: frozen, typed, and the schema of what is on disk."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, TypeAdapter, model_validator

from flopbench.cells import Cell
from flopbench.frozen import Frozen
from flopbench.kernels import Ran, has_ours
from flopbench.modes import ENGINES, EXPORTED
from flopbench.results.percentiles import percentile_interval
from flopbench.suites import Profile
from flopbench.symmetries.registry import About, describe

SCHEMA = 2
"""2 says which kernels ran, and what they were compiled with. Runs of 1 are read; they do not say."""

Schema = Annotated[Literal[1, 2], Field(alias="schema")]

TORCHS, OURS = "with torch's own operations", "with flopbench's kernels"
"""Both worlds of torch, in words."""

CompileCache = Literal["cold", "warm", "mixed", "shared"]
"""Where a model's compiled graphs came from: compiled in its first call, taken from the cache on disk, some
of each, or neither, because this process had compiled the same code for the other model of the pair."""

PeakSource = Literal["allocator", "uncaptured"]
"""How a peak of memory was found: from torch's allocator in a call like the timed ones; or, where these
replay a CUDA graph, which allocates nothing, in a call of the same code without the graph."""

Status = Literal["ok", "failed", "oom", "timeout", "crashed", "skipped"]
Samples = tuple[Annotated[tuple[PositiveFloat, ...], Field(min_length=1)], ...]


class Finite(Frozen, allow_inf_nan=False):
    """A record of figures, each of which is a number."""


class Interval(Finite):
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width relative to the estimate."""
        return (self.high - self.low) / 2 / self.estimate


def _is_ratio(interval: Interval) -> Interval:
    if min(interval.estimate, interval.low, interval.high) <= 0:
        raise ValueError("a speed-up and the ends of its interval are above zero")
    return interval


Speedup = Annotated[Interval, AfterValidator(_is_ratio)]
"""Time of the baseline over time of the candidate."""


class Implemented(Finite):
    """What a model ran as, seen in its first call.

    `implementations` holds what each operation of ours was seen to run as, and why: operation → name →
    reason; None where it was not recorded, empty where the model has no operation of ours.
    """

    implementations: Ran | None = None

    @property
    def kernels(self) -> str | None:
        """What ran, `cpp: attention, linear; torch: layer_norm`; None where it was not recorded."""
        if self.implementations is None:
            return None
        by_name: dict[str, list[str]] = {}
        for operation, names in sorted(self.implementations.items()):
            for name in names:
                by_name.setdefault(name, []).append(operation)
        return "; ".join(f"{name}: {', '.join(operations)}" for name, operations in sorted(by_name.items()))


class Counted(Finite):
    """What a count of a model left out: operator → how often it came."""

    uncounted_operators: dict[str, int] = {}

    @property
    def uncounted(self) -> str:
        """`aten::fft_rfft (12), mine::scan (1)`."""
        return ", ".join(f"{name} ({calls})" for name, calls in self.uncounted_operators.items())


class Serving(Finite):
    """What counts where a model answers single requests (`timing.serving` says how each is measured).

    `latencies` holds seconds per call, from the call until its result was there, of calls one at a time, in
    the order of measurement. `first_call_seconds` is that of the first call in the process, what it compiles
    included. `disk_bytes` is the size of a file with the weights in the cell's dtype, `load_seconds` how long
    it takes from there to a network on the device; None where there are none, or for the reason `problem`.
    """

    latencies: tuple[PositiveFloat, ...] = ()
    first_call_seconds: PositiveFloat | None = None
    load_seconds: PositiveFloat | None = None
    disk_bytes: int | None = None
    problem: str = ""

    def latency(self, percentile: float) -> Interval | None:
        """A percentile of the latencies with its 95 % interval; None where there are too few calls."""
        found = percentile_interval(self.latencies, percentile)
        return found and Interval(estimate=found[0], low=found[1], high=found[2])


class Deployment(Finite):
    """How a model came into an engine (`flopbench.engines`).

    `engine` is the mode, with its `version`, the `provider` within it that computes, and its `threads`.
    `export_seconds` lead from the network to a file of `disk_bytes`, `load_seconds` from there to what can be
    called, `first_call_seconds` are those of the first call.
    """

    engine: str
    version: str
    provider: str
    threads: int
    export_seconds: float
    load_seconds: float
    disk_bytes: int
    first_call_seconds: PositiveFloat | None = None


class ModelResult(Counted, Implemented):
    """What was found out about one model of a cell.

    `macs` are the forward pass's for one image, or one sample of the pair's own inputs; None where they
    could not be counted. `uncounted_operators` were left out of them: operator → how often it came.
    `samples` holds seconds per call, one inner tuple per round, in the order of measurement;
    `host_samples` the host's dispatch time of the first call of each turn (CUDA only; of each call in
    early records). `peak_bytes` is weights, gradients, optimiser state and activations at the pass's
    peak, None where it cannot be known; `peak_source` how it was found, None in early records.
    `compile_seconds` is the first call of a compiled model less a warm one (None when eager), and
    `compile_cache` how that call came by its code. In early records, which do not say, the baseline's
    holds the compiler's start-up too. `watts` is the average power while the model was sampled, `joules`
    the energy of a call with what lies between it and the next: of the whole card, or of the processor's
    packages with all that ran on them; None where the device does not tell, or not finely enough to tell
    the models apart. `serving` is measured where it was asked for, of forward passes. `not_compiled` is
    what of a compiled model runs uncompiled, and why: reason → how often. `deployed` is there where an engine
    executed the model.
    """

    name: str
    label: str
    parameters: int
    macs: int | None = None
    peak_bytes: int | None = None
    peak_source: PeakSource | None = None
    compile_seconds: float | None = None
    compile_cache: CompileCache | None = None
    not_compiled: dict[str, int] = {}
    watts: PositiveFloat | None = None
    joules: PositiveFloat | None = None
    serving: Serving | None = None
    deployed: Deployment | None = None
    samples: Samples = ()
    host_samples: Samples = ()


class Check(Finite):
    """The numerical check before timing: largest |f(g x) − g f(x)| relative to the output's spread.

    It is the largest over the generators g of the candidate's symmetry, which act on f(x) as the cell's task
    says: on logits not at all. `random` is on normal noise and `photo` on a real photograph, with perturbed
    weights, in fp32; `in_cell` is on the cell's own input in the cell's dtype and mode. None: not promised,
    by a plain or hybrid network, so not asked for. `agreement` is the largest |compiled, fused or exported −
    eager| of either model, relative to the root mean square of the output (None where only eager operations
    ran, or none could be judged: the cell has a flag then), `agreements` that of each by its role. `same` is
    the largest |candidate − baseline| of what the pair says is the same, relative likewise; None where it
    says nothing or leaves it to a function of its own.
    """

    random: float | None = None
    photo: float | None = None
    in_cell: float | None = None
    agreement: float | None = None
    agreements: dict[str, float] = {}
    same: float | None = None
    tolerance: float
    in_cell_tolerance: float


# The kind of the flag on a cell whose interval is too wide to answer anything.
UNRESOLVED = "not resolved"

# Of what holds a GPU's clocks back (`throttle_reasons` in a record's `device_state`) the one that is no
# fault: a large network draws all that the card may, and the clocks that it has there are its own.
POWER_LIMIT = "software power cap"


class Flag(Frozen):
    """Something that makes a measurement less trustworthy, with what to do about it."""

    kind: str
    message: str
    remedy: str


class CellRecord(Finite):
    """One line of `cells.jsonl`."""

    schema_: Schema = SCHEMA
    cell: Cell
    replicate: int = 0
    status: Status
    reason: str = ""
    started: str
    wall_seconds: float
    inputs: str = ""
    """What both models were called with, where that is no image: `int64 [4, 16], mask: bool [4, 16]`."""
    baseline: ModelResult | None = None
    candidate: ModelResult | None = None
    speedup: Speedup | None = None
    stop: Literal["precision", "time", "rounds"] | None = None
    compiled_beforehand: int = 0
    """Processes that had compiled the models of this and other cells side by side, so that compiling here was
    finding the code on disk (`compile_cache`); 0 where none had."""
    check: Check | None = None
    flags: tuple[Flag, ...] = ()
    device_state: dict[str, Any] = {}
    phases: dict[str, float] = {}
    """Seconds of the cell's wall time by phase: build, compile, export, check, warm-up, memory, sampling."""

    @model_validator(mode="after")
    def _has_both_of_each_round(self) -> Self:
        rounds = {len(model.samples) for model in (self.baseline, self.candidate) if model}
        if len(rounds) > 1:
            raise ValueError("both models have as many rounds, for they take turns")
        return self

    @property
    def key(self) -> tuple[str, int]:
        """What the record is about: the cell's id and the replicate."""
        return self.cell.id, self.replicate

    @property
    def world(self) -> str:
        """`with torch's own operations`, `with flopbench's kernels`; of engines, how it was exported.

        Nothing where it was not recorded, or neither model has an operation that comes in both.
        """
        models = {"baseline": self.baseline, "candidate": self.candidate}
        ran = {role: model.implementations for role, model in models.items() if model}
        if len(ran) < 2 or None in ran.values() or not any(ran.values()):
            return ""
        if self.cell.mode in ENGINES:
            return EXPORTED.get(self.cell.impl, "")
        ours = [role for role, implementations in ran.items() if has_ours(implementations or {})]
        return f"{OURS} in the {ours[0]} alone" if len(ours) == 1 else OURS if ours else TORCHS

    @property
    def unresolved(self) -> str:
        """Why the samples answer nothing, the interval being many times as wide as was asked, and what would
        help; else empty.
        """
        flags = (flag for flag in self.flags if flag.kind == UNRESOLVED)
        return next((f"{flag.message}; try {flag.remedy}" for flag in flags), "")

    @property
    def macs_ratio(self) -> float | None:
        """MACs of the baseline over MACs of the candidate: the speed-up that the arithmetic promises."""
        if self.baseline and self.candidate and self.baseline.macs and self.candidate.macs:
            return self.baseline.macs / self.candidate.macs
        return None

    @property
    def realised_share(self) -> float | None:
        """(speed-up − 1) / (MACs ratio − 1); None where unresolved or the MACs promise no 1 %."""
        ratio = self.macs_ratio
        if self.speedup is None or self.unresolved or ratio is None or ratio < 1.01:
            return None
        return (self.speedup.estimate - 1) / (ratio - 1)


class FrontierRecord(Finite):
    """One line of `frontier.jsonl`: the largest batch of a model's pass that fits the device.

    `cell` says under what; its batch size is 1. `largest_batch` is exact to one part in sixteen and 0
    where not even one image fits; `peak_bytes` is the pass's peak at that batch.
    """

    schema_: Schema = SCHEMA
    name: str
    label: str
    cell: Cell
    largest_batch: int = 0
    peak_bytes: int | None = None

    @property
    def key(self) -> str:
        """What the record is about: the model, and all of the cell but the pair."""
        return self.name + self.cell.id.removeprefix(self.cell.pair.id)


class Environment(Frozen):
    """What a run was taken on. Nothing personal: no user, host name or path.

    `cpu_capability` is the vector instructions that torch uses, `compiler` the C++ compiler that inductor and
    our kernels use, with its version, `c_compiler` the one that Triton builds its launchers with (None where
    there is none, or Python's headers are missing), `kernels` a digest of our kernels' sources, `flopbench`
    its version, `commit` that of the repository that the command ran in, with `+` where it had changes,
    `engines` the version of each engine that is installed beside torch's own.
    """

    device: Literal["cpu", "cuda"]
    device_name: str
    device_count: int = 1
    device_memory_bytes: int | None = None
    driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    allocator: str | None = None
    os: str
    python: str
    torch: str
    triton: str | None = None
    cpu_capability: str | None = None
    compiler: str | None = None
    c_compiler: str | None = None
    kernels: str | None = None
    fvcore: str
    flopbench: str
    commit: str | None = None
    engines: dict[str, str] = {}

    def differences(self, other: "Environment", fields: Iterable[str]) -> list[str]:
        """`field: mine → theirs` for each of `fields` that is not the same."""
        return [
            f"{name}: {getattr(self, name)} → {getattr(other, name)}"
            for name in fields
            if getattr(self, name) != getattr(other, name)
        ]


_ABOUT = TypeAdapter(About)


def _known(symmetries: tuple[About, ...]) -> tuple[About, ...]:
    for about in symmetries:
        describe(about)
    return symmetries


Symmetries = Annotated[tuple[About, ...], AfterValidator(_known)]
"""What symmetries are called that are not our own; whoever reads the record knows it from then on."""


class RunInfo(Frozen):
    """`run.json`. What its symmetries are called is in it, but for flopbench's own."""

    schema_: Schema = SCHEMA
    id: str
    suite: str
    title: str
    suite_digest: str
    profile: Profile
    quick: bool = False
    full: bool = False
    shard: tuple[int, int] | None = None
    command: str
    created: str
    environment: Environment
    symmetries: tuple[About, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _knows_symmetries(cls, data: Any) -> Any:
        """The profile's networks have names that only they explain."""
        for about in data.get("symmetries", ()) if isinstance(data, dict) else ():
            describe(_ABOUT.validate_python(about))
        return data
