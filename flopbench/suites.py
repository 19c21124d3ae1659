"""Suite files: what to compare, declared in TOML, turned into pairs and then into cells.

A suite names its pairs and has one profile a device kind. A profile is the product of batch sizes,
passes, dtypes and modes; each element of that product, for one pair, is a cell, the unit that is
measured, stored and resumed.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from flopbench.errors import FlopbenchError, unknown
from flopbench.kernels import Impl
from flopbench.models.catalog import label_of, parse_name

Pass = Literal["forward", "backward", "train"]
DType = Literal["fp32", "tf32", "bf16", "fp16", "autocast-bf16", "autocast-fp16"]
Mode = Literal["eager", "compile", "compile-blocks", "max-autotune", "cuda-graph"]
"""`compile-blocks` compiles the repeated block once instead of the whole network: far shorter to compile."""
DeviceKind = Literal["cpu", "cuda"]
Attention = Literal["fused", "unfused"]
MemoryFormat = Literal["contiguous", "channels_last"]

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Frozen(BaseModel):
    """A record that cannot change once made, and that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Pair(Frozen):
    """A baseline X and a candidate, matched in depth, width, heads, tokens, activation and input."""

    baseline: str
    candidate: str

    @classmethod
    def of(cls, candidate: str, baseline: str | None = None) -> Self:
        """The pair of a candidate such as `vit_b16.flop` and its plain twin, or a stated baseline.

        Raises:
            FlopbenchError: a name is unknown, or the candidate is plain and no baseline is stated.
        """
        name = parse_name(candidate)
        if baseline is None:
            if name.symmetry in (None, "plain"):
                raise FlopbenchError(
                    f"pair {candidate!r} has no baseline: name a symmetry ({candidate}.flop) "
                    "or write {baseline = ..., candidate = ...}"
                )
            baseline = name.base
        parse_name(baseline)
        return cls(baseline=baseline, candidate=candidate)

    @property
    def id(self) -> str:
        """`candidate`, or `candidate@baseline` where the baseline is not the plain twin."""
        implied = parse_name(self.candidate).base
        return self.candidate if self.baseline == implied else f"{self.candidate}@{self.baseline}"

    @property
    def labels(self) -> tuple[str, str]:
        """What people read: the baseline's and the candidate's label, e.g. `ViT-B/16`, `E(ViT-B/16)`."""
        return label_of(self.baseline), label_of(self.candidate)


def _pair(value: object) -> object:
    if isinstance(value, str):
        return Pair.of(*value.split("@", 1))
    if isinstance(value, dict) and "candidate" in value:
        return Pair.of(value["candidate"], value.get("baseline"))
    return value


