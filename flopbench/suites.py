"""Suite files: what to compare, declared in TOML, turned into pairs and then into cells.

A suite names its pairs and has one profile per device kind, with variants of it: `quick`, a first look, and
`full`, the long sweep. A profile is the product of the values of its axes (`flopbench.cells`); each element
of that product, for one pair, is a cell.
"""

import hashlib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, create_model, model_validator

from flopbench.cells import AXES, Axis, Cell, Few
from flopbench.errors import FlopbenchError, brief, unknown
from flopbench.frozen import Frozen, complaint, place
from flopbench.modes import DeviceKind
from flopbench.pairs import Pair
from flopbench.toml import read_toml

# Of a year at most: what waits counts in floats, and overflows far beyond.
Seconds = Annotated[float, Field(gt=0, le=366 * 24 * 3600)]


def _pair(value: object) -> object:
    """A string, or a table without a baseline, as the pair that it stands for."""
    try:
        if isinstance(value, str):
            return Pair.of(*value.split("@", 1))
        if isinstance(value, dict):
            candidate, baseline = value.get("candidate"), value.get("baseline")
            if isinstance(candidate, str) and isinstance(baseline, str | None):
                baseline = Pair.of(candidate, baseline).baseline
            # Of names that are no strings the model says what is wrong.
            return {**value, "baseline": "" if baseline is None else baseline}
    except FlopbenchError as error:
        raise ValueError(str(error)) from None
    return value


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values themselves, each of which may be named only once."""
    known = [value.id if isinstance(value, Pair) else value for value in values]
    for index, value in enumerate(known):
        if value in known[:index]:
            raise ValueError(f"{brief(value)} is named twice")
    return values


def _listed(value: object) -> object:
    """A single value stands for a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _values(axis: Axis) -> tuple[Any, Any]:
    """The type and the default of a profile's values of an axis."""
    kind = Annotated[
        tuple[axis.type, ...], Field(min_length=1), BeforeValidator(_listed), AfterValidator(_once)
    ]
    return kind, axis.suite or (... if axis.usual is ... else (axis.usual,))


_fields: dict[str, Any] = {axis.plural: _values(axis) for axis in AXES.values()}


class Profile(create_model("_Values", __base__=Frozen, **_fields), allow_inf_nan=False):
    """What of a suite is measured on one kind of device, and how long it may take.

    Beside the fields below it has one per axis, e.g. `batch_sizes`: the values to measure. `cell_seconds`
    bounds the sampling of one cell, `budget_seconds` the whole run. Sampling ends earlier once the 95 %
    interval of the speed-up lies within ±`precision` (relative). With `serving`, forward cells have latencies
    of single calls, load time and size on disk, too (`flopbench.timing.serving`).
    """

    pairs: Annotated[tuple[Annotated[Pair, BeforeValidator(_pair)], ...], AfterValidator(_once)] = ()
    replicates: Few = 1
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.01
    cell_seconds: Seconds = 20.0
    cell_timeout: Seconds = 1800.0
    budget_seconds: Seconds | None = None
    memory_frontier: bool = False
    serving: bool = False

    def values(self, axis: Axis) -> tuple[Any, ...]:
        """The values of an axis that are measured."""
        return getattr(self, axis.plural)

    def cells(self, device: DeviceKind) -> Iterator[Cell]:
        """The cells in the order in which they are measured: breadth first, as the values are listed.

        What a network does at once (batch size, then pass) is outermost, then its resolution, then comes the
        pair, then what is left of the axes, the last innermost. So a budget that runs out has measured every
        pair at the batch size, in the pass and at the resolution that are listed first, and cells that
        differ in their kernels alone are neighbours. What is averaged over a group is so in inference alone.
        Of cells that would measure the same, such as both kinds of attention in a network without any, the
        first is measured. What a mode lacks on the device, an engine a dtype or a pass, is left out where
        mode, dtype and pass are each measured with others.

        Raises:
            FlopbenchError: a model cannot take one of the image sizes or tasks, a single layer one of the
                passes, or a mode any of the dtypes or passes; or nothing is left to measure.
        """
        known: set[Cell] = set()
        cells = [*self._product(device)]
        had = {value for cell in cells if not cell.refusal(device) for value in _run_as(cell)}
        for cell in cells:
            if cell.pass_ != "forward" and any(name.version.averaged for name in cell.pair.names):
                continue
            if refusal := cell.refusal(device):
                if had.issuperset(_run_as(cell)):
                    continue
                raise FlopbenchError(refusal)
            if cell.comes_to not in known:
                known.add(cell.comes_to)
                yield cell.check()
        if self.pairs and not known:
            names = ", ".join(pair.id for pair in self.pairs)
            raise FlopbenchError(
                f"{names}: outputs are averaged over a group in inference alone: choose pass forward"
            )

    def _product(self, device: DeviceKind) -> Iterator[Cell]:
        """Every combination of the values, in the order of measuring."""
        axes = {name: self.values(axis) for name, axis in AXES.items()}
        outer = {name: axes.pop(name) for name, axis in AXES.items() if axis.about == "work" or axis.outer}
        nested = {**outer, "pair": self.pairs, **axes}
        for values in product(*nested.values()):
            yield Cell.model_validate({"device": device, **dict(zip(nested, values, strict=True))})


