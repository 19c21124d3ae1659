"""What a profile says, in words. Every sentence follows from the record's figures."""

from dataclasses import dataclass

from flopbench.cells import AXES, Cell
from flopbench.models.catalog import parse_name
from flopbench.modes import CAPTURING, Mode
from flopbench.profiling.roofline import least_seconds, peak_of
from flopbench.report import text
from flopbench.results import Group, ModelProfile, ProfileRecord

PRODUCTS: tuple[Group, ...] = ("matrix products", "attention")
# A cause is named when it explains this share of what is missing, and a remainder or launches when
# they take this share of the call.
WORTH_NAMING = 0.1
# Share of the measured peak under which matrix products count as small.
BELOW_PEAK = 0.8
# Share of the call from which on the remainder makes any conclusion about its parts worthless.
DISTURBED = 0.2


@dataclass(frozen=True)
class SpeedUps:
    """One pair's four speed-ups: what the MACs promise, what the device allows, what was measured.

    Networks without a product, or one of them, have no MACs that promise anything.
    """

    promised: float | None
    allowed_fused: float
    allowed_unfused: float
    measured: float


def speed_ups(record: ProfileRecord) -> SpeedUps | None:
    """None where the record has no bounds."""
    b, c = record.baseline, record.candidate
    if not (b.bound and c.bound):
        return None
    device = record.cell.device
    fused, unfused = (
        least_seconds(b.bound, device, mode) / least_seconds(c.bound, device, mode)
        for mode in (fused_mode(record.cell), "eager")
    )
    return SpeedUps(
        promised=b.flops / c.flops if b.flops and c.flops else None,
        allowed_fused=fused,
        allowed_unfused=unfused,
        measured=record.speedup.estimate if record.speedup else b.seconds / c.seconds,
    )


def fused_mode(cell: Cell) -> Mode:
    """The mode whose least time is that of fused layers: the cell's own, or plain compilation."""
    return "compile" if cell.mode == "eager" else cell.mode


def about(record: ProfileRecord) -> str:
    """The mark of what rests on the FLOPs of both models, where operators were left out of them: `≈`."""
    models = record.baseline, record.candidate
    return "≈" if any(model.uncounted_operators for model in models) else ""


def remainder(model: ModelProfile) -> float:
    """Seconds of a call that no group explains; negative where the profiler itself cost time.

    On CUDA these are the seconds without a kernel: groups are kernels, and no profiler makes them longer.
    """
    return model.seconds - sum(model.groups.values())


def on_device(record: ProfileRecord) -> bool:
    """Whether groups are times of kernels, so that what they leave of a call is the device's idleness."""
    return record.baseline.busy_seconds is not None and record.candidate.busy_seconds is not None


def explain(record: ProfileRecord) -> list[str]:
    """The paragraph of a pair: what is promised, allowed and measured, and what is missing between them."""
    ups = speed_ups(record)
    sentences = [_headline(record, ups)] if ups else []
    # A device may well be idle for most of a call, but not busy for longer than it.
    shares = [-share if on_device(record) else abs(share) for share in _unexplained(record)]
    if max(shares) > DISTURBED:
        sentences.append(
            "The profiled calls differ too much from the unprofiled ones for conclusions about their parts: "
            "other work ran on the machine, or the calls are too short for the profiler. Profile again when "
            "the machine is idle, with a larger batch, or for longer (--seconds)."
        )
    elif ups:
        sentences += _missing(record, ups)
        sentences += _rates(record)
        sentences += [] if on_device(record) else _launches(record)
    sentences += _idle(record) if on_device(record) else _adds_up(record)
    sentences += _left_out(record)
    sentences += _ran(record)
    sentences += [f"{flag.kind}: {flag.message}. Remedy: {flag.remedy}." for flag in record.flags]
    return [sentence.replace("\u00a0", " ") for sentence in sentences]


