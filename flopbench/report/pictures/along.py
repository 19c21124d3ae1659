"""What the width or the resolution does to the speed-up."""

from flopbench.report import text
from flopbench.report.along import Along
from flopbench.report.cells import Rows, headline, label_of, pair_label_of, setting_words
from flopbench.report.phrases import is_rival
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import INK, MUTED, batch_axis, look, panels, told, whiskers, wrapped
from flopbench.results import Run


def speedup_along(along: Along, run: Run, cells: Rows, suffix: str) -> Drawing | None:
    """Speed-up against width or resolution, with the MACs ratio, its ceiling, at each point, and 1.

    There is a line per pair and batch size, and a panel per pass; pairs whose baseline is test-time
    augmentation have panels of their own.
    """
    chosen = headline([row for row in cells if row[along.axis]])
    lines = along.lines(chosen)
    if not lines:
        return None
    grouped: dict[tuple[str, bool], list[Rows]] = {}
    for line in lines:
        grouped.setdefault((line[0]["pass"], is_rival(line[0])), []).append(line)
    rivals = any(rival for _, rival in grouped)
    figure, axes = panels(len(grouped), columns=2, size=(3.8, 3.0), sharey=not rivals)
    several = any(len({along.name(line[0]) for line in own}) > 1 for own in grouped.values())
    ticks = {along.place(row): along.value(row) for line in lines for row in line}
    for axis, ((pass_, rival), own) in zip(axes, grouped.items(), strict=True):
        colors: dict[str, str] = {}
        for number, line in enumerate(own):
            name, places = along.name(line[0]), [along.place(row) for row in line]
            # That the baseline is test-time augmentation is said above the panel.
            said = label_of(line[0], "candidate", but=along.axis) if rival else name
            words = [*([said] if several else []), f"batch {line[0]['batch_size']}"]
            axis.errorbar(
                places,
                [row["speedup"] for row in line],
                yerr=whiskers(line),
                **look(number).line,
                label=wrapped(text.printable(", ".join(words))),
            )
            if name in colors:
                continue
            colors[name] = look(number).color if several else MUTED
            promised = [(place, row["macs_ratio"]) for place, row in zip(places, line, strict=True)]
            axis.plot(
                *zip(*[point for point in promised if point[1]], strict=True),
                color=colors[name],
                linestyle=(0, (2, 2)),
                label=None if several else "MACs ratio",
            )
        axis.axhline(1.0, color=INK, linewidth=0.9)
        batch_axis(axis, sorted(ticks), names=[ticks[place] for place in sorted(ticks)])
        # Four digits each, and neighbours less than half an octave apart.
        axis.tick_params(axis="x", labelrotation=45)
        axis.set_title(pass_ + ", over test-time augmentation" * rival)
        axis.set_xlabel(f"{along.noun} ({along.unit})")
        axis.legend()
    axes[0].set_ylabel("speed-up")
    device = text.printable(run.info.environment.device_name)
    return Drawing(
        f"speedup-against-{along.noun}{suffix}",
        f"Speed-up against {along.noun}, {device}",
        f"{setting_words(chosen)}; bars are 95 % intervals; "
        + "dashed, the MACs ratio of the same colour's pair; " * several
        + "below the line at 1 equivariance costs time.",
        f"Speed-up of the candidate against the {along.noun}, a line per pair and batch size. "
        + told(
            f"{pair_label_of(row)}, {row['pass']}, batch {row['batch_size']}: {text.times(row['speedup'])}"
            for line in lines
            for row in line
        ),
        figure,
    )
