"""What the layers of several symmetries share, and when one kernel may do the work of several modules.

Such a kernel reads the modules' parameters and calls none of them. It may do so only while that makes no
difference to anybody: none of them has hooks, was replaced or parametrised.
"""

from typing import Any

import torch
from torch import Tensor, nn

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import Choice, Why, choose, note
from flopbench.kernels.linear import LINEAR, LINEAR_GELU, linear_gelu_parts
from flopbench.kernels.mirror_gelu import Activation, gelu
from flopbench.private import hooked
from flopbench.symmetries.base import DropPath, parts_of, together

Operands = tuple[list[Tensor], list[Tensor | None]]
"""Weights and biases of a linear layer as `kernels.linear.linear_parts` takes them."""


def apart(kind: type[nn.Module], *modules: nn.Module) -> Why:
    """Why modules have to be called one by one, or "": each ought to be of `kind` and without hooks."""
    for module in modules:
        if type(module) is not kind:
            return f"a {type(module).__name__} in place of a {kind.__name__}"
        if hooked(module):
            return f"hooks on a {kind.__name__}"
    return ""


class IrrepLinear(nn.Module):
    """Affine maps of a feature's irreps; subclasses say what is applied to which part."""

    impl: Impl = "auto"

    def __init__(self, in_features: int, out_features: int, invariant_only: bool, *, bias: bool) -> None:
        super().__init__()
        self.invariant_only = invariant_only
        self.s = nn.Linear(in_features // 2, out_features // 2)
        self.a = nn.Linear(in_features // 2, out_features // 2, bias=bias)

    def called_apart(self) -> bool:
        """Whether W_s and W_a are to be called as the modules that they are."""
        why = apart(nn.Linear, self.s, self.a)
        if why:
            note(LINEAR, Choice("torch", why))
        return bool(why)


def without_shift(layer: nn.Module, x: Tensor) -> Tensor:
    """W x of an affine map W x + b, whatever module that is."""
    return layer(x) - layer(torch.zeros_like(x))


class Gelu(nn.Module):
    """A GELU: of a tensor, or of a feature's parts in mirror pairs, where it commutes with the flop."""

    impl: Impl = "auto"

    def __init__(self, kind: Activation) -> None:
        super().__init__()
        self.kind: Activation = kind

    def forward(self, x: Any) -> Any:
        """`[..., C]` to the same shape."""
        return together(lambda parts: gelu(parts, self.kind, self.impl), x)

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return self.kind


def activated(kind: type[nn.Module], linear: Any, activation: Any, x: Any) -> Any:
    """`activation(linear(x))`, in one kernel where there is one for a `kind` of linear map and a `Gelu`."""
    if not (apart(kind, linear) or apart(Gelu, activation) or linear.called_apart()):
        weights, biases = linear.operands
        which = choose(LINEAR_GELU, linear.impl, parts_of(x), weights, biases, activation.kind).name
        if which != "torch":
            return together(
                lambda parts: linear_gelu_parts(parts, weights, biases, activation.kind, which), x
            )
    return activation(linear(x))


class IrrepResidual(nn.Module):
    """Holds λ_s and λ_a `[width/2]`, None without layer scale, and one drop path for all irreps."""

    def __init__(self, width: int, layer_scale: float | None, drop_path: float) -> None:
        super().__init__()
        scaled = layer_scale is not None
        self.gamma_s = nn.Parameter(torch.full((width // 2,), layer_scale)) if scaled else None
        self.gamma_a = nn.Parameter(torch.full((width // 2,), layer_scale)) if scaled else None
        self.drop_path = DropPath(drop_path)