def _run_as(cell: Cell) -> set[str]:
    """A cell's mode, dtype and pass."""
    return {cell.mode, cell.dtype, cell.pass_}


Variant = Literal["quick", "full"]
"""Of a profile: what a first look takes, and the long sweep, which takes what it takes."""

VARIANTS: tuple[Variant, ...] = get_args(Variant)

Fraction = Annotated[float, Field(ge=0, lt=1)]
Metric = Literal["speedup", "throughput", "peak_memory", "macs", "operators", "bytes_written"]


def fits(name: str, pattern: str) -> bool:
    """Whether a name is the pattern itself, brackets and all, or matches it as file names do."""
    return name == pattern or fnmatchcase(name, pattern)


class MinimumEffect(Frozen):
    """The smallest worsening of each figure that matters, as a fraction: `[minimum_effect]` of a suite file.

    Less is never called a regression. The last key of `cells` that is the id of a cell, of a model or of a
    benchmark, or a pattern of it (`vit_s16.flop/*/b1/*`; `*`, `?` and `[]` as in file names), has the word.
    """

    speedup: Fraction = 0.03
    throughput: Fraction = 0.05
    peak_memory: Fraction = 0.02
    macs: Fraction = 0.0
    operators: Fraction = 0.0
    bytes_written: Fraction = 0.0
    cells: dict[str, dict[Metric, Fraction]] = {}

    def of(self, metric: Metric, subject: str) -> float:
        """The minimum effect of `metric` for the cell or model whose id is `subject`."""
        effect: float = getattr(self, metric)
        for pattern, own in self.cells.items():
            if fits(subject, pattern):
                effect = own.get(metric, effect)
        return effect


class Suite(Frozen):
    """A suite file: a title, the pairs, and a profile per device, each with the variants that it likes."""

    name: str
    title: str
    description: str = ""
    profiles: dict[DeviceKind, Profile]
    quick: dict[DeviceKind, Profile] = {}
    full: dict[DeviceKind, Profile] = {}
    minimum_effect: MinimumEffect = MinimumEffect()

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        for device, profile in self.profiles.items():
            if not profile.pairs:
                raise ValueError(f"profiles.{device} has no pairs: give `pairs` for the suite or the profile")
        return self

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change when anything that is measured changes."""
        # A further axis, as usual in every cell, changes nothing that is measured.
        content = self.model_dump_json(
            exclude={"title", "description", "minimum_effect"}, exclude_defaults=True
        )
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def variant(self, variant: Variant | None = None) -> dict[DeviceKind, Profile]:
        """The profiles by device: the usual ones, or those of a variant."""
        return self.profiles if variant is None else getattr(self, variant)

    def profile(self, device: DeviceKind, variant: Variant | None = None) -> Profile:
        """The profile for a device, or a variant of it.

        Raises:
            FlopbenchError: the suite has none for it.
        """
        profiles = self.variant(variant)
        if device not in profiles:
            what, remedy = (f"{variant} profile", f": leave out --{variant}") if variant else ("profile", "")
            others = ", ".join(profiles) or "none"
            raise FlopbenchError(f"suite {self.name!r} has no {what} for {device}; it has {others}{remedy}")
        return profiles[device]


def override(profile: Profile, **changes: Any) -> Profile:
    """A profile with the given fields replaced and checked; `None` leaves a field as it is.

    Raises:
        FlopbenchError: a value is not allowed, with the option's name and what would be.
    """
    given = {key: value for key, value in changes.items() if value not in (None, (), [])}
    try:
        return Profile.model_validate({**profile.model_dump(), **given})
    except ValidationError as error:
        raise FlopbenchError(first_mistake(error)) from None


def suite_folders() -> list[Path]:
    """Where suites are looked for by name: the checkout's `suites/`, else the copy inside the wheel."""
    package = Path(__file__).parent
    return [folder for folder in (package.parent / "suites", package / "data" / "suites") if folder.is_dir()]


def available_suites() -> dict[str, Path]:
    """Name → file of every suite of cells that ships with flopbench."""
    return {name: path for name, path in _shipped().items() if not is_race_suite(read_toml(path))}


