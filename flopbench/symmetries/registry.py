"""Which symmetries there are, and the versions of networks that they make. Imports no torch.

A version of a network is a symmetry and a schedule, which says in which blocks the network has it:
`vit_b16.flop` in all, `vit_b16.hybrid` in the first half. What is known of a symmetry before torch is
imported is its `About`; its layers belong to a `flopbench.symmetries.Symmetry`, which is loaded on first use.

Somebody's own symmetry is registered by the module that defines it, `register(VERTICAL)`, or named by an
installed package, which has an entry point in the group `flopbench.symmetries`:

    [project.entry-points."flopbench.symmetries"]
    vertical = "package.module:VERTICAL"
"""

import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any, Literal, Protocol, TypeVar, get_args

from flopbench.errors import FlopbenchError, in_one_line

GROUP = "flopbench.symmetries"
"""The group of entry points by which installed packages name their symmetries."""

ScheduleName = Literal["equivariant", "hybrid", "early_invariant", "averaged"]
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)
"""All blocks have the symmetry; or the first half, then a change of basis; or then an invariantisation; or
none has it, and what the network gives is averaged over the group: test-time augmentation.
"""

NO_ROPE = (
    "what has become invariant would turn one way in an image and the other way in its mirror image; "
    "choose learnt positions, or a version that is not early invariant"
)
"""Why a version whose features become invariant before its last blocks has no rotary positions."""

# What the labels of the versions of somebody's own symmetry begin with.
_LETTERS = ("E", "H", "I", "TTA")


@dataclass(frozen=True)
class About:
    """What is known of a symmetry before its layers are loaded.

    Attributes:
        name: in names of networks, `vit_b16.NAME`, and in messages.
        labels: of its versions in the order of `SCHEDULES`, what people read as `LABEL(X)`. The first is
            enough: V, and then H_V, I_V and TTA_V.
        divisor: the order of the group. Channels come in multiples of it.
        names: of its versions in that order, as many as are not NAME, NAME_hybrid, NAME_early_invariant and
            NAME_averaged.
        families: of networks that it has layers for; "layer" for single layers.
        square_even: whether it wants a square grid with an even number of cells each way.
        home: where its layers are, `module:ATTRIBUTE`; none for what `register` was given.

    Raises:
        FlopbenchError: labels or names that are not those of its schedules.
    """

    name: str
    labels: tuple[str, ...]
    divisor: int
    names: tuple[str, ...] = ()
    families: tuple[str, ...] = ("vit", "layer")
    square_even: bool = False
    home: str = ""

    def __post_init__(self) -> None:
        count = len(SCHEDULES)
        if not 1 <= len(self.labels) <= count or len(self.names) > count:
            raise FlopbenchError(
                f"the symmetry {self.name} has {len(self.labels)} labels and {len(self.names)} names: "
                f"give a label or up to {count}, and up to a name for each of {', '.join(SCHEDULES)}"
            )

    @property
    def versions(self) -> tuple["Version", ...]:
        """One per schedule; all schedules of the trivial group are the same."""
        if self.divisor == 1:
            return (Version(self.name, self, "equivariant"),)
        usual = (self.name, *(f"{self.name}_{schedule}" for schedule in SCHEDULES[1:]))
        names = (*self.names, *usual[len(self.names) :])
        return tuple(Version(name, self, schedule) for name, schedule in zip(names, SCHEDULES, strict=True))

    def label(self, schedule: ScheduleName) -> str:
        """Of the version that has this schedule."""
        first = self.labels[0]
        labels = (*self.labels, *(f"{letter}_{first}" for letter in _LETTERS[len(self.labels) :]))
        return labels[SCHEDULES.index(schedule)]


@dataclass(frozen=True)
class Version:
    """A symmetry and a schedule: what a suffix of a network's name stands for."""

    name: str
    about: About
    schedule: ScheduleName

    @property
    def invariant(self) -> bool:
        """Whether a network's logits stay the same when the group acts on the image, by construction."""
        return self.about.divisor > 1 and self.schedule != "hybrid"

    @property
    def averaged(self) -> bool:
        """Whether it is the plain network, whose outputs are averaged over the group."""
        return self.schedule == "averaged"

    def label(self, network: str) -> str:
        """`E(ViT-B/16)` for the network X = `ViT-B/16`."""
        label = self.about.label(self.schedule)
        return f"{label}({network})" if label else network


class Described(Protocol):
    """A `flopbench.symmetries.Symmetry`, as far as can be said without torch."""

    @property
    def about(self) -> About:
        """What is known of it without its layers."""
        ...


Own = TypeVar("Own", bound=Described)

_EVERY_FAMILY = ("vit", "resmlp", "convnext", "layer")

BUILTIN: dict[str, About] = {
    about.name: about
    for about in (
        About("plain", ("",), 1, families=_EVERY_FAMILY, home="flopbench.symmetries.plain:PLAIN"),
        About(
            "flop",
            ("E", "H", "I", "TTA"),
            2,
            names=("flop", "hybrid", "early_invariant", "tta"),
            families=_EVERY_FAMILY,
            home="flopbench.symmetries.flop:FLOP",
        ),
        About(
            "octic",
            ("D8", "H8", "I8", "TTA8"),
            8,
            names=("octic", "octic_hybrid", "octic_early_invariant", "octic_tta"),
            square_even=True,
            home="flopbench.symmetries.octic:OCTIC",
        ),
    )
}

