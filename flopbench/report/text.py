"""Figures and names as people read them. A missing figure is an en dash: `Column.show` sees to it."""

import math
import re
import unicodedata
from collections.abc import Callable

MISSING = "–"


def is_missing(value: object) -> bool:
    """Whether a table's value is None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def significant(value: float, digits: int = 3) -> str:
    """A plain decimal with so many significant digits: 0.0123, 1.54, 154, 15 400."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}".replace(",", "\u202f").replace("-", "−")


def _scaled(value: float, steps: tuple[tuple[float, str], ...], digits: int = 3) -> str:
    rounds_up = 1 - 0.5 * 10**-digits
    factor, unit = next((step for step in steps if abs(value) >= step[0] * rounds_up), steps[-1])
    return f"{significant(value / factor, digits)}\u00a0{unit}"


def exact(value: float | None) -> str:
    """A whole number with all its digits: 22 059 496."""
    return MISSING if is_missing(value) else f"{value:,.0f}".replace(",", "\u202f")


def count(value: float, digits: int = 3) -> str:
    """22.1 M parameters, 4.60 G MACs; 864 as it is."""
    if abs(value) < 999.5:
        return exact(value)
    return _scaled(value, ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")), digits)


def counted(number: int, thing: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


_SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}


def seconds(value: float) -> str:
    """A duration in the unit that suits it: 2.41 ms."""
    return _scaled(value, tuple((factor, unit) for unit, factor in _SECONDS.items()))


def seconds_interval(estimate: float, low: float, high: float) -> str:
    """A duration with its 95 % interval in one unit: 2.41 [2.38, 2.45] ms."""
    shown, unit = seconds(estimate).split("\u00a0")
    factor = _SECONDS[unit]
    return f"{shown}\u00a0[{significant(low / factor)},\u00a0{significant(high / factor)}]\u00a0{unit}"


def duration(value: float) -> str:
    """A time that may be long: 114 s, 31.0 min, 26.4 h."""
    return seconds(value) if value < 600 else _scaled(value, ((3600.0, "h"), (60.0, "min")))


def clock(seconds: float) -> str:
    """A duration as a clock has it: 1:05 or 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(value: float) -> str:
    """Bytes in binary units: 1.25 GiB."""
    return _scaled(value, ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")))


def percent(value: float, decimals: int = 0) -> str:
    """A share, by default in whole per cent: 46 %, −8 %."""
    # Adding zero makes −0.0 a zero without a sign.
    return f"{round(value * 100, decimals) + 0.0:.{decimals}f}\u00a0%".replace("-", "−")


def between(estimate: float, low: float | None, high: float | None, *, write: Callable[[float], str]) -> str:
    """A figure with its 95 % interval, if it has one, each as `write` has it: 60.1 [58.8, 61.2]."""
    if low is None or high is None:
        return write(estimate)
    return f"{write(estimate)}\u00a0[{write(low)},\u00a0{write(high)}]"


def percent_interval(estimate: float, low: float | None, high: float | None) -> str:
    """A share with its 95 % interval, if it has one: 78.3 % [77.9, 78.6]."""
    if low is None or high is None:
        return percent(estimate, 1)
    ends = [percent(end, 1).removesuffix("\u00a0%") for end in (low, high)]
    return f"{percent(estimate, 1)}\u00a0[{ends[0]},\u00a0{ends[1]}]"


def points(value: float) -> str:
    """A difference of shares in percentage points with its sign: +0.4, −1.2."""
    return change(value).removesuffix("\u00a0%")


def coverage(value: float) -> str:
    """`100 %`, `99.87 %`: never rounded up to all of it."""
    return percent(value) if value == 1 else percent(min(value, 0.9999), 2)


def change(value: float, decimals: int = 1) -> str:
    """A relative change with its sign: +7.1 %, −0.3 %; 0 % where there is none."""
    sign = "+" if value > 0 else ""
    return sign + percent(value, decimals if value else 0)


def factor(value: float) -> str:
    """A ratio with two decimals: 1.44; with two digits where these would hide it: 0.0034."""
    return significant(value, 2) if 0 < value < 0.095 else f"{value:.2f}"


def times(value: float, decimals: int = 2) -> str:
    """A ratio as people say it: 1.44×."""
    return f"{factor(value) if decimals == 2 else format(value, f'.{decimals}f')}×"


def interval(estimate: float, low: float | None, high: float | None) -> str:
    """A ratio with its 95 % interval, if it has one: 1.44 [1.43, 1.46].

    A third decimal where two would hide the interval's width, or on which side of 1 an end lies.
    """
    if low is None or high is None:
        return factor(estimate)
    digits = 3 if high - low < 0.01 or "1.00" in (f"{low:.2f}", f"{high:.2f}") else 2
    return f"{estimate:.{digits}f}\u00a0[{low:.{digits}f},\u00a0{high:.{digits}f}]"


def signed(value: float, decimals: int = 1) -> str:
    """A difference with its sign: +3.2, −0.4, 0.0."""
    rounded = round(value, decimals) + 0.0
    return f"{rounded:{'+' * bool(rounded)}.{decimals}f}".replace("-", "−")


def difference(estimate: float, low: float | None, high: float | None) -> str:
    """A difference with its 95 % interval, if it has one: +3.2 [+1.6, +4.7].

    A second decimal where one would hide the interval's width, or on which side of 0 an end lies.
    """
    if low is None or high is None:
        return signed(estimate)
    decimals = 2 if high - low < 0.1 or 0.0 in (round(low, 1), round(high, 1)) else 1
    shown, left, right = (signed(value, decimals) for value in (estimate, low, high))
    return f"{shown}\u00a0[{left},\u00a0{right}]"


def with_spread(mean: float, deviation: float | None) -> str:
    """A share in per cent with its standard deviation, if it has one: 90.1 ± 0.4 %."""
    return percent(mean, 1) if deviation is None else f"{100 * mean:.1f} ± {percent(deviation, 1)}"


def error(value: float) -> str:
    """A relative error in powers of ten: 3.1e-06."""
    return "0" if value == 0 else f"{value:.1e}"


_METRICS = {
    "speedup": lambda value: times(value, 3),
    "throughput": lambda value: f"{significant(value, 4)}/s",
    "seconds": seconds,
    "peak_memory": size,
    "bytes_written": size,
    "invariance_error": error,
    "outputs": error,
}


def metric(name: str, value: float | None) -> str:
    """A figure of a comparison in its unit: 1.532×, 812.0/s, 1.25 GiB; else a number of something."""
    if value is None or is_missing(value):
        return MISSING
    return _METRICS.get(name, exact if value < 100_000 else count)(value)


def printable(text: object) -> str:
    """Text from outside without control characters or line breaks, so that it stays on its line."""
    return visible(re.sub(r"\s+", " ", str(text)).strip())


def shortened(text: str, most: int = 32) -> str:
    """A name that is no longer than `most` letters, cut in the middle: both of its ends tell it apart."""
    kept = most // 2
    return text if len(text) <= most else f"{text[: most - kept]}…{text[1 - kept :]}"


def visible(text: str) -> str:
    """Text of several lines without what would steer a terminal."""
    return "".join("\ufffd" if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    return char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Cs")


def markdown_escape(text: object) -> str:
    """Text that Markdown shows as it is, in tables too."""
    # The colon and "www." the @ keep addresses and names from becoming links.
    escaped = re.sub(r"([\\`*_\[\]<>|~$&#!{}])", r"\\\1", printable(text))
    return re.sub(
        r"(?<=[a-z]):(?=//)|(?<=www)\.|@(?=\w)", lambda match: f"\\{match[0]}", escaped, flags=re.IGNORECASE
    )


def defused(value: object) -> object:
    """A value for a cell of CSV that a spreadsheet does not take for a formula; only text is changed."""
    return f"'{value}" if isinstance(value, str) and value.startswith(tuple("=+-@\t\r")) else value


def fenced(text: str, language: str = "") -> str:
    """A fenced code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def with_article(name: str) -> str:
    """`an NVIDIA H200`, `a CPU`."""
    return f"{'an' if name.startswith(('NVIDIA', *'AEIOaeio')) else 'a'} {name}"


def joined(words: list[str], last: str = "and") -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


def code(text: object) -> str:
    """An inline code span (not for tables); its fence is longer than any run of backticks inside."""
    inner = printable(text)
    longest = max((len(run) for run in re.findall(r"`+", inner)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{inner}{pad}{fence}"
