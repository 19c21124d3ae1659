"""How much of the promise is kept: realised shares, and runs side by side."""

from collections.abc import Sequence

from flopbench.report import text
from flopbench.report.cells import Rows, about, by, headline, realised, setting_words, tops
from flopbench.report.pictures.drawing import Drawing
from flopbench.report.pictures.style import (
    INK,
    MUTED,
    PASS_LOOKS,
    caution,
    look,
    name_of,
    named_rows,
    new_figure,
    promise,
    told,
    whiskers,
    wrapped,
)
from flopbench.results import Run


def realised_share(run: Run, cells: Rows, suffix: str) -> Drawing | None:
    """Realised share of each pair and pass as bars, at the largest batch size."""
    chosen = [row for row in headline(cells) if row["realised_share"] is not None]
    if not chosen:
        return None
    bars = {
        key: max(group, key=lambda row: row["batch_size"])
        for key, group in by(chosen, "pair_label", "pass").items()
    }
    pairs = list(dict.fromkeys(pair for pair, _ in bars))
    passes = [pass_ for pass_ in PASS_LOOKS if any(key[1] == pass_ for key in bars)]
    thickness = 0.8 / len(passes)
    figure = new_figure(7.2, 0.9 + max(1.2, 0.27 * len(pairs) * (len(passes) + 0.6)))
    axis = figure.subplots()
    batches = {row["batch_size"] for row in bars.values()}
    mixed = len(batches) > 1
    ends = []
    for number, pass_ in enumerate(passes):
        own = [(pairs.index(pair), row) for (pair, kind), row in bars.items() if kind == pass_]
        heights = [index + (number - (len(passes) - 1) / 2) * thickness for index, _ in own]
        shares = [100 * row["realised_share"] for _, row in own]
        bounds = [
            [100 * (realised(row, row[f"speedup_{end}"]) or 0) for _, row in own] for end in ("low", "high")
        ]
        axis.barh(
            heights,
            shares,
            height=thickness * 0.88,
            label=pass_,
            **PASS_LOOKS[pass_].bar,
        )
        axis.errorbar(
            shares,
            heights,
            xerr=[
                [max(0.0, share - low) for share, low in zip(shares, bounds[0], strict=True)],
                [max(0.0, high - share) for share, high in zip(shares, bounds[1], strict=True)],
            ],
            fmt="none",
            ecolor=INK,
            elinewidth=1.0,
        )
        for (_, row), height, low, high in zip(own, heights, *bounds, strict=True):
            positive = row["realised_share"] >= 0
            axis.annotate(
                about(row, text.percent(row["realised_share"]))
                + (f", b{row['batch_size']}" if mixed else ""),
                (high if positive else low, height),
                xytext=(5 if positive else -5, 0),
                textcoords="offset points",
                va="center",
                ha="left" if positive else "right",
                fontsize=8,
            )
        ends += [*bounds[0], *bounds[1]]
    axis.axvline(0, color=MUTED, linewidth=0.9)
    axis.axvline(100, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    low, high = min(0.0, *ends), max(100.0, *ends)
    room = (0.22 if mixed else 0.14) * (high - low)
    axis.set_xlim(low - (room if low < 0 else 0), high + room)
    named_rows(axis, pairs)
    axis.set_xlabel(wrapped("realised share (%): 100 is all that the MACs promise"))
    figure.legend(loc="outside upper left", ncols=len(passes))
    where = "at the largest batch size (b) measured" if mixed else f"batch {batches.pop()}"
    return Drawing(
        f"realised-share{suffix}",
        f"Realised share, {text.printable(run.info.environment.device_name)}",
        f"(speed-up − 1) / (MACs ratio − 1), {setting_words(chosen)}, {where}; whiskers are 95 % intervals."
        + caution(list(bars.values())),
        "Realised share of each pair as bars, one per pass. "
        + told(
            f"{row['pair_label']}, {row['pass']}: {about(row, text.percent(row['realised_share']))}"
            for row in bars.values()
        ),
        figure,
    )


def runs_side_by_side(runs: Sequence[Run], cells: Rows) -> Drawing | None:
    """The forward speed-up of each pair, a marker a run."""
    shown = []
    for run in runs:
        own = [row for row in cells if row["run"] == run.info.id]
        if points := tops(headline(own)):
            shown.append((run, points))
    if not shown:
        return None
    pairs = list(dict.fromkeys(row["pair_label"] for _, points in shown for row in points))
    figure = new_figure(7.2, 1.1 + 0.24 * len(shown) + max(1.0, 0.17 * len(pairs) * (len(shown) + 1.2)))
    axis = figure.subplots()
    for number, (run, points) in enumerate(shown):
        own = look(number)
        offset = (number - (len(shown) - 1) / 2) * 0.62 / len(shown)
        batches = text.joined([str(batch) for batch in sorted({row["batch_size"] for row in points})])
        axis.errorbar(
            [row["speedup"] for row in points],
            [pairs.index(row["pair_label"]) + offset for row in points],
            xerr=whiskers(points),
            fmt=own.marker,
            color=own.color,
            label=wrapped(
                f"{text.printable(run.info.id)}: {text.printable(run.info.environment.device_name)}, "
                f"{setting_words(points)}, batch {batches}"
            ),
        )
    for index, pair in enumerate(pairs):
        ratio = next(row["macs_ratio"] for _, points in shown for row in points if row["pair_label"] == pair)
        if ratio is not None:
            promise(axis, ratio, index, labelled=not index)
    axis.axvline(1, color=MUTED, linewidth=0.9)
    axis.set_yticks(range(len(pairs)), [name_of(pair, 16) for pair in pairs])
    axis.set_ylim(len(pairs) - 0.4, -0.6)
    axis.set_xlabel("speed-up")
    figure.legend(loc="outside upper left", ncols=1)
    return Drawing(
        "side-by-side",
        "Runs side by side",
        "Forward pass at the largest batch size of each pair; whiskers are 95 % intervals, the dashed "
        "mark is what the MACs promise." + caution([row for _, points in shown for row in points]),
        "Speed-up of each pair, with a marker for each run. "
        + told(
            f"{run.info.id}, {row['pair_label']}: {text.times(row['speedup'])}"
            for run, points in shown
            for row in points
        ),
        figure,
    )
