"""What the families share, written for any symmetry."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flopbench.cost import SOFTMAX, Cost, Shapes, free
from flopbench.errors import FlopbenchError
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
        symmetry.check_channels(width // heads, "channels per head")
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

    def states(self, images: Tensor) -> list[Any]:
        """Images `[B, 3, H, W]` to what each block gives, or each stage."""
        raise NotImplementedError

    def grid_of(self, index: int, x: Any, images: Tensor, *, norm: bool) -> tuple[Any, Any]:
        """What state `index` is on the grid, and of tokens that lie on none; after the `norm` at the end."""
        raise NotImplementedError

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        intermediates_only: bool = False,
    ) -> Any:
        """Features of chosen blocks, of a ConvNeXt of stages, in timm's names; all are channels last.

        Args:
            images: `[B, 3, H, W]`.
            indices: so many of the last, or these, of which negative ones count from the end; None for all.
            return_prefix_tokens: pairs with the tokens before the grid's, `[B, 1 or more, C]`.
            norm: after the network's norm, and whatever it has before that; a ConvNeXt's are as they are.
            intermediates_only: without the last one.

        Returns:
            Features of each block's symmetry `[B, h, w, C]` in the network's order; unless
            `intermediates_only`, the last block's, normed where there is a norm of the grid, and those.

        Raises:
            FlopbenchError: an index that there is not, a norm that acts on invariants alone, or tokens that
                lie on no grid.
        """
        states = self.states(images)
        taken = _taken(indices, len(states))
        pairs = [
            self.grid_of(index, x, images, norm=norm) for index, x in enumerate(states) if index in taken
        ]
        prefixed = return_prefix_tokens and all(prefix is not None for _, prefix in pairs)
        found = pairs if prefixed else [x for x, _ in pairs]
        if intermediates_only:
            return found
        last = len(states) - 1
        return self.grid_of(last, states[last], images, norm=norm or self.norms_grid)[0], found

    @property
    def norms_grid(self) -> bool:
        """Whether its norm acts on features of the grid, not on a classifier's invariants alone."""
        return not self.task.classifies

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


def _taken(indices: int | Sequence[int] | None, count: int) -> set[int]:
    """Which of so many blocks `indices` says, as timm reads it.

    Raises:
        FlopbenchError: there are not so many, or they are no whole numbers.
    """
    if isinstance(indices, int):
        if not 0 < indices <= count:
            raise FlopbenchError(f"indices={indices} is out of range: take the last 1 to {count}")
        return set(range(count - indices, count))
    chosen = range(count) if indices is None else indices
    if not isinstance(chosen, Sequence) or not all(isinstance(index, int) for index in chosen):
        raise FlopbenchError(f"indices must be a number of blocks, or a list of some, got {indices!r}")
    for index in chosen:
        if not -count <= index < count:
            raise FlopbenchError(f"index {index} is out of range: take from {-count} to {count - 1}")
    return {index % count for index in chosen}


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
