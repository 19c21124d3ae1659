"""Which implementation of an operation runs, and why: decided here, and nowhere else.

An operation declares what it can run as and what each of these needs; `choose` picks one and says why.
Nothing falls back in silence: what was asked for by name and cannot run raises, and every choice is told to
whoever observes (`observe`), in compiled networks too, where it is made while the compiler traces.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError
from flopbench.kernels import Impl, Name, Ran
from flopbench.kernels.compilers import missing_c_compiler
from flopbench.kernels.inductor import missing_compiler
from flopbench.kernels.measured import verdict

Why = str
"""A reason against an implementation, in a few words; empty where there is none."""

_LOW = (torch.float32, torch.bfloat16, torch.float16)


class Choice(NamedTuple):
    """What an operation is to run as, and why."""

    name: Name
    reason: Why


def _never(*arguments: Any) -> Why:
    return ""


@dataclass(frozen=True)
class Implementation:
    """One way to run an operation. The functions get the operation's own arguments and give a reason or "".

    Attributes:
        name: what it is.
        unwritten: why there is none of it for so many parts, so that who asks for it by name is not refused.
        cannot: why it cannot run on these.
        slower: why something else was found faster on these, which only a request by name overrules.
        unasked: why "auto" leaves it; gets the first of the parts alone, and comes first.
        lacks: what software it needs and does not find.
        measured: whether the table of measurements (`flopbench.kernels.measured`) says how fast it is: what
            is slower there runs only by name, and what is not in it "auto" leaves to torch.
        named: whether it runs only by name, or where an engine's idiom names it.
    """

    name: Name
    unwritten: Callable[[Sequence[Tensor]], Why] = _never
    cannot: Callable[..., Why] = _never
    slower: Callable[..., Why] = _never
    unasked: Callable[[Tensor], Why] = _never
    lacks: Callable[[], Why] = _never
    measured: bool = False
    named: bool = False


@dataclass(frozen=True)
class Operation:
    """An operation on the parts of a feature, which are the first of its arguments.

    Attributes:
        name: as records call it.
        specification: in torch's own operators. What it gives is right by definition.
        implementations: the others, the fastest first.
        composed: whether it is two operations in one. Then nothing is lost where they run apart: each is
            chosen, recorded and refused for itself.
    """

    name: str
    specification: Callable[..., Any]
    implementations: tuple[Implementation, ...] = ()
    composed: bool = False


_ASKED = Choice("torch", "asked for")
_UNCOMPILED = Choice("torch", "uncompiled on a CPU, where auto waits for no C++ compiler")


def choose(operation: Operation, impl: Impl | Name, parts: Sequence[Tensor], *arguments: Any) -> Choice:
    """What `operation` is to run as.

    Args:
        operation: what is to be computed.
        impl: "eager", torch's own operators, which specify it; "fused", the first of its implementations that
            can run here and was not found slower; "auto", on a GPU what was measured to be fastest on such a
            card (`flopbench.kernels.measured`), and where torch.compile traces for a CPU its C++; all else is
            torch's own, which the compiler fuses itself, with its neighbours too; a name, that
            implementation, where the operation has one for so many parts.
        parts: of the feature, `[...]` each.
        arguments: what else the operation takes.

    Raises:
        FlopbenchError: what was asked for by name cannot run, or "fused" lacks a compiler or Triton.
    """
    if impl == "eager":
        choice = _ASKED
    elif impl == "auto" and _idiom is not None:
        choice = _in_idiom(operation, _idiom.get(operation.name, "torch"), parts, arguments)
    elif impl == "auto" and not (torch.compiler.is_compiling() or parts[0].is_cuda) and _waits(operation):
        choice = _UNCOMPILED
    else:
        choice = _choose(operation, impl, parts, arguments)
    if choice.name != "torch" or not operation.composed:
        note(operation, choice)
    return choice


def _in_idiom(
    operation: Operation, name: Name, parts: Sequence[Tensor], arguments: tuple[Any, ...]
) -> Choice:
    if name == "torch":
        return Choice(name, "exported")
    for one in operation.implementations:
        if one.name == name:
            why = one.unwritten(parts) or one.cannot(parts, *arguments)
            return Choice("torch", f"{name}: {why}") if why else Choice(name, "the engine's idiom")
    return Choice("torch", f"there is none of {name}")


def _waits(operation: Operation) -> bool:
    return all(i.name != "unfused" for i in operation.implementations)


def _choose(
    operation: Operation, impl: Impl | Name, parts: Sequence[Tensor], arguments: tuple[Any, ...]
) -> Choice:
    reasons = []
    for one in operation.implementations:
        named = impl == one.name
        if not named and (one.named or impl not in ("auto", "fused")):
            continue
        lacking, found, why = "", "", one.unwritten(parts)
        if not why:
            why = (
                (one.unasked(parts[0]) if impl == "auto" else "")
                or one.cannot(parts, *arguments)
                or ("" if named else one.slower(parts, *arguments))
            )
            if one.measured and not (why or named):
                faster, found = verdict(operation.name, one.name, len(parts), parts[0])
                why = found if faster is False or (faster is None and impl == "auto") else ""
            lacking = "" if why else one.lacks()
            if lacking if impl == "fused" else (named and (why or lacking) and not operation.composed):
                _refuse(f"impl={impl!r} cannot run {operation.name}: {why or lacking}")
        if not (why or lacking):
            return Choice(one.name, "asked for" if named else f"{impl}: {found or 'the fastest known here'}")
        reasons.append(f"{one.name}: {why or lacking}")
    none = "there is no other" if impl in ("auto", "fused") else f"there is none of {impl}"
    return Choice("torch", "; ".join(reasons) or none)


@torch.compiler.assume_constant_result
def _refuse(problem: str) -> None:
    # Outside the trace, where an exception of ours would be one of the compiler's.
    raise FlopbenchError(f"{problem}; use impl='auto' or 'eager'")


# What the common kinds of implementation need.


def triton(
    unwritten: Callable[[Sequence[Tensor]], Why] = _never, cannot: Callable[..., Why] = _never
) -> Implementation:
    """A Triton kernel, for CUDA tensors; `auto` takes it where it was measured to be faster on the card."""

    def unable(parts: Sequence[Tensor], *arguments: Any) -> Why:
        # Meta tensors have nothing to compute: the kernels' operators say what they would.
        where = ("cuda", "meta", "cpu") if _interpreted() else ("cuda", "meta")
        return _unfit(parts, where, (*_LOW, torch.float64)) or cannot(parts, *arguments)

    def unasked(x: Tensor) -> Why:
        exported = torch.compiler.is_compiling() and _exporting()
        return "what is exported keeps to torch's own" if exported else ""

    return Implementation("triton", unwritten, unable, unasked=unasked, lacks=_no_triton, measured=True)


def cpp(*, cannot: Callable[..., Why] = _never, slower: Callable[..., Why] = _never) -> Implementation:
    """C++ on a CPU, in fp32 and fp64; `auto` takes it where torch.compile traces: both need a compiler."""

    def unasked(x: Tensor) -> Why:
        return "" if torch.compiler.is_compiling() else "uncompiled"

    def unable(parts: Sequence[Tensor], *arguments: Any) -> Why:
        if torch.compiler.is_compiling() and _exporting():
            return "what is exported keeps to torch's own"
        return _on_a_cpu(parts, (torch.float32, torch.float64)) or cannot(parts, *arguments)

    return Implementation("cpp", _never, unable, slower, unasked, _no_compiler)


def inductor(unwritten: Callable[[Sequence[Tensor]], Why] = _never) -> Implementation:
    """The specification compiled by inductor, on a CPU; a compiler that traces the network does so itself."""

    def unable(parts: Sequence[Tensor], *arguments: Any) -> Why:
        if torch.compiler.is_compiling():
            return "the compiler that traces the network fuses it"
        return _on_a_cpu(parts, (*_LOW, torch.float64))

    return Implementation(
        "inductor", unwritten, unable, unasked=lambda x: "waits for a compiler", lacks=_no_compiler
    )


def exported(name: Name, cannot: Callable[..., Why] = _never) -> Implementation:
    """Torch's own operators, as few as an engine can run: for what is exported (`idiom`), or by name."""
    return Implementation(name, one_part, cannot, named=True)


