"""What the families share, written for any symmetry."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flopbench.cost import SOFTMAX, Cost, Shapes, free
from flopbench.kernels import Impl
from flopbench.kernels.attention import attention_parts
from flopbench.models.tasks import Task
from flopbench.symmetries import Activation, Dropout, Symmetry, together
from flopbench.symmetries.rotary import Rotate


class Mlp(nn.Module):
    """Linear, GELU, linear, channel by channel; at a network's end only what its head can see of them."""

    def __init__(
        self,
        symmetry: Symmetry,
        width: int,
        hidden: int,
        dropout: float = 0.0,
        activation: Activation = "gelu",
        *,
        invariant_only: bool = False,
    ) -> None:
        super().__init__()
        self.symmetry = symmetry
        self.fc1 = symmetry.linear(width, hidden)
        self.act = symmetry.activation(activation)
        self.drop = Dropout(dropout)
        self.fc2 = symmetry.linear(hidden, width, invariant_only=invariant_only)

    def forward(self, x: Any) -> Any:
        """`[..., C]` to the same shape."""
        return self.fc2(self.drop(self.symmetry.activated(self.fc1, self.act, x)))

    cost = free


class Attention(nn.Module):
    """Multi-head self-attention; the products are the same for every symmetry.

    With `rotary` positions it takes their tables (`Rotary`) beside its input.
    """

    impl: Impl = "auto"

    def __init__(
        self, symmetry: Symmetry, width: int, heads: int, *, fused: bool, rotary: bool = False
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} does not split into {heads} heads")
        symmetry.check_channels(width // heads, "channels a head")
        self.heads = heads
        self.fused = fused
        self.qkv = symmetry.linear(width, 3 * width)
        self.rotate = Rotate(symmetry, width // heads, heads) if rotary else None
        self.proj = symmetry.linear(width, width)

    def forward(self, x: Any, tables: tuple[Tensor, ...] = ()) -> Any:
        """`[B, N, C]` to the same shape."""
        impl = self.impl if self.fused else "unfused"
        qkv = self.qkv(x)
        if self.rotate is not None:
            qkv = self.rotate(qkv, tables)
        return self.proj(together(lambda parts: attention_parts(parts, self.heads, impl), qkv))

    def cost(self, shapes: Shapes) -> Cost:
        """q kᵀ and its product with v, whatever the symmetry: irreps lie side by side within a head."""
        batch, tokens, _ = shapes.inputs[0]
        channels = sum(shape[-1] for shape in shapes.outputs)
        product = batch * tokens * tokens * channels
        scores = batch * self.heads * tokens * tokens
        # A gradient of each factor of each product; a fused kernel computes the scores again before.
        backward = 4 * product + (product if self.fused else 0)
        operations = batch * tokens * channels + SOFTMAX * scores
        return Cost(mixing=2 * product, mixing_backward=backward, elementwise=operations)


class Network(nn.Module):
    """Shared by the families: tasks, the switch for gradient checkpointing, what weight decay leaves out."""

    grad_checkpointing = False
    task: Task
    """What it gives."""
    stride: int
    """Pixels per cell of the grid at its end, each way."""
    head: nn.Module

    def dense(self, images: Tensor) -> Any:
        """Images `[B, 3, H, W]` to what a task other than classification gives."""
        return self.head(self.pyramid(images), images.shape[-2:])

    def pyramid(self, images: Tensor) -> list[Any]:
        """Images `[B, 3, H, W]` to features `[B, h, w, C]` of grids, after their norms, the finest first."""
        raise NotImplementedError

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block's activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def run_block(self, block: nn.Module, *inputs: Any) -> Any:
        """One block, through a checkpoint where that is switched on and gradients are taken."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves out: learnt tokens and position embeddings.

        Vectors (norms, biases, layer scales) are left out by optimisers' usual rule of dimension.
        """
        return {name for name, _ in self.named_parameters() if name.startswith(("cls_token.", "pos_embed."))}


def mean_over_the_grid(network: Any, shapes: Shapes) -> Cost:
    """The form of a network whose own work is the mean in front of its head, over the invariant channels."""
    if not network.task.classifies:
        return Cost()
    batch, _, height, width = shapes.inputs[0]
    cells = (height // network.stride) * (width // network.stride)
    return Cost(elementwise=batch * cells * network.head.in_features)


def init_linear(module: nn.Module) -> None:
    """Truncated normal weights (σ = 0.02) and zero biases in every `nn.Linear`, as all families have them."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
