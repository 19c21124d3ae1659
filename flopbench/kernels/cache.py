"""Tensors computed from parameters, kept between forward passes of inference."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flopbench.private import version


class DerivedCache:
    """Keeps what `build` made of some parameters until one of them changes. For modules in eval mode.

    A change is seen by the parameter's version counter, storage, dtype or device: `load_state_dict`,
    `.to()`, copies of the module and what optimisers do are all noticed. torch's fused optimisers do not
    count their steps, so every pass that takes gradients empties the cache, and so must the module's
    `train()`. What writes through `.data` bypasses the counter as it bypasses autograd.

    Nothing is kept where the parameters are not ordinary ones (meta, fake, inference or functional
    tensors), or where what runs is being recorded: a compiler, an exporter or a CUDA graph has to see
    the computation itself, for nothing looks at version counters when what was recorded is run. A network
    that only infers has its layers keep what they compute for good first (`symmetries.fold`).
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget."""
        self._key: tuple[object, ...] | None = None
        self._storages: list[Tensor] = []
        self._value: tuple[Tensor, ...] = ()

    def get(self, build: Callable[[], tuple[Tensor, ...]], *parameters: Tensor) -> tuple[Tensor, ...]:
        """`build()`, or what it returned last time if none of `parameters` has changed since."""
        # The compiler's check stands alone and first: under it the rest is never traced.
        if torch.compiler.is_compiling():
            return build()
        if torch.is_grad_enabled():
            self.clear()
            return build()
        if _recording() or not all(map(_ordinary, parameters)):
            return build()
        key = tuple((p.data_ptr(), version(p), p.dtype, p.device) for p in parameters)
        if key != self._key:
            self._value = build()
            # Holding the storages keeps their addresses from being used again while the key is alive.
            self._storages = [p.detach() for p in parameters]
            self._key = key
        return self._value

    def __reduce__(self) -> tuple[type["DerivedCache"], tuple[()]]:
        # A copied or unpickled module starts with an empty cache.
        return DerivedCache, ()


def _ordinary(parameter: Tensor) -> bool:
    return type(parameter) is nn.Parameter and not parameter.is_meta and not parameter.is_inference()


def _recording() -> bool:
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return True
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
