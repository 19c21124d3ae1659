"""Kernels that Python launches, as operators of torch's with as little as can be between them and who calls.

A call through torch's dispatcher costs an operator written in Python tens of microseconds, more than its
kernel takes on a GPU at small batches. It is needed where somebody looks on, who then sees one opaque
operator: a compiler, a counter, a profiler. Elsewhere the kernel is launched at once, and where gradients are
taken from within a `torch.autograd.Function`.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.library import Library, infer_schema, register_autograd, register_fake

from flopbench.private import has_tangent, watched

Run = Callable[..., list[Tensor]]
_LIBRARY = Library("flopbench", "FRAGMENT")
_ORDINARY = (Tensor, nn.Parameter)


def _no_gradient(ctx: Any, grads: Sequence[Tensor | None]) -> Any:
    raise RuntimeError("this operator of flopbench has no gradient; use impl='eager'")


def operator(
    *,
    fake: Run,
    save: Callable[[Any, Sequence[Any], list[Tensor]], None] | None = None,
    gradient: Callable[[Any, Sequence[Tensor]], tuple[Any, ...]] = _no_gradient,
) -> Callable[[Run], Run]:
    """Make `torch.ops.flopbench.NAME` of a function NAME that launches a kernel.

    The function takes tensors, lists of tensors, numbers and strings, and gives a list of new tensors. Its
    annotations are the operator's schema.

    Args:
        fake: the same function for tensors without content: their number, shapes and dtypes.
        save: `(ctx, inputs, output)`, keeps what the gradient needs as `torch.autograd.Function` does.
        gradient: `(ctx, grads)`, of the outputs, to a gradient per input: a list for a list, None for none
            and for a list of numbers, which if empty is one of tensors to torch: an empty list for that.
    """

    def declare(run: Run) -> Run:
        name = f"flopbench::{run.__name__}"
        schema = infer_schema(run, mutates_args=())
        _LIBRARY.define(run.__name__ + schema, tags=torch.Tag.pt2_compliant_tag)
        _LIBRARY.impl(run.__name__, run, "CompositeExplicitAutograd")
        register_fake(name, fake, lib=_LIBRARY)
        register_autograd(name, gradient, setup_context=save, lib=_LIBRARY)
        dispatched = getattr(torch.ops.flopbench, run.__name__).default
        kernel = _Kernel(run, save, gradient)

        @wraps(run)
        def call(*args: Any, **kwargs: Any) -> list[Tensor]:
            # A compiler asks for no tangents.
            if torch.compiler.is_compiling():
                return dispatched(*args, **kwargs)
            flat = _flat((*args, *kwargs.values()))
            tensors = [x for x in flat if isinstance(x, Tensor)]
            if has_tangent(tensors):
                # Autograd would lose them in silence.
                raise RuntimeError("this operator of flopbench has no forward gradient; use impl='eager'")
            if kwargs or watched():
                return dispatched(*args, **kwargs)
            # Subclasses and tensors without content have ways of their own.
            if any(type(x) not in _ORDINARY or x.is_meta for x in tensors):
                return dispatched(*args)
            if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
                sizes = [len(arg) if isinstance(arg, list) else None for arg in args]
                return list(_Differentiable.apply(kernel, sizes, *flat))
            return run(*args)

        return call

    return declare


class _Kernel(NamedTuple):
    run: Run
    save: Callable[..., None] | None
    gradient: Callable[..., tuple[Any, ...]]


class _Differentiable(torch.autograd.Function):
    """A launch with gradients. Of tensors in lists autograd knows nothing, so each is an argument."""

    @staticmethod
    def forward(ctx: Any, kernel: _Kernel, sizes: list[int | None], *flat: Any) -> tuple[Tensor, ...]:
        args = _grouped(flat, sizes)
        outs = kernel.run(*args)
        if kernel.save is not None:
            kernel.save(ctx, args, outs)
        ctx.gradient, ctx.sizes = kernel.gradient, sizes
        ctx.needs_input_grad = _grouped(ctx.needs_input_grad[2:], sizes)
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gradients = zip(ctx.gradient(ctx, list(grads)), ctx.sizes, strict=True)
        return None, None, *_flat([None] * size if size and g is None else g for g, size in gradients)


def _flat(args: Iterable[Any]) -> list[Any]:
    """The arguments with those in lists in their places."""
    flat = []
    for arg in args:
        if isinstance(arg, list):
            flat += arg
        else:
            flat.append(arg)
    return flat


def _grouped(flat: Iterable[Any], sizes: Iterable[int | None]) -> list[Any]:
    """The inverse of `_flat`, given the lengths of the lists and None for what was no list."""
    left = iter(flat)
    return [next(left) if size is None else list(islice(left, size)) for size in sizes]