def _headline(record: ProfileRecord, ups: SpeedUps) -> str:
    measured = record.speedup
    interval = ""
    if measured:
        interval = f" (95 % interval {text.factor(measured.low)} to {text.factor(measured.high)})"
    baseline, candidate = _labels(record)
    promised = ""
    if ups.promised is not None:
        ratio = f"{about(record)}{text.factor(ups.promised)}"
        promised = f"The MACs of {candidate} promise {ratio}× over {baseline}. "
    return (
        f"{promised}"
        f"By its measured peaks this device allows {text.factor(ups.allowed_unfused)}× with every operator "
        f"run on its own and {text.factor(ups.allowed_fused)}× with each layer fused into one kernel. "
        f"Measured ({AXES['mode'].say(record.cell.mode)}) it is {text.factor(ups.measured)}×{interval}."
    )


def shortfalls(record: ProfileRecord) -> dict[str, float]:
    """Seconds that each group of the candidate takes beyond the baseline's time ÷ MACs ratio.

    They and the remainder's add up to the candidate's time beyond what the MACs promise.
    """
    b, c = record.baseline, record.candidate
    promised = (b.flops or 1) / (c.flops or 1)
    groups: list[Group] = list(dict.fromkeys([*b.groups, *c.groups]))
    found: dict[str, float] = {g: c.groups.get(g, 0.0) - b.groups.get(g, 0.0) / promised for g in groups}
    found["idle" if on_device(record) else "unexplained"] = remainder(c) - remainder(b) / promised
    return found


_CAUSES = {
    "matrix products": "matrix products, which run slower when they are smaller",
    "attention": "attention, whose products keep their size",
    "normalisation": "normalisation, which is bound by memory and has as many elements as before",
    "elementwise": "elementwise work, which is bound by memory and has as many elements as before",
    "layout": "layout (copies that the parts of a feature need)",
    "other": "views, allocations and the host's work, for more and smaller operators",
    "unexplained": "time between operators, which belongs to none of them",
    "idle": "time in which the device is idle",
}


# Of two networks that are no twins nobody knows what became of which work.
_PLAIN_CAUSES = {
    "elementwise": "elementwise work",
    "layout": "layout (copies)",
    "other": "views, allocations and the host's work",
}


def _cause(record: ProfileRecord, group: str) -> str:
    if _twins(record.cell):
        return _CAUSES[group]
    return _PLAIN_CAUSES.get(group) or _CAUSES[group].partition(", ")[0]


def _twins(cell: Cell) -> bool:
    """Whether the candidate is a network of ours that a symmetry made of its baseline."""
    return parse_name(cell.pair.candidate).has_symmetry


def _missing(record: ProfileRecord, ups: SpeedUps) -> list[str]:
    if ups.promised is None:
        return []
    b, c = record.baseline.seconds, record.candidate.seconds
    gap = c - b / ups.promised
    if gap <= 0.02 * c:
        return [f"Nothing is missing: {text.seconds(c)} a call is what the MACs promise."]
    causes = sorted(shortfalls(record).items(), key=lambda item: -item[1])
    named = [
        f"{_cause(record, group)} ({text.seconds(seconds)})"
        for group, seconds in causes
        if seconds > WORTH_NAMING * gap
    ]
    return [
        f"A call takes {text.seconds(c)} where the MACs promise {text.seconds(b / ups.promised)}; "
        f"the {text.seconds(gap)} between them come from {text.joined(named)}."
    ]


def product_rate(model: ModelProfile) -> float | None:
    """FLOP/s that matrix products and attention reach together while they run."""
    seconds = sum(model.groups.get(group, 0.0) for group in PRODUCTS)
    return model.flops / seconds if model.flops and seconds else None


def _rates(record: ProfileRecord) -> list[str]:
    rates = [product_rate(model) for model in (record.baseline, record.candidate)]
    if record.peaks is None or None in rates:
        return []
    peak = peak_of(record.peaks, record.cell.dtype)
    baseline, candidate = (rate / peak for rate in rates if rate)
    words = (
        f"Matrix products and attention reach {text.percent(baseline)} of the measured peak "
        f"({text.significant(peak / 1e9)} GFLOP/s) in the baseline and {text.percent(candidate)} "
        "in the candidate"
    )
    if candidate < BELOW_PEAK * min(1.0, baseline / 0.9):
        smaller = "smaller " if _twins(record.cell) else ""
        words += f": its {smaller}products use the device less well"
    elif candidate < BELOW_PEAK:
        words += ": products of this size stay below the peak in both"
    return [words + "."]


