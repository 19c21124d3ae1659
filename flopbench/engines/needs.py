"""What engines are, and what each needs to be installed. Imports no torch, and no engine."""

from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec

from flopbench.cells import DType, EngineName


@dataclass(frozen=True)
class Needs:
    """What an engine needs.

    Attributes:
        packages: to be imported.
        extra: of flopbench that installs them, "" where torch has all.
        dtypes: that it computes in, by device.
        quantiser: packages besides, of the same extra, that int8 needs.
    """

    packages: tuple[str, ...]
    extra: str
    dtypes: dict[str, Collection[DType]]
    quantiser: tuple[str, ...] = ()


NEEDS: dict[EngineName, Needs] = {
    "aot-inductor": Needs((), "", {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16", "fp16")}),
    "onnxruntime": Needs(("onnx", "onnxscript", "onnxruntime"), "onnxruntime", {"cpu": ("fp32", "int8")}),
    "openvino": Needs(("openvino",), "openvino", {"cpu": ("fp32", "bf16", "int8")}, ("nncf",)),
    "tensorrt": Needs(
        ("onnx", "onnxscript", "tensorrt"), "tensorrt", {"cuda": ("fp32", "tf32", "bf16", "fp16")}
    ),
}


def missing_engine(name: EngineName, device: str, dtype: str) -> str | None:
    """Why an engine cannot run here in this dtype, with the remedy; None where it can."""
    needs = NEEDS[name]
    if device not in needs.dtypes:
        return f"{name} runs on {' and '.join(needs.dtypes)} alone: choose another --mode"
    if dtype not in needs.dtypes[device]:
        known = " or ".join(needs.dtypes[device])
        return f"{name} has no {dtype} on {device}: choose --dtype {known}"
    packages = needs.packages + (needs.quantiser if dtype == "int8" else ())
    lacking = [package for package in packages if find_spec(package) is None]
    if lacking:
        what = f"{dtype} in {name}" if dtype == "int8" else name
        return f"{what} needs {', '.join(lacking)}: pip install 'flopbench[{needs.extra}]'"
    return None