def _on_a_cpu(parts: Sequence[Tensor], dtypes: tuple[torch.dtype, ...]) -> Why:
    if _interpreted():
        return "Triton's interpreter stands in for a GPU"
    return _unfit(parts, ("cpu",), dtypes)


def _unfit(parts: Sequence[Tensor], devices: tuple[str, ...], dtypes: tuple[torch.dtype, ...]) -> Why:
    for x in parts:
        if x.device.type not in devices:
            return f"a tensor on {x.device.type}"
        if x.dtype not in dtypes:
            return f"a tensor of {_short(x.dtype)}"
    return ""


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def unlike(parts: Sequence[Tensor]) -> Why:
    """A reason against what needs parts of one shape that hold something."""
    shape = parts[0].shape
    if any(x.shape != shape for x in parts):
        return "parts of unlike shapes"
    return unlike_rows(parts)


def unlike_rows(parts: Sequence[Tensor]) -> Why:
    """A reason against what needs parts `[..., C_p]` of the same tokens that hold something."""
    rows = parts[0].shape[:-1]
    if any(x.shape[:-1] != rows for x in parts):
        return "parts of unlike tokens"
    return "" if all(x.numel() > 0 for x in parts) else "nothing in them"


def one_part(parts: Sequence[Tensor]) -> Why:
    """A reason against what of one part is a single kernel of torch's."""
    return "one kernel already" if len(parts) == 1 else ""