def _launches(record: ProfileRecord) -> list[str]:
    bounds = record.baseline.bound, record.candidate.bound
    if record.cell.mode != "eager" or not all(bounds) or not record.peaks or not record.peaks.launch_seconds:
        return []
    b, c = (bound for bound in bounds if bound)
    share = c.launches / record.candidate.seconds
    words = (
        f"Eagerly the candidate starts {c.operators} operators, the baseline {b.operators}; at the measured "
        f"{text.seconds(record.peaks.launch_seconds)} each they take {text.percent(share)} "
        "of the candidate's call"
    )
    return [words + (", which only fusing or a larger batch can hide." if share > WORTH_NAMING else ".")]


def _idle(record: ProfileRecord) -> list[str]:
    """How long the device waits, and for what: the reason why small networks gain less than promised."""
    b, c = record.baseline, record.candidate
    shares = [max(0.0, 1 - (model.busy_seconds or 0.0) / model.seconds) for model in (b, c)]
    counts = [sum(operator.calls for operator in model.operators) for model in (b, c)]
    words = (
        f"The device is idle for {text.percent(shares[0])} of the baseline's call and for "
        f"{text.percent(shares[1])} of the candidate's, of {text.exact(round(counts[0]))} and "
        f"{text.exact(round(counts[1]))} kernels"
    )
    if max(shares) <= WORTH_NAMING:
        return [f"{words}: launching them hides behind their work."]
    if record.cell.mode in CAPTURING:
        return [f"{words}, which a graph launches at once: larger ones, of a larger batch, leave fewer gaps."]
    remedy = "a CUDA graph (--mode cuda-graph) or a larger batch hides that"
    launch = record.peaks and record.peaks.launch_seconds
    if not launch:
        return [f"{words}, which the host launches one by one: {remedy}."]
    least = [text.seconds(count * launch) for count in counts]
    return [
        f"{words}, which the host launches one by one: at the measured {text.seconds(launch)} each that "
        f"takes {least[0]} and {least[1]} per call; {remedy}."
    ]


def _unexplained(record: ProfileRecord) -> list[float]:
    return [remainder(model) / model.seconds for model in (record.baseline, record.candidate)]


def _adds_up(record: ProfileRecord) -> list[str]:
    shares = _unexplained(record)
    words = text.joined(
        [
            f"{text.percent(share)} of the {role}'s"
            for role, share in zip(("baseline", "candidate"), shares, strict=True)
        ]
    )
    kind = "within 5 %" if max(map(abs, shares)) <= 0.05 else "the remainder is shown"
    sentence = f"The groups add up to the measured time but for {words} call ({kind})"
    if min(shares) < 0:
        sentence += "; negative where the profiler's own cost is larger than what lies between operators"
    return [sentence + "."]


def _labels(record: ProfileRecord) -> tuple[str, str]:
    return text.printable(record.baseline.label), text.printable(record.candidate.label)


def _left_out(record: ProfileRecord) -> list[str]:
    """What was not counted, and what that makes of the figures; why nothing was, or there was nothing."""
    said = []
    for model, label in zip((record.baseline, record.candidate), _labels(record), strict=True):
        if model.not_counted:
            said.append(
                f"{label} could not be counted and has no least times: {text.printable(model.not_counted)}."
            )
        elif model.uncounted_operators:
            operators = text.printable(model.uncounted)
            said.append(
                f"The FLOPs of {label} leave out {operators}: its least times and rates are lower bounds, "
                "and what its MACs promise is no more than a guess (≈)."
            )
        elif model.flops == 0:
            said.append(f"{label} has no matrix product or convolution, so no MACs to promise anything.")
    return said


def _ran(record: ProfileRecord) -> list[str]:
    models = [model for model in (record.baseline, record.candidate) if model.kernels is not None]
    if not any(model.kernels for model in models):
        return []
    nothing = "torch, with no operation of flopbench's"
    return [f"{text.printable(model.label)} ran as {model.kernels or nothing}." for model in models]
