"""What the width does to the speed-up."""

from flopbench.report import text
from flopbench.report.cells import Rows, by, headline, setting_words
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import INK, MUTED, batch_axis, look, panels, told, whiskers, wrapped
from flopbench.results import Run


def speedup_against_width(run: Run, cells: Rows, suffix: str) -> Drawing | None:
    """Speed-up against width, a panel per pass, with the MACs ratio and 1; a line per pair, depth, batch."""
    chosen = headline([row for row in cells if row["width"]])
    widths = sorted({row["width"] for row in chosen})
    if len(widths) < 2:
        return None
    passes = by(chosen, "pass")
    figure, axes = panels(len(passes), columns=2, size=(3.8, 3.0), sharey=True)
    several = len(by(chosen, "pair", "depth")) > 1
    for axis, (pass_, own) in zip(axes, passes.items(), strict=True):
        number = 0
        for (pair, depth), of_pair in by(own, "pair", "depth").items():
            named = [pair, f"depth {depth}"] if depth else [pair]
            color = look(number).color if several else MUTED
            for batch, group in by(of_pair, "batch_size").items():
                line = sorted(group, key=lambda row: row["width"])
                words = [*(named if several else []), f"batch {batch}"]
                axis.errorbar(
                    [row["width"] for row in line],
                    [row["speedup"] for row in line],
                    yerr=whiskers(line),
                    **look(number).line,
                    label=wrapped(text.printable(", ".join(words))),
                )
                number += 1
            promised = sorted({(row["width"], row["macs_ratio"]) for row in of_pair if row["macs_ratio"]})
            axis.plot(
                [width for width, _ in promised],
                [ratio for _, ratio in promised],
                color=color,
                linestyle=(0, (2, 2)),
                label=None if several else "MACs ratio",
            )
        axis.axhline(1.0, color=INK, linewidth=0.9)
        batch_axis(axis, widths)
        # Four digits each, and neighbours less than half an octave apart.
        axis.tick_params(axis="x", labelrotation=45)
        axis.set_title(pass_)
        axis.set_xlabel("width (channels)")
        axis.legend()
    axes[0].set_ylabel("speed-up")
    device = text.printable(run.info.environment.device_name)
    return Drawing(
        f"speedup-against-width{suffix}",
        f"Speed-up against width, {device}",
        f"{setting_words(chosen)}; bars are 95 % intervals; "
        + "dashed, the MACs ratio of the same colour's pair; " * several
        + "below the line at 1 equivariance costs time.",
        "Speed-up of the candidate against the number of channels, a line per batch size. "
        + told(
            f"{row['pair_label']}, {row['pass']}, batch {row['batch_size']}: " + text.times(row["speedup"])
            for row in chosen
        ),
        figure,
    )
