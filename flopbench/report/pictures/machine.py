"""What the device allows and where the time goes, from a run's calibration and profiles."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flopbench.report import text
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Label,
    Look,
    columns,
    log_axis,
    look,
    named_rows,
    new_figure,
    place_labels,
    told,
    wrapped,
)
from flopbench.results import Group, ModelProfile, Peaks, ProfileRecord, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GROUP_LOOKS: dict[Group, Look] = {
    "matrix products": Look(BLUE),
    "attention": Look(SKY, hatch="///"),
    "normalisation": Look(GREEN, hatch="..."),
    "elementwise": Look(VERMILION, hatch="\\\\\\"),
    "layout": Look(ORANGE, hatch="xx"),
    "other": Look(PURPLE, hatch="++"),
}


def measured_peaks(run: Run) -> Peaks | None:
    """The device's peaks: from the run's calibration, else from the first of its profiles that has them."""
    calibration = run.calibration()
    if calibration:
        return calibration.peaks
    return next((profile.peaks for profile in run.profiles() if profile.peaks), None)


def roofline(
    profiles: Sequence[ProfileRecord], peaks: Peaks | None, device_name: str, suffix: str = ""
) -> Drawing | None:
    """Achieved FLOP/s of every profiled model against its FLOPs a byte, under the measured peaks."""
    profiles = [
        profile
        for profile in profiles
        if all(m.flops and m.bytes_moved for m in (profile.baseline, profile.candidate))
    ]
    if peaks is None or not profiles:
        return None
    dtypes = {profile.cell.dtype.removeprefix("autocast-") for profile in profiles}
    roofs = {dtype: flops for dtype, flops in peaks.flops_per_second.items() if dtype in dtypes}
    if not roofs:
        return None
    points = [(p, m, _intensity(m), _achieved(m)) for p in profiles for m in (p.baseline, p.candidate)]
    intensities = [point[2] for point in points]
    ridge = max(roofs.values()) / peaks.copy_bytes_per_second
    low, high = min([*intensities, ridge]) / 3, max([*intensities, ridge]) * 4
    figure = new_figure(7.2, 4.4)
    axis = figure.subplots()
    labels = []
    for dtype, peak in roofs.items():
        knee = peak / peaks.copy_bytes_per_second
        axis.plot(
            [low, knee, high],
            [low * peaks.copy_bytes_per_second / 1e12, peak / 1e12, peak / 1e12],
            color=INK,
            lw=1.4,
        )
        axis.annotate(
            f"{dtype}: {text.significant(peak / 1e12)} TFLOP/s measured",
            (high, peak / 1e12),
            xytext=(-2, 4),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    for profile in profiles:
        ends = [(_intensity(m), _achieved(m) / 1e12) for m in (profile.baseline, profile.candidate)]
        axis.plot(*zip(*ends, strict=True), color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
    for profile, model, intensity, achieved in points:
        own = look(0 if model is profile.baseline else 1)
        axis.plot(intensity, achieved / 1e12, color=own.color, marker=own.marker, linestyle="none")
        words = (
            f"{text.shortened(text.printable(model.label))} {profile.cell.pass_} b{profile.cell.batch_size}"
        )
        labels.append(Label(intensity, achieved / 1e12, words, own.color))
    axis.set_xscale("log")
    axis.set_yscale("log")
    floor = min(achieved for *_, achieved in points) / 1e12 / 2
    axis.set_xlim(low, high)
    axis.set_ylim(floor, max(roofs.values()) / 1e12 * 2)
    log_axis(axis.xaxis, low, high)
    log_axis(axis.yaxis, floor, max(roofs.values()) / 1e12)
    axis.set_xlabel("arithmetic intensity (FLOP a byte moved)")
    axis.set_ylabel("achieved TFLOP/s")
    place_labels(axis, labels)
    return Drawing(
        f"roofline{suffix}",
        f"Roofline, {text.printable(device_name)}",
        f"Roofs are measured peaks; the slope is the measured copy rate, "
        f"{text.significant(peaks.copy_bytes_per_second / 1e9)} GB/s. "
        "A dotted line joins baseline (circle) and candidate (square).",
        "Achieved TFLOP/s of each model against its arithmetic intensity, below the device's measured roofs. "
        + told(
            f"{model.label}, {profile.cell.pass_}, batch {profile.cell.batch_size}: "
            f"{text.significant(achieved / 1e12)} TFLOP/s at {text.significant(intensity)} FLOP per byte"
            for profile, model, intensity, achieved in points
        ),
        figure,
    )


def _intensity(model: ModelProfile) -> float:
    return (model.flops or 0) / (model.bytes_moved or 1)


def _achieved(model: ModelProfile) -> float:
    return (model.flops or 0) / model.seconds


def where_time_goes(profiles: Sequence[ProfileRecord], device_name: str, suffix: str = "") -> Drawing | None:
    """Time of one call by kind of operator, baseline above candidate."""
    if not profiles:
        return None
    figure = new_figure(7.2, 1.3 + 0.85 * len(profiles))
    axes = figure.subplots(len(profiles), 1, squeeze=False)[:, 0]
    for axis, profile in zip(axes, profiles, strict=True):
        _draw_time(axis, profile)
    axes[-1].set_xlabel("time of one call (ms)")
    models = [model for profile in profiles for model in (profile.baseline, profile.candidate)]
    from matplotlib.patches import Patch

    handles = [
        Patch(**own.bar, label=group)
        for group, own in _GROUP_LOOKS.items()
        if any(model.groups.get(group) for model in models)
    ]
    if any(_remainder(model) > 0 for model in models):
        idle = all(model.busy_seconds is not None for model in models)
        rest = "idle" if idle else "unexplained"
        handles.append(Patch(facecolor="white", edgecolor=MUTED, label=rest))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns(4))
    return Drawing(
        f"time-by-operator{suffix}",
        f"Where the time goes, {text.printable(device_name)}",
        "One call of each model, by kind of operator; the share of the call is written where there is room.",
        "Time of one call of baseline and candidate, split by kind of operator. "
        + told(
            f"{model.label}: {text.seconds(model.seconds)}, of which "
            + ", ".join(
                f"{group} {text.percent(took / model.seconds)}" for group, took in model.groups.items()
            )
            for model in models
        ),
        figure,
    )


def _draw_time(axis: "Axes", profile: ProfileRecord) -> None:
    whole = max(profile.baseline.seconds, profile.candidate.seconds) * 1e3
    for row, model in enumerate((profile.baseline, profile.candidate)):
        left = 0.0
        for group, own in _GROUP_LOOKS.items():
            width = model.groups.get(group, 0.0) * 1e3
            axis.barh(row, width, left=left, height=0.78, **own.bar)
            if width > 0.07 * whole:
                axis.text(
                    left + width / 2,
                    row,
                    text.percent(width / 1e3 / model.seconds),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    bbox={"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.2"},
                )
            left += width
        rest = _remainder(model) * 1e3
        if rest > 0:
            axis.barh(row, rest, left=left, height=0.78, facecolor="white", edgecolor=MUTED, linewidth=0.8)
    named_rows(axis, [profile.baseline.label, profile.candidate.label])
    axis.set_title(wrapped(", ".join(profile.cell.words)))


def _remainder(model: ModelProfile) -> float:
    """Seconds that no group explains; under half a per cent is nothing."""
    rest = model.seconds - sum(model.groups.values())
    return rest if rest > 0.005 * model.seconds else 0.0
