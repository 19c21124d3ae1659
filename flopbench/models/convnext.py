"""ConvNeXt, hierarchical and isotropic, once for every symmetry.

Baseline: Liu et al., *A ConvNet for the 2020s*, 2022. Equivariant version: *Flopping for FLOPs*.
Features are channels last throughout, [B, H, W, C]; convolutions get a view of them.
"""

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from flopbench.cost import free
from flopbench.models.heads import make_head
from flopbench.models.layers import Mlp, Network, init_linear, mean_over_the_grid
from flopbench.models.tasks import TASKS, DecoderName, TaskName
from flopbench.symmetries import Head, MemoryFormat, Symmetry, schedule

EPS = 1e-6
KERNEL_SIZE = 7


class Block(nn.Module):
    """Depthwise convolution, layer norm and MLP on a residual branch."""

    def __init__(
        self,
        symmetry: Symmetry,
        width: int,
        *,
        layer_scale: float | None,
        drop_path: float,
        memory_format: MemoryFormat,
        invariant_only: bool,
    ) -> None:
        super().__init__()
        self.dwconv = symmetry.depthwise(width, KERNEL_SIZE, memory_format)
        self.norm = symmetry.layer_norm(width, EPS)
        self.mlp = Mlp(symmetry, width, 4 * width, invariant_only=invariant_only)
        self.residual = symmetry.residual(width, layer_scale=layer_scale, drop_path=drop_path)

    def forward(self, x: Any) -> Any:
        """`[B, H, W, C]` to the same shape."""
        return self.residual(x, self.mlp(self.norm(self.dwconv(x))))

    cost = free


class Downsample(nn.Module):
    """Layer norm, then a 2×2 convolution of stride 2."""

    def __init__(self, symmetry: Symmetry, width: int, out_width: int) -> None:
        super().__init__()
        self.norm = symmetry.layer_norm(width, EPS)
        self.conv = symmetry.downsample(width, out_width)

    def forward(self, x: Any) -> Any:
        """`[B, H, W, C]` to `[B, H/2, W/2, C']`."""
        return self.conv(self.norm(x))

    cost = free


class Stage(nn.Module):
    """Blocks of one width, after the downsampling that opens the stage.

    In a hybrid network one stage holds the change of basis, before its block `switch`.
    """

    def __init__(self, downsample: nn.Module, blocks: Iterable[Block], switch: int, join: nn.Module) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.switch = switch
        self.join = join

    def forward(self, x: Any, run_block: Callable[[nn.Module, Any], Any]) -> Any:
        """`[B, H, W, C]` to `[B, H/2, W/2, C']`, or to the same shape in the first stage."""
        if self.switch == 0:
            x = self.join(x)
        x = self.downsample(x)
        for index, block in enumerate(self.blocks):
            if index and index == self.switch:
                x = self.join(x)
            x = run_block(block, x)
        return x

    cost = free


