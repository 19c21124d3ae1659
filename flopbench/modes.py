"""Modes: what executes a network, in which passes and dtypes. Imports no torch."""

from typing import Literal, get_args

Pass = Literal["forward", "backward", "train"]
DType = Literal["fp32", "tf32", "bf16", "fp16", "autocast-bf16", "autocast-fp16", "int8"]
"""`int8` is what an engine quantises a network to, weights and features."""
EngineName = Literal["aot-inductor", "onnxruntime", "openvino", "tensorrt"]
"""What executes an exported network (`flopbench.engines`)."""
TorchMode = Literal["eager", "compile", "compile-blocks", "max-autotune", "cuda-graph"]
"""`compile-blocks` compiles the repeated block once instead of the whole network: far shorter to compile."""
Mode = Literal[TorchMode, EngineName]
ENGINES: frozenset[EngineName] = frozenset(get_args(EngineName))
COMPILING: frozenset[Mode] = frozenset(get_args(Mode)) - ENGINES - {"eager"}
"""Modes in which torch.compile compiles at the first call."""
CAPTURING: frozenset[Mode] = frozenset(("max-autotune", "cuda-graph"))
"""Modes that capture what they compile for CUDA as a CUDA graph, which is launched as a whole."""
DeviceKind = Literal["cpu", "cuda"]
ENGINE_DTYPES: dict[Mode, dict[DeviceKind, tuple[DType, ...]]] = {
    "aot-inductor": {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16", "fp16")},
    "onnxruntime": {"cpu": ("fp32", "int8")},
    "openvino": {"cpu": ("fp32", "bf16", "int8")},
    "tensorrt": {"cuda": ("fp32", "tf32", "bf16", "fp16")},
}
"""What each engine computes in, by the device that it runs on."""
CONVERTING: frozenset[Mode] = frozenset(("onnxruntime", "openvino"))
"""Engines that take a network in fp32, and convert it to what they compute in."""
CALIBRATION = 128
"""Images that a network is calibrated on for int8, at most, if no other number is said."""
EXPORTED = {"eager": "exported naively", "auto": "in the engine's idiom"}
"""How a network came into an engine, by the kernels that were asked for: those that run are the engine's."""


def refusal(mode: Mode, pass_: Pass, dtype: DType, device: DeviceKind | None = None) -> str | None:
    """Why a mode has not a pass or a dtype on a device, or on any; None where it has."""
    if mode in ENGINES:
        if pass_ != "forward":
            return f"mode {mode} runs an exported network, which has no {pass_} pass: choose --pass forward"
        return refused_by_engine(mode, dtype, device)
    if dtype == "int8":
        having = [name for name, known in ENGINE_DTYPES.items() if any("int8" in d for d in known.values())]
        return f"int8 is an engine's: choose --mode {' or '.join(having)}, not {mode}"
    for what, value in (("dtype", dtype), ("mode", mode)):
        if device == "cpu" and value in ("tf32", "cuda-graph"):
            return f"{what} {value} exists on CUDA only, not on device cpu"
    return None


def refused_by_engine(engine: Mode, dtype: str, device: str | None = None) -> str | None:
    """Why an engine does not compute in a dtype on a device, or on any; None where it does."""
    on = ENGINE_DTYPES[engine]
    if device is not None and device not in on:
        return f"{engine} runs on {' and '.join(on)} alone: choose another --mode"
    known = dict.fromkeys(one for kind, own in on.items() for one in own if device in (None, kind))
    if dtype not in known:
        where = f" on {device}" if device else ""
        return f"{engine} has no {dtype}{where}: choose --dtype {' or '.join(known)}"
    return None
