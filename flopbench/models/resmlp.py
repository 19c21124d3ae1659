"""ResMLP, once for every symmetry.

Baseline: Touvron et al., *ResMLP*, 2021. Equivariant version: *Flopping for FLOPs*; there the tokens are
taken to the two irreps as well, so that the layers that mix tokens cost half too.
"""

from typing import Any

from torch import Tensor, nn

from flopbench.cost import free
from flopbench.errors import FlopbenchError
from flopbench.models.heads import make_head
from flopbench.models.layers import Mlp, Network, init_linear, mean_over_the_grid
from flopbench.models.tasks import TASKS, DecoderName, TaskName
from flopbench.symmetries import PLAIN, Activation, Head, Symmetry, parts_of, schedule


class Block(nn.Module):
    """A linear map of the tokens and an MLP, each after an affine map and on a residual branch."""

    def __init__(
        self,
        symmetry: Symmetry,
        width: int,
        grid: tuple[int, int],
        *,
        layer_scale: float,
        drop_path: float,
        dropout: float,
        activation: Activation,
        invariant_only: bool,
    ) -> None:
        super().__init__()
        self.norm1 = symmetry.affine(width)
        self.mix = symmetry.token_linear(grid)
        self.residual1 = symmetry.residual(width, layer_scale=layer_scale, drop_path=drop_path)
        self.norm2 = symmetry.affine(width)
        self.mlp = Mlp(symmetry, width, 4 * width, dropout, activation, invariant_only=invariant_only)
        self.residual2 = symmetry.residual(width, layer_scale=layer_scale, drop_path=drop_path)

    def forward(self, x: Any) -> Any:
        """`[B, N, C]` to the same shape."""
        x = self.residual1(x, self.mix(self.norm1(x)))
        return self.residual2(x, self.mlp(self.norm2(x)))

    cost = free


class ResMLP(Network):
    """A ResMLP; `symmetry` is the name of a version: plain, flop, hybrid, ...

    Args:
        image_size: pixels (height, width), multiples of `patch_size`.
        num_classes: number of logits.
        task: what it gives, see `flopbench.models.tasks`.
        decoder: how a task of pixels comes to them.
        patch_size: P, in pixels.
        width: C, the channels of a token.
        depth: number of blocks.
        symmetry: which version of the network.
        head: what the classifier sees of an equivariant network: "invariant" the tokens ss and aa,
            "absolute" |as| and |sa| beside them.
        layer_scale: initial value of the residual branches' scales.
        drop_path: rate of stochastic depth, the same for every block.
        dropout: rate in the MLPs.
        activation: "gelu", or "quick_gelu" with which the paper's E(ResMLP) was trained.

    Raises:
        ValueError: channels that do not split into the symmetry's irreps; or a version without a grid at its
            end, and a task that asks for it.
    """

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        num_classes: int,
        patch_size: int,
        width: int,
        depth: int,
        symmetry: str = "plain",
        task: TaskName = "classification",
        decoder: DecoderName = "linear",
        head: Head = "invariant",
        layer_scale: float = 1e-4,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.task = TASKS[task]
        self.stride = patch_size
        self.grid = grid = (image_size[0] // patch_size, image_size[1] // patch_size)
        images = schedule(symmetry, depth, on_grid=not self.task.classifies)
        if images.invariant and not self.task.classifies:
            raise ValueError(
                f"an early-invariant ResMLP has no {task}: its tokens are those of irreps, on no grid; "
                f"take an equivariant version"
            )
        plan = images.with_tokens(grid)
        self.patch_embed = images.first.patch_embed(3, width, patch_size, normalise=False)
        self.split_tokens = plan.first.split_tokens()
        self.switch = plan.switch
        self.join = plan.join(width)
        self.blocks = nn.ModuleList(
            Block(
                plan[index],
                width,
                grid,
                layer_scale=layer_scale,
                drop_path=drop_path,
                dropout=dropout,
                activation=activation,
                invariant_only=head == "invariant" and index == depth - 1 and self.task.classifies,
            )
            for index in range(depth)
        )
        self.first, self.last, self.invariant = plan.first, plan.last, plan.invariant
        self.head_kind: Head = head
        if self.task.classifies:
            features = plan.last.invariant_width(width, head)
            self.norm = PLAIN.affine(features)
            self.head = nn.Linear(features, num_classes)
        else:
            self.norm = plan.last.affine(width)
            self.join_tokens = plan.last.join_tokens(grid)
            self.head = make_head(
                self.task, decoder, images.last, [width], num_classes, head, stride=patch_size
            )
        init_linear(self)

    def states(self, images: Tensor) -> list[Any]:
        """Images `[B, 3, H, W]` to what each block gives, `[B, N, C]`."""
        states: list[Any] = []
        self.tokens(images, states)
        return states

    def grid_of(self, index: int, x: Any, images: Tensor, *, norm: bool) -> tuple[Any, Any]:
        """Tokens on the grid; none beside them."""
        early, plain = index < self.switch, self.first is self.last
        if self.invariant and not early:
            raise FlopbenchError(
                f"block {index} of an early-invariant ResMLP has tokens of irreps, on no grid: "
                f"take indices below {self.switch}"
            )
        if any(part is None for part in parts_of(x)):
            raise FlopbenchError(
                f"block {index} of a classifier gives its invariants alone: build the network with "
                f"task='features'"
            )
        if norm:
            if not self.norms_grid:
                raise FlopbenchError("a classifier's norm acts on invariants alone: give norm=False")
            x = self.norm(x if plain or not early else self.join(x))
            early = False
        return (self.first if early else self.last).join_tokens(self.grid)(x), None

    @property
    def norms_grid(self) -> bool:
        """Of a classifier, only where all channels are invariant."""
        return super().norms_grid or self.last.divisor == 1

    def tokens(self, images: Tensor, states: list[Any] | None = None) -> Any:
        """Images `[B, 3, H, W]` to what the last block gives, `[B, N, C]`.

        What each block gives is appended to `states`.
        """
        x = self.split_tokens(self.patch_embed(images))
        for index, block in enumerate(self.blocks):
            if index == self.switch:
                x = self.join(x)
            x = self.run_block(block, x)
            if states is not None:
                states.append(x)
        return x

    def pyramid(self, images: Tensor) -> list[Any]:
        """Images `[B, 3, H, W]` to the one grid that there is, `[B, H/P, W/P, C]`."""
        return [self.join_tokens(self.norm(self.tokens(images)))]

    def forward(self, images: Tensor) -> Any:
        """Images `[B, 3, H, W]` to what the task gives: logits `[B, num_classes]` of a classification."""
        if not self.task.classifies:
            return self.dense(images)
        x = self.tokens(images)
        # The mean of an affine map is the affine map of the mean: of N tokens one is left to scale.
        return self.head(self.norm(self.last.pooled(x, self.head_kind)))

    cost = mean_over_the_grid