def library_is_faster(*arguments: Any) -> Why:
    """A reason against C++ but on AMD's and Intel's CPUs with AVX-512: of others there are no figures."""
    return "" if _capability() == "AVX512" else "not measured on a CPU without AVX-512"


# Asked outside the trace: of torch's state a compiler knows little.


@torch.compiler.assume_constant_result
def _capability() -> str:
    return torch.backends.cpu.get_cpu_capability()


@torch.compiler.assume_constant_result
def _exporting() -> bool:
    return torch.compiler.is_exporting()


@torch.compiler.assume_constant_result
def _no_compiler() -> Why:
    lacking = missing_compiler()
    return "" if lacking is None else f"no C++ compiler is installed ({lacking})"


@torch.compiler.assume_constant_result
def _no_triton() -> Why:
    missing, interpreted = _load()
    if missing is not None:
        return f"Triton is not installed ({missing})"
    lacking = None if interpreted else missing_c_compiler()
    return "" if lacking is None else f"Triton needs a C compiler ({lacking})"


@torch.compiler.assume_constant_result
def _interpreted() -> bool:
    """Whether Triton's interpreter stands in for a GPU; Triton is not imported to answer no."""
    asked = "flopbench.kernels.triton" in sys.modules or "TRITON_INTERPRET" in os.environ
    return asked and _load()[1]


@cache
def _load() -> tuple[str | None, bool]:
    """Why Triton cannot be imported, or None; and whether its interpreter runs our kernels."""
    try:
        return None, import_module("flopbench.kernels.triton").INTERPRETED
    except ImportError as error:
        return str(error), False


# What an engine runs fastest, while a network is exported for it.

_idiom: Mapping[str, Name] | None = None


@contextmanager
def idiom(names: Mapping[str, Name]) -> Iterator[None]:
    """Within it, "auto" chooses for each operation the implementation of this name, if it can run.

    Args:
        names: by the operation's name; torch's own operators are chosen for all others.
    """
    global _idiom
    before, _idiom = _idiom, names
    try:
        yield
    finally:
        _idiom = before


# Who observes what is chosen.

_observers: list[Ran] = []


@contextmanager
def observe() -> Iterator[Ran]:
    """Within it, what every operation runs as is noted in what this yields.

    Of a compiled network that is what its compilation chose, so it has to be compiled within.
    """
    ran: Ran = {}
    _observers.append(ran)
    try:
        yield ran
    finally:
        _observers.remove(ran)


def together(one: Ran, other: Ran) -> Ran:
    """What operations ran as that were seen in two parts; of a name in both, the reason is the other's."""
    return {operation: one.get(operation, {}) | other.get(operation, {}) for operation in {**one, **other}}


def note(operation: Operation, choice: Choice) -> None:
    """Tell whoever observes."""
    _note(operation.name, choice.name, choice.reason)


@torch.compiler.assume_constant_result
def _note(operation: str, name: Name, reason: Why) -> None:
    for ran in _observers:
        ran.setdefault(operation, {}).setdefault(name, reason)


def select(model: nn.Module, impl: Impl) -> None:
    """Let every layer of `model` that has a choice run `impl`, in place."""
    for module in model.modules():
        # Somebody else's module may have an `impl` that says another thing.
        if getattr(module, "impl", None) in get_args(Impl):
            module.impl = impl  # pyright: ignore[reportArgumentType]


@contextmanager
def specified(model: nn.Module) -> Iterator[None]:
    """Within it, every layer of `model` runs the eager operations, which say what is right."""
    chosen = [(m, m.impl) for m in model.modules() if getattr(m, "impl", None) in get_args(Impl)]
    select(model, "eager")
    try:
        yield
    finally:
        for module, impl in chosen:
            module.impl = impl