BASELINE = BUILTIN["plain"].versions[0]
"""The version without a symmetry."""

_registered: dict[str, Described] = {}


def versions() -> Iterator[Version]:
    """Those of flopbench's symmetries, then those of the symmetries that were registered so far."""
    for about in (*BUILTIN.values(), *(symmetry.about for symmetry in _registered.values())):
        yield from about.versions


def find(name: str) -> Version | None:
    """The version of this name, from an installed package if need be; None if there is none.

    Raises:
        FlopbenchError: there is none, but a package whose symmetry cannot be loaded.
    """
    found = _known(name)
    if found is None:
        problems = _register_installed()
        found = _known(name)
        if found is None and problems:
            raise problems[0]
    return found


def register(symmetry: Own) -> Own:
    """Make somebody's own symmetry known, so that networks have versions with it: `vit_b16.NAME`.

    To be called where the symmetry is defined. Worker processes get to know it, too.

    Returns:
        The same symmetry. It takes the place of one that was registered by its name before.

    Raises:
        FlopbenchError: its name, or that of one of its versions, is another's already; or a label is one of
            flopbench's, and nobody could tell the networks apart in a report.
    """
    own = symmetry.about
    taken = {version.name: version.about.name for version in versions()}
    for name in (own.name, *(version.name for version in own.versions)):
        if name in taken and (taken[name] != own.name or own.name in BUILTIN):
            raise FlopbenchError(
                f"the symmetry {own.name} cannot be registered: the symmetry {taken[name]} "
                f"has a version {name} already"
            )
    labels = {version.label("X"): version.name for about in BUILTIN.values() for version in about.versions}
    for label in (version.label("X") for version in own.versions):
        if label in labels:
            raise FlopbenchError(
                f"the symmetry {own.name} cannot be registered: {label} stands for the version "
                f"{labels[label]} already"
            )
    _registered[own.name] = symmetry
    return symmetry


class _FromRecord:
    """A symmetry of which a record tells what its networks are called, and nobody here its layers."""

    def __init__(self, about: About) -> None:
        self.about = about


def describe(about: About) -> None:
    """Make the names of a record's networks known, unless they are: what was measured is read anywhere."""
    name = about.versions[0].name
    if _known(name) is None:
        # A package whose symmetry cannot be loaded is no reason not to read a record of another.
        _register_installed()
    if _known(name) is None:
        with suppress(FlopbenchError):
            register(_FromRecord(about))


def others(symmetries: Iterable[About]) -> tuple[About, ...]:
    """Those of some symmetries that are not flopbench's, each once."""
    return tuple(about for about in dict.fromkeys(symmetries) if about.name not in BUILTIN)


def load(about: About) -> Any:
    """The symmetry itself, with its layers: a `flopbench.symmetries.Symmetry`.

    Raises:
        FlopbenchError: all that is known of it is from a record.
    """
    found = _registered.get(about.name)
    if isinstance(found, _FromRecord):
        raise FlopbenchError(
            f"the layers of the symmetry {about.name} are not known here: import what registers it"
        )
    return found or resolve_name(about.home)


def pack() -> dict[str, bytes]:
    """The registered symmetries by name, to be registered in another process, too.

    What was defined in the caller's script or notebook goes by value, what a module defines by its name.

    Raises:
        FlopbenchError: one does not pickle.
    """
    own = {name: each for name, each in _registered.items() if not isinstance(each, _FromRecord)}
    return {name: _packed(symmetry) for name, symmetry in own.items()}


def unpack(packed: Mapping[str, bytes]) -> None:
    """Register what another process has packed.

    Raises:
        FlopbenchError: one cannot be read here.
    """
    for name, symmetry in packed.items():
        try:
            register(pickle.loads(symmetry))
        except Exception as error:
            raise FlopbenchError(
                f"a fresh process cannot read the symmetry {name}: {in_one_line(error)}"
            ) from error


def _packed(symmetry: Described) -> bytes:
    import cloudpickle

    try:
        return cloudpickle.dumps(symmetry)
    except Exception as error:
        raise FlopbenchError(
            f"the symmetry {symmetry.about.name} cannot go to a fresh process: {in_one_line(error)}"
        ) from error


def _known(name: str) -> Version | None:
    return next((version for version in versions() if version.name == name), None)


def _register_installed() -> list[FlopbenchError]:
    """Register what installed packages name and nobody has, and say what could not be loaded."""
    problems: list[FlopbenchError] = []
    for point in entry_points(group=GROUP):
        if not isinstance(_registered.get(point.name), _FromRecord | None):
            continue
        try:
            register(point.load())
        except Exception as error:
            whose = f" of the package {point.dist.name}" if point.dist else ""
            problems.append(
                FlopbenchError(f"the symmetry {point.name}{whose} cannot be loaded: {in_one_line(error)}")
            )
    return problems
