"""What the layers of several symmetries share."""

import torch
from torch import Tensor, nn

from flopbench.kernels import Impl
from flopbench.kernels.dispatch import Choice, note
from flopbench.kernels.linear import LINEAR
from flopbench.symmetries.base import DropPath, apart

Operands = tuple[list[Tensor], list[Tensor | None]]
"""Weights and biases of a linear layer as `kernels.linear.linear_parts` takes them."""


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


class IrrepResidual(nn.Module):
    """Holds λ_s and λ_a `[width/2]`, None without layer scale, and one drop path for all irreps."""

    def __init__(self, width: int, layer_scale: float | None, drop_path: float) -> None:
        super().__init__()
        scaled = layer_scale is not None
        self.gamma_s = nn.Parameter(torch.full((width // 2,), layer_scale)) if scaled else None
        self.gamma_a = nn.Parameter(torch.full((width // 2,), layer_scale)) if scaled else None
        self.drop_path = DropPath(drop_path)