class ConvNeXt(Network):
    """A ConvNeXt; `symmetry` is the name of a version: plain, flop, hybrid, ...

    One stage makes it isotropic, which has no norm after the patch embedding. In a hybrid network the
    downsampling that opens a stage has the symmetry of that stage's first block.

    Args:
        image_size: pixels (height, width), multiples of `patch_size` · 2^(stages − 1).
        num_classes: number of logits.
        task: what it gives, see `flopbench.models.tasks`.
        decoder: how a task of pixels comes to them.
        patch_size: P, in pixels.
        widths: C of each stage.
        depths: number of blocks of each stage.
        symmetry: which version of the network.
        head: what the classifier sees of an equivariant network: "invariant" s, "absolute" [s, |a|].
        layer_scale: initial value of the residual branches' scales; None for none.
        drop_path: rate of stochastic depth of the last block; it grows linearly from 0 in the first.
        memory_format: layout in which the depthwise convolutions run: "channels_last", that of the
            features, or "contiguous" [B, C, H, W], to and from which each of them copies.

    Raises:
        ValueError: channels that do not split into the symmetry's irreps, or a version that cannot be.
    """

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        num_classes: int,
        patch_size: int,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
        symmetry: str = "plain",
        task: TaskName = "classification",
        decoder: DecoderName = "linear",
        head: Head = "invariant",
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        memory_format: MemoryFormat = "channels_last",
    ) -> None:
        super().__init__()
        depth = sum(depths)
        self.stride = patch_size * 2 ** (len(widths) - 1)
        self.task = TASKS[task]
        plan = schedule(symmetry, depth, on_grid=not self.task.classifies)
        if plan.invariant and plan.switch < depth:
            raise ValueError("a ConvNeXt has no early-invariant version: its grid still moves with the image")
        self.patch_embed = plan.first.patch_embed(3, widths[0], patch_size)
        self.norm_embed = plan.first.layer_norm(widths[0], EPS) if widths[1:] else nn.Identity()
        self.stages = nn.ModuleList()
        first = 0
        for stage, (width, count) in enumerate(zip(widths, depths, strict=True)):
            blocks = (
                Block(
                    plan[index],
                    width,
                    layer_scale=layer_scale,
                    drop_path=drop_path * index / max(1, depth - 1),
                    memory_format=memory_format,
                    invariant_only=head == "invariant" and index == depth - 1 and self.task.classifies,
                )
                for index in range(first, first + count)
            )
            downsample = Downsample(plan[first], widths[stage - 1], width) if stage else nn.Identity()
            here = 0 <= plan.switch - first < count
            join = plan.join(width) if here else nn.Identity()
            self.stages.append(Stage(downsample, blocks, plan.switch - first, join))
            first += count
        self.first, self.last = plan.first, plan.last
        self.head_kind: Head = head
        # Of the grids of the other stages, where the head takes them in; each ends in the last symmetry.
        self.norms = nn.ModuleList()
        if self.task.classifies:
            features = plan.last.invariant_width(widths[-1], head)
            self.norm = nn.LayerNorm(features, eps=EPS)
            self.head = nn.Linear(features, num_classes)
        else:
            self.norm = plan.last.layer_norm(widths[-1], EPS)
            finer = widths[:-1] if decoder == "conv" and self.task.decodes else ()
            for width, last in zip(finer, accumulate(depths), strict=False):
                norm, joined = plan[last - 1].layer_norm(width, EPS), last <= plan.switch
                self.norms.append(nn.Sequential(norm, plan.join(width)) if joined else norm)
            self.head = make_head(
                self.task,
                decoder,
                plan.last,
                [*finer, widths[-1]],
                num_classes,
                head,
                stride=patch_size if finer else self.stride,
            )
        init_linear(self)
        # Here the patch embedding is initialised as the other convolutions are.
        for parameter in self.patch_embed.parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            else:
                nn.init.zeros_(parameter)

    def states(self, images: Tensor) -> list[Any]:
        """Images `[B, 3, H, W]` to what each stage gives."""
        return self.grids(images)

    def grid_of(self, index: int, x: Any, images: Tensor, *, norm: bool) -> tuple[Any, Any]:
        """As it is, for no stage but the last has a norm; no tokens beside it."""
        return x, None

    def grids(self, images: Tensor) -> list[Any]:
        """Images `[B, 3, H, W]` to what each stage gives, `[B, h, w, C]`."""
        x, found = self.norm_embed(self.patch_embed(images)), []
        for stage in self.stages:
            x = stage(x, self.run_block)
            found.append(x)
        return found

    def pyramid(self, images: Tensor) -> list[Any]:
        """Images `[B, 3, H, W]` to features of the grids that the head takes in, `[B, h, w, C]`."""
        *finer, last = self.grids(images)
        return [*(norm(x) for norm, x in zip(self.norms, finer, strict=False)), self.norm(last)]

    def forward(self, images: Tensor) -> Any:
        """Images `[B, 3, H, W]` to what the task gives: logits `[B, num_classes]` of a classification."""
        if not self.task.classifies:
            return self.dense(images)
        return self.head(self.norm(self.last.pooled(self.grids(images)[-1], self.head_kind)))

    cost = mean_over_the_grid