def available_race_suites() -> dict[str, Path]:
    """Name → file of every suite of races that ships with flopbench."""
    return {name: path for name, path in _shipped().items() if is_race_suite(read_toml(path))}


def is_race_suite(raw: dict[str, Any]) -> bool:
    """Whether the contents of a suite file say what is raced, not what is measured."""
    return "races" in raw


def suite_file(name_or_path: str | Path, known: Mapping[str, Path]) -> Path:
    """The file of a suite that is named, or is a file.

    Raises:
        FlopbenchError: there is none.
    """
    path = _shipped().get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        if path.suffix == ".toml" or len(path.parts) > 1:
            raise FlopbenchError(f"no suite file at {path}")
        raise unknown("suite", str(name_or_path), known)
    return path


def load_suite(name_or_path: str | Path) -> Suite:
    """A suite by its name (`vit`) or by the path of a TOML file (`my/suite.toml`).

    Raises:
        FlopbenchError: no such suite, one of races, not TOML, or a mistake in it, with the place and the
            remedy.
    """
    path = suite_file(name_or_path, available_suites())
    raw = read_toml(path)
    if is_race_suite(raw):
        raise FlopbenchError(
            f"{path.name} is a suite of races: flopbench race --suite {name_or_path} runs it"
        )
    return parse_suite(raw, name=path.stem, where=path.name)


def _shipped() -> dict[str, Path]:
    return {path.stem: path for folder in suite_folders()[:1] for path in sorted(folder.glob("*.toml"))}


_TOP = {"title", "description", "pairs", "defaults", "profiles", "minimum_effect"}


def parse_suite(raw: dict[str, Any], *, name: str, where: str) -> Suite:
    """A suite from the contents of its file: suite-wide `pairs` and `[defaults]` flow into every profile.

    A variant has what its profile has, but for what it says itself; a `full` one has no budget of another.

    Raises:
        FlopbenchError: a mistake, with the place and the remedy.
    """
    raw = dict(raw)
    for key in raw.keys() - _TOP:
        raise FlopbenchError(f"{where}: {unknown('key', key, _TOP)}")
    shared = {**_table(raw.pop("defaults", {}), f"{where}: defaults")}
    if "pairs" in raw:
        shared["pairs"] = raw.pop("pairs")
    profiles: dict[str, dict[str, Any]] = {name: {} for name in ("profiles", *VARIANTS)}
    for device, table in _table(raw.pop("profiles", {}), f"{where}: profiles").items():
        own = {**shared, **_table(table, f"{where}: profiles.{device}")}
        variants = {variant: own.pop(variant) for variant in VARIANTS if variant in own}
        profiles["profiles"][device] = own
        for variant, changes in variants.items():
            # The long sweep takes what it takes, unless it says so itself.
            base = {key: value for key, value in own.items() if (variant, key) != ("full", "budget_seconds")}
            profiles[variant][device] = {**base, **_table(changes, f"{where}: profiles.{device}.{variant}")}
    if not profiles["profiles"]:
        raise FlopbenchError(f"{where}: has no [profiles.cpu] or [profiles.cuda] table")
    try:
        return Suite.model_validate({**raw, "name": name, **profiles})
    except ValidationError as error:
        raise FlopbenchError(f"{where}: {first_mistake(error)}") from None


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FlopbenchError(f"{where} must be a table, got {brief(value)}")
    return value


def _in_file(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Of a mistake: a suite has its variants beside the profiles, its file within them."""
    if len(location) > 1 and location[0] in VARIANTS:
        return "profiles", location[1], location[0], *location[2:]
    return location


def first_mistake(error: ValidationError) -> str:
    """One line for the first of pydantic's complaints: where, what, and what was given."""
    errors = error.errors()
    # A key that is missing may be the one that was misspelt.
    first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    *outer, last = _in_file(first["loc"]) or ("",)
    where = "" if last == "" else place((*outer, last))
    # A bad item makes its list bad too: what follows from the first mistake is not another one.
    others = [e for e in errors if e is not first and e["loc"] != first["loc"][: len(e["loc"])]]
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        if "minimum_effect" in outer:
            known = MinimumEffect.model_fields.keys()
        elif "pairs" in outer:
            known = Pair.model_fields.keys()
        else:
            known = Profile.model_fields.keys() | set(VARIANTS)
        where = place(outer)
        return f"{where + ': ' if where else ''}{unknown('key', str(last), known)}{more}"
    if first["type"] == "missing":
        return f"{where} is missing{more}"
    return f"{where + ': ' if where else ''}{complaint(error)}{more}"
