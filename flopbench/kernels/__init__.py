"""Operations of the equivariant layers, one file an op, each with the eager version that specifies it."""

import hashlib
from pathlib import Path
from typing import Literal

Name = Literal["torch", "unfused", "batched", "joined", "folded", "inductor", "cpp", "triton"]
"""What an operation can run as: torch's own operator; attention as two products with the scores in memory;
products of all parts as one batched product; the norm of all parts as one of them side by side; the products
before a GELU with its transform's scale in their weights; the eager text compiled by inductor; C++; Triton.

Those joined and folded have as few operators as an engine can run, which reads weights as constants: they are
chosen for what is exported (`flopbench.kernels.dispatch.idiom`), and else by name alone."""

Impl = Literal["auto", "fused", "eager", "batched", "inductor", "cpp", "triton"]
"""What may be asked for: `flopbench.kernels.dispatch.choose` has the rule. Stands where torch is not
imported, for suite files name it too."""

TORCH: tuple[Name, ...] = ("torch", "unfused", "batched", "joined", "folded")
"""Those that are made of torch's own operators, which anybody's network has."""

Ran = dict[str, dict[Name, str]]
"""What was seen to run: operation → what it ran as → why."""


def has_ours(ran: Ran) -> bool:
    """Whether anything but torch's own operators is in it."""
    return any(name not in TORCH for names in ran.values() for name in names)


def source_digest(folder: Path = Path(__file__).parent) -> str:
    """Sixteen digits that change with any source in `folder` and below, by default with any kernel's.

    The table of measurements is among these: it says which of them run.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".cpp", ".h", ".py", ".json"):
            digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
