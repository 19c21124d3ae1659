"""What the layers of flopping share, whether tokens are split into irreps too or not."""

import torch
from torch import nn

from flopbench.kernels import Impl
from flopbench.kernels.mirror_gelu import Activation
from flopbench.symmetries.base import DropPath


class IrrepActivation(nn.Module):
    """Holds which non-linearity is applied; subclasses take the irreps to where it commutes with the flop."""

    impl: Impl = "auto"

    def __init__(self, kind: Activation) -> None:
        super().__init__()
        self.kind: Activation = kind

    def extra_repr(self) -> str:
        """Shown by `print(module)`."""
        return self.kind


class IrrepResidual(nn.Module):
    """Holds λ_s and λ_a `[width/2]`, None without layer scale, and one drop path for all irreps."""

    def __init__(self, width: int, layer_scale: float | None, drop_path: float) -> None:
        super().__init__()
        scaled = layer_scale is not None
        self.gamma_s = nn.Parameter(torch.full((width // 2,), layer_scale)) if scaled else None
        self.gamma_a = nn.Parameter(torch.full((width // 2,), layer_scale)) if scaled else None
        self.drop_path = DropPath(drop_path)