def _size(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


class Cell(Frozen):
    """One pair × batch size × pass × dtype × mode on one kind of device."""

    pair: Pair
    device: DeviceKind
    batch_size: Positive
    pass_: Pass = Field(alias="pass")
    dtype: DType
    mode: Mode
    image_size: tuple[Positive, Positive] = (224, 224)
    num_classes: Positive = 1000
    attention: Attention = "fused"
    memory_format: MemoryFormat = "contiguous"
    impl: Impl = "auto"

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @property
    def id(self) -> str:
        """A readable key, unique within a run; what is as usual is left out."""
        parts = [self.pair.id, self.device, f"b{self.batch_size}", self.pass_, self.dtype, self.mode]
        if self.image_size != (224, 224):
            parts.append("x".join(map(str, self.image_size)))
        if self.num_classes != 1000:
            parts.append(f"{self.num_classes}-classes")
        parts += [
            part for part in (self.attention, self.memory_format) if part not in ("fused", "contiguous")
        ]
        if self.impl != "auto":
            parts.append(f"{self.impl}-kernels")
        return "/".join(parts)


class Profile(Frozen):
    """What of a suite is measured on one kind of device, and how long it may take.

    `cell_seconds` bounds the sampling of one cell, `budget_seconds` the whole run. Sampling ends
    earlier once the 95 % interval of the speed-up lies within ±`precision` (relative).
    """

    pairs: tuple[Annotated[Pair, BeforeValidator(_pair)], ...] = ()
    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)]
    passes: Annotated[tuple[Pass, ...], Field(min_length=1)] = ("forward", "backward")
    dtypes: Annotated[tuple[DType, ...], Field(min_length=1)] = ("fp32",)
    modes: Annotated[tuple[Mode, ...], Field(min_length=1)] = ("eager", "compile")
    image_sizes: Annotated[
        tuple[Annotated[tuple[Positive, Positive], BeforeValidator(_size)], ...], Field(min_length=1)
    ] = ((224, 224),)
    attention: Annotated[tuple[Attention, ...], Field(min_length=1)] = ("fused",)
    memory_formats: Annotated[tuple[MemoryFormat, ...], Field(min_length=1)] = ("contiguous",)
    impls: Annotated[tuple[Impl, ...], Field(min_length=1)] = ("auto",)
    num_classes: Positive = 1000
    replicates: Positive = 1
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.01
    cell_seconds: Seconds = 20.0
    cell_timeout: Seconds = 1800.0
    budget_seconds: Seconds | None = None
    memory_frontier: bool = False

    def cells(self, device: DeviceKind) -> Iterator[Cell]:
        """The cells in the order in which they are measured: small before large, eager before compiled.

        Networks without attention are measured with the first kind of attention only, pairs without
        networks of our own with the first kind of kernels.

        Raises:
            FlopbenchError: a model cannot take one of the image sizes, or a single layer one of the passes.
        """
        axes = product(
            self.pairs,
            self.modes,
            self.dtypes,
            self.attention,
            self.memory_formats,
            self.impls,
            self.image_sizes,
            self.passes,
            self.batch_sizes,
        )
        for pair, mode, dtype, attention, memory_format, impl, image_size, pass_, batch_size in axes:
            names = [parse_name(name) for name in (pair.baseline, pair.candidate)]
            for name in names:
                name.check_image_size(image_size)
                if name.is_layer and (pass_ == "train" or (pass_ == "backward" and mode != "eager")):
                    raise FlopbenchError(
                        f"{name.raw} is a single layer: it has no {pass_} pass in mode {mode}; "
                        "choose forward, or backward in mode eager"
                    )
            if attention != self.attention[0] and not any(name.has_attention for name in names):
                continue
            if impl != self.impls[0] and all(name.symmetry is None for name in names):
                continue
            yield Cell.model_validate(
                {
                    "pair": pair,
                    "device": device,
                    "batch_size": batch_size,
                    "pass": pass_,
                    "dtype": dtype,
                    "mode": mode,
                    "image_size": image_size,
                    "num_classes": self.num_classes,
                    "attention": attention,
                    "memory_format": memory_format,
                    "impl": impl,
                }
            )


Fraction = Annotated[float, Field(ge=0, lt=1)]
Metric = Literal["speedup", "throughput", "peak_memory", "macs", "operators", "bytes_written"]


