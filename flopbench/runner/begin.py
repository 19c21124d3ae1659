"""What of a suite is to be measured, and the run that is begun with it or resumed. Imports no torch."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.modes import DeviceKind
from flopbench.results import Environment, Run, RunInfo
from flopbench.runner.process import Launch
from flopbench.runner.sweep import check_cells, probe_environment, shard_of
from flopbench.suites import Profile, Suite, Variant, load_suite, override
from flopbench.symmetries.registry import others

# What must be the same for two parts of one run to be measurements of one thing.
RESUME_FIELDS = (
    "device",
    "device_name",
    "driver",
    "cuda",
    "torch",
    "triton",
    "compiler",
    "kernels",
    "threads",
    "cpu",
    "cpu_capability",
    "allocator",
    "commit",
    "engines",
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


def parse_duration(text: str, what: str) -> float:
    """Seconds of `90`, `90s`, `5m`, `1.5h`.

    Args:
        text: the duration.
        what: what it is of, for the error.

    Raises:
        FlopbenchError: not a duration.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([smh]?)", text.strip())
    if not match or float(match.group(1)) == 0:
        raise FlopbenchError(f"{what} {text!r} is not a duration; write 90s, 5m or 1.5h")
    return float(match.group(1)) * _UNITS[match.group(2)]


def device_kind(device: str | None, what: str) -> DeviceKind | None:
    """The kind of device that is named, if one is; `what` is named in the error.

    Raises:
        FlopbenchError: there is none of that name.
    """
    if device is None or device == "cpu" or device == "cuda":
        return device
    raise FlopbenchError(f"{what} {device!r}: choose cpu or cuda")


def recorded_command(arguments: Sequence[str]) -> str:
    """The command line as a run records it: of absolute paths, which belong to one machine, only the name."""
    words = []
    for argument in arguments:
        option, equals, value = argument.rpartition("=")
        words.append(option + equals + (Path(value).name if Path(value).is_absolute() else value))
    return shlex.join(["flopbench", *words])


@dataclass(frozen=True)
class Request:
    """What of a suite is to be measured: a variant of its profile, with changes, and a part of that.

    Attributes:
        suite: which.
        variant: of its profiles; None for the usual ones.
        changes: fields of the profile; None and () leave one as it is.
        shard: (i, n): every n-th cell from the i-th on.
    """

    suite: Suite
    variant: Variant | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    shard: tuple[int, int] | None = None

    def check(self, device: DeviceKind | None) -> None:
        """Read all that was given, before any process is started.

        Where the device is not known yet, what only another kind of device lacks is nothing against it.

        Raises:
            FlopbenchError: a value is wrong, or does not suit a pair.
        """
        errors: list[FlopbenchError] = []
        kinds = (device,) if device else self.suite.variant(self.variant) or self.suite.profiles
        for kind in kinds:
            try:
                self._cells(kind)
            except FlopbenchError as error:
                errors.append(error)
        if errors and len(errors) == len(kinds):
            raise errors[0]

    def profile(self, device: DeviceKind) -> Profile:
        """What is measured on a kind of device.

        Raises:
            FlopbenchError: the suite has nothing for it, or a change is not allowed.
        """
        return override(self.suite.profile(device, self.variant), **self.changes)

    def cells(self, device: DeviceKind | None) -> list[Cell]:
        """The cells in the order of measuring, on a kind of device or the one that is there.

        Raises:
            FlopbenchError: one cannot run.
        """
        self.check(device)
        cells = self._cells(device or probe_environment(None).device)
        check_cells(cells)
        return cells

    def _cells(self, device: DeviceKind) -> list[Cell]:
        return shard_of(list(self.profile(device).cells(device)), self.shard)


def begin(
    request: Request, device: DeviceKind | None, results: Path | None, *, command: str, launch: Launch
) -> Run:
    """A new run of what is to be measured. Nothing is written before all is checked.

    Args:
        request: what.
        device: where; None for a GPU if there is one.
        results: the folder that the run's goes to; None for a temporary one, which lasts as long as the run.
        command: what the run records as its origin.
        launch: what calls the jobs.

    Raises:
        FlopbenchError: a mistake in the request, or the device is not there.
    """
    request.check(device)
    environment = probe_environment(device, launch)
    request.cells(environment.device)
    return new_run(
        request.suite,
        request.profile(environment.device),
        environment,
        results,
        variant=request.variant,
        command=command,
        shard=request.shard,
    )


def new_run(
    suite: Suite,
    profile: Profile,
    environment: Environment,
    results: Path | None,
    *,
    command: str,
    variant: Variant | None = None,
    shard: tuple[int, int] | None = None,
    kind: str = "",
) -> Run:
    """A fresh run folder under `results`, named after suite, kind, device and time.

    Without `results` it is a temporary one, which lasts as long as the `Run` that is returned.
    """
    created = datetime.now(UTC)
    parts = [suite.name, kind, environment.device, f"{created:%Y%m%d-%H%M%S}"]
    parts += [f"shard{shard[0]}of{shard[1]}"] if shard else []
    name = "-".join(part for part in parts if part)
    info = RunInfo(
        id=name,
        suite=suite.name,
        title=suite.title,
        suite_digest=suite.digest,
        profile=profile,
        quick=variant == "quick",
        full=variant == "full",
        shard=shard,
        command=command,
        created=created.isoformat(timespec="seconds"),
        environment=environment,
        symmetries=others(name.version.about for pair in profile.pairs for name in pair.names),
    )
    return Run.create_under(results, name, info)


def check_resumable(run: Run, suite: Suite | None, environment: Environment) -> None:
    """Raise unless continuing `run` here measures the same thing on the same machine.

    The run knows what it measures; where a suite is named as well, it must be that.

    Raises:
        FlopbenchError: the suite or the environment differs, with the differences named; or the run's
            networks were given from Python, and are gone with the process that had them.
    """
    given = sorted({name.target for pair in run.info.profile.pairs for name in pair.names if name.given})
    if given:
        names = ", ".join(given)
        raise FlopbenchError(
            f"cannot resume {run.path}: {names} were given from Python: call flopbench.benchmark again"
        )
    differences = run.info.environment.differences(environment, RESUME_FIELDS)
    if suite and suite.digest != run.info.suite_digest:
        differences.insert(0, f"suite {suite.name}: {run.info.suite_digest} → {suite.digest}")
    if differences:
        raise FlopbenchError(f"cannot resume {run.path}: {'; '.join(differences)}")


def resume(path: Path, suite: Suite | None, given: Sequence[str], launch: Launch) -> Run:
    """The run to go on with, as it was begun.

    Args:
        path: its folder.
        suite: what it has to be of, if that was said.
        given: the names of what else was said, which a run that was begun has no room for.
        launch: what calls the jobs.

    Raises:
        FlopbenchError: it is no run, or continuing it here would not measure the same thing.
    """
    run = Run.open(path)
    if given:
        raise FlopbenchError(f"a run is resumed as it was begun: leave out {', '.join(given)}")
    check_resumable(run, suite, probe_environment(run.info.environment.device, launch))
    return run


def read_suite(suite: str | Path | Suite) -> Suite:
    """A suite by its name or file, or as it is."""
    return suite if isinstance(suite, Suite) else load_suite(suite)
