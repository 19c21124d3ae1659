"""The vision transformer of DeiT III, once for every symmetry.

Layer scale, class token, biased qkv, layer norm ε = 1e-6. Baseline: Touvron et al., *DeiT III*, 2022.
Equivariant, hybrid and early-invariant versions: *Flopping for FLOPs*, sections 3 and 4, and *Octic Vision
Transformers*.
"""

from typing import Any, Literal

from torch import Tensor, nn

from flopbench.cost import Cost, Shapes, free
from flopbench.models.heads import make_head
from flopbench.models.layers import Attention, Mlp, Network, init_linear
from flopbench.models.tasks import TASKS, DecoderName, TaskName
from flopbench.private import compiled_alone
from flopbench.symmetries import Head, Symmetry, apart, each, schedule

EPS = 1e-6


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and on a residual branch."""

    def __init__(
        self,
        symmetry: Symmetry,
        width: int,
        heads: int,
        *,
        eps: float,
        layer_scale: float,
        drop_path: float,
        dropout: float,
        fused: bool,
    ) -> None:
        super().__init__()
        self.norm1 = symmetry.layer_norm(width, eps)
        self.attn = Attention(symmetry, width, heads, fused=fused)
        self.residual1 = symmetry.residual(width, layer_scale=layer_scale, drop_path=drop_path)
        self.norm2 = symmetry.layer_norm(width, eps)
        self.mlp = Mlp(symmetry, width, 4 * width, dropout)
        self.residual2 = symmetry.residual(width, layer_scale=layer_scale, drop_path=drop_path)

    def forward(self, x: Any, normed: Any = None, following: nn.Module | None = None) -> Any:
        """`[B, N, C]` to the same shape; with the norm of the `following` block, to that and its norm.

        `normed` is this block's own first norm of `x` where the block before could compute that along with
        its sum, else None; and so is what this one gives beside its own.
        """
        normed = self.norm1(x) if normed is None else normed
        x, normed = self.residual1(x, self.attn(normed), self.norm2)
        return self.residual2(x, self.mlp(normed), following, ahead=True)

    cost = free


class VisionTransformer(Network):
    """A ViT; `symmetry` is the name of a version: plain, flop, hybrid, early_invariant, octic, ...

    Args:
        image_size: pixels (height, width), multiples of `patch_size`.
        num_classes: number of logits.
        task: what it gives, see `flopbench.models.tasks`.
        decoder: how a task of pixels comes to them.
        patch_size: P, in pixels.
        width: C, the channels of a token.
        depth: number of blocks.
        heads: attention heads, C/heads channels each.
        symmetry: which version of the network.
        head: what the classifier sees of an equivariant network: the "invariant" channels, or with "absolute"
            the absolute values of the others beside them.
        invariants: which of them a version has that becomes invariant before its end, where its symmetry has
            several; None for the usual ones.
        attention: "fused" scaled-dot-product attention, or "unfused" as in the paper's timings.
        layer_scale: initial value of the residual branches' scales.
        drop_path: rate of stochastic depth, the same for every block.
        dropout: rate in the MLPs.

    Raises:
        ValueError: channels that do not split into the symmetry's irreps and heads.
    """

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        num_classes: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        symmetry: str = "plain",
        task: TaskName = "classification",
        decoder: DecoderName = "linear",
        head: Head = "invariant",
        invariants: str | None = None,
        attention: Literal["fused", "unfused"] = "fused",
        layer_scale: float = 1e-4,
        drop_path: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.task = TASKS[task]
        plan = schedule(symmetry, depth, on_grid=not self.task.classifies)
        stem, last = plan.first, plan.last
        self.stride = patch_size
        grid = (image_size[0] // patch_size, image_size[1] // patch_size)
        self.patch_embed = stem.patch_embed(3, width, patch_size)
        self.pos_embed = stem.position_embedding(width, grid)
        self.cls_token = stem.class_token(width)
        self.switch = plan.switch
        self.join = plan.join(width, invariants)
        self.blocks = nn.ModuleList(
            Block(
                plan[index],
                width,
                heads,
                eps=plan.eps(index, EPS),
                layer_scale=layer_scale,
                drop_path=drop_path,
                dropout=dropout,
                fused=attention == "fused",
            )
            for index in range(depth)
        )
        self.norm = last.layer_norm(width, EPS)
        self.first, self.last = plan.first, last
        self.head_kind: Head = head
        self.grid = grid
        self.head = (
            nn.Linear(last.invariant_width(width, head), num_classes)
            if self.task.classifies
            else make_head(
                self.task,
                decoder,
                last,
                [width],
                num_classes,
                head,
                stride=patch_size,
                invariant=plan.invariant,
            )
        )
        init_linear(self)

    def tokens(self, images: Tensor) -> Any:
        """Images `[B, 3, H, W]` to what the last block gives, `[B, 1 + N, C]`, the class token first."""
        x = self.pos_embed(self.patch_embed(images))
        x = self.cls_token(each(lambda part: part.flatten(1, 2), x))
        normed = None
        for index, block in enumerate(self.blocks):
            if index == self.switch:
                x = self.join(x)
            following = self._following(index)
            if following is None and normed is None:
                x = self.run_block(block, x)
            else:
                x = block(x, normed, following)
                x, normed = (x, None) if following is None else x
        return x

    def pyramid(self, images: Tensor) -> list[Any]:
        """Images `[B, 3, H, W]` to the one grid that there is, `[B, H/P, W/P, C]`."""
        return [self.norm(each(lambda part: part[:, 1:].unflatten(1, self.grid), self.tokens(images)))]

    def forward(self, images: Tensor) -> Any:
        """Images `[B, 3, H, W]` to what the task gives: logits `[B, num_classes]` of a classification."""
        if not self.task.classifies:
            return self.dense(images)
        x = self.tokens(images)
        # What follows acts on each token alone and the head sees one token: take that token first.
        token = each(lambda part: part[:, 0], x)
        if self.switch == len(self.blocks):
            token = self.join(token)
        token = self.norm(token)
        return self.head(self.last.invariants(token, self.head_kind))

    def _following(self, index: int) -> nn.Module | None:
        """The norm that block `index` takes along for the next one, where one kernel adds and normalises.

        None where there is no next block or another symmetry's, and where blocks have to be called with `x`
        alone: they have hooks, are recomputed, or are compiled by themselves, all alike as one.
        """
        if self.grad_checkpointing or index + 1 in (self.switch, len(self.blocks)):
            return None
        pair = self.blocks[index], self.blocks[index + 1]
        if apart(Block, *pair) or any(map(compiled_alone, pair)):
            return None
        return pair[1].get_submodule("norm1")

    def cost(self, shapes: Shapes) -> Cost:
        """Nothing of its own; where it ends with `join`, published networks have that on every token."""
        if self.switch < len(self.blocks):
            return Cost()
        batch, _, height, width = shapes.inputs[0]
        others = (height // self.stride) * (width // self.stride)
        return Cost(published=batch * others * sum(p.numel() for p in self.join.parameters() if p.ndim > 1))
