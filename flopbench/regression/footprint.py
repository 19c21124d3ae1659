"""What a pass does to memory, counted and not timed: its operators and the bytes they write."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from flopbench.frozen import Frozen
from flopbench.private import TorchDispatchMode, schema, storage_identity, tree_leaves


class Footprint(Frozen):
    """One pass in eager mode.

    Attributes:
        operators: ATen operator → calls, of those that write memory: a kernel each. Views are left out.
        bytes_written: bytes of all tensors that they made, whether kept or not.
    """

    operators: dict[str, int]
    bytes_written: int

    @property
    def calls(self) -> int:
        """Operators called, all together."""
        return sum(self.operators.values())

    def difference(self, other: "Footprint") -> str:
        """What `other` calls more and less often, e.g. `+12 aten.clone, −1 aten.mm`."""
        mine, theirs = Counter(self.operators), Counter(other.operators)
        more = [f"+{count} {name}" for name, count in sorted((theirs - mine).items())]
        return ", ".join(more + [f"−{count} {name}" for name, count in sorted((mine - theirs).items())])


def footprint(run: Callable[[], object]) -> Footprint:
    """Call `run` once and count what it does."""
    with _Recorder() as recorder:
        run()
    return Footprint(operators=dict(sorted(recorder.calls.items())), bytes_written=recorder.bytes_written)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes_written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {storage_identity(tensor) for tensor in _tensors((args, kwargs))}
        made = {storage_identity(tensor): tensor for tensor in _tensors(result)}
        made = {identity: tensor for identity, tensor in made.items() if identity not in known}
        if made or schema(func).is_mutable:
            self.calls[str(func.overloadpacket)] += 1
            self.bytes_written += sum(tensor.untyped_storage().nbytes() for tensor in made.values())
        return result


def _tensors(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
