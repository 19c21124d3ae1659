"""What engines are, and what each needs to be installed. Imports no torch, and no engine."""

from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

from flopbench.modes import EngineName, refused_by_engine


@dataclass(frozen=True)
class Needs:
    """What an engine needs.

    Attributes:
        packages: to be imported.
        extra: of flopbench that installs them, "" where torch has all.
        quantiser: packages besides, of the same extra, that int8 needs.
    """

    packages: tuple[str, ...]
    extra: str
    quantiser: tuple[str, ...] = ()


NEEDS: dict[EngineName, Needs] = {
    "aot-inductor": Needs((), ""),
    "onnxruntime": Needs(("onnx", "onnxscript", "onnxruntime"), "onnxruntime"),
    "openvino": Needs(("openvino",), "openvino", ("nncf",)),
    "tensorrt": Needs(("onnx", "onnxscript", "tensorrt"), "tensorrt"),
}


def not_installed(name: EngineName, dtype: str = "fp32") -> str | None:
    """What an engine needs that is not here, with the remedy; None where it has all."""
    needs, what = NEEDS[name], f"int8 in {name}" if dtype == "int8" else name
    packages = needs.packages + (needs.quantiser if dtype == "int8" else ())
    lacking = [package for package in packages if find_spec(package) is None]
    return f"{what} needs {', '.join(lacking)}: pip install 'flopbench[{needs.extra}]'" if lacking else None


def installed_engines() -> dict[str, str]:
    """The version of each engine that is installed, by its name; torch brings its own."""
    found = {}
    for name, needs in NEEDS.items():
        # A build for other hardware is another distribution of the same package.
        with suppress(metadata.PackageNotFoundError):
            if needs.extra and not not_installed(name):
                found[name] = metadata.version(needs.extra)
    return found


def missing_engine(name: EngineName, device: str, dtype: str) -> str | None:
    """Why an engine cannot run here in this dtype, with the remedy; None where it can."""
    return refused_by_engine(name, dtype, device) or not_installed(name, dtype)