class MinimumEffect(Frozen):
    """The smallest worsening of each figure that matters, as a fraction: `[minimum_effect]` of a suite file.

    Less is never called a regression. The last pattern of `cells` that matches the id of a cell or of
    a model (`vit_s16.flop/*/b1/*`; `*`, `?` and `[]` as in file names) has the word there.
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
            if fnmatchcase(subject, pattern):
                effect = own.get(metric, effect)
        return effect


class Suite(Frozen):
    """A suite file: a title, the pairs, and a profile a device, each with a `quick` variant if it likes."""

    name: str
    title: str
    description: str = ""
    profiles: dict[DeviceKind, Profile]
    quick: dict[DeviceKind, Profile] = {}
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
        content = self.model_dump_json(exclude={"title", "description", "minimum_effect"})
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def profile(self, device: DeviceKind, *, quick: bool = False) -> Profile:
        """The profile for a device.

        Raises:
            FlopbenchError: the suite has none for it.
        """
        profiles = self.quick if quick else self.profiles
        if device not in profiles:
            flag = "quick profile" if quick else "profile"
            raise FlopbenchError(
                f"suite {self.name!r} has no {flag} for {device}; it has {', '.join(profiles) or 'none'}"
            )
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
        raise FlopbenchError(_first_mistake(error)) from None


def suite_folders() -> list[Path]:
    """Where suites are looked for by name: the checkout's `suites/`, else the copy inside the wheel."""
    package = Path(__file__).parent
    return [folder for folder in (package.parent / "suites", package / "data" / "suites") if folder.is_dir()]


def available_suites() -> dict[str, Path]:
    """Name → file of every suite that ships with flopbench."""
    return {path.stem: path for folder in suite_folders()[:1] for path in sorted(folder.glob("*.toml"))}


def load_suite(name_or_path: str | Path) -> Suite:
    """A suite by its name (`vit`) or by the path of a TOML file (`my/suite.toml`).

    Raises:
        FlopbenchError: no such suite, not TOML, or a mistake in it, with the place and the remedy.
    """
    known = available_suites()
    path = known.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        if path.suffix == ".toml" or len(path.parts) > 1:
            raise FlopbenchError(f"no suite file at {path}")
        raise unknown("suite", str(name_or_path), known)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FlopbenchError(f"{path.name} is not valid TOML: {error}") from None
    return parse_suite(raw, name=path.stem, where=path.name)


def parse_suite(raw: dict[str, Any], *, name: str, where: str) -> Suite:
    """A suite from the contents of its file: suite-wide `pairs` and `[defaults]` flow into every profile.

    Raises:
        FlopbenchError: a mistake, with the place and the remedy.
    """
    raw = dict(raw)
    shared = {**_table(raw.pop("defaults", {}), f"{where}: defaults")}
    if "pairs" in raw:
        shared["pairs"] = raw.pop("pairs")
    profiles: dict[str, Any] = {}
    quick: dict[str, Any] = {}
    for device, table in _table(raw.pop("profiles", {}), f"{where}: profiles").items():
        own = {**_table(table, f"{where}: profiles.{device}")}
        small = own.pop("quick", None)
        profiles[device] = {**shared, **own}
        if small is not None:
            quick[device] = {**profiles[device], **_table(small, f"{where}: profiles.{device}.quick")}
    if not profiles:
        raise FlopbenchError(f"{where}: has no [profiles.cpu] or [profiles.cuda] table")
    try:
        return Suite.model_validate({**raw, "name": name, "profiles": profiles, "quick": quick})
    except ValidationError as error:
        raise FlopbenchError(f"{where}: {_first_mistake(error)}") from None
    except FlopbenchError as error:
        raise FlopbenchError(f"{where}: {error}") from None


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FlopbenchError(f"{where} must be a table, got {value!r}")
    return value


def _first_mistake(error: ValidationError) -> str:
    """One line for the first of pydantic's complaints: where, what, and what was given."""
    first = error.errors()[0]
    where = _path(first["loc"])
    # A bad item makes its list bad too: what follows from the first mistake is not another one.
    others = [e for e in error.errors()[1:] if e["loc"] != first["loc"][: len(e["loc"])]]
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        inner = MinimumEffect if first["loc"][0] == "minimum_effect" else Profile
        known = sorted((inner if len(first["loc"]) > 1 else Suite).model_fields)
        return f"{where} is not a known field; known: {', '.join(known)}{more}"
    if first["type"] == "missing":
        return f"{where} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = "" if isinstance(first["input"], dict) else f", got {first['input']!r}"
    return f"{where + ': ' if where else ''}{message}{given}{more}"


def _path(location: Iterable[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
