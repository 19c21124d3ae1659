"""The vision transformer of DeiT III, once for every symmetry.

Layer scale, class token, biased qkv, layer norm ε = 1e-6. Baseline: Touvron et al., *DeiT III*, 2022; with
rotary positions and registers, Siméoni et al., *DINOv3*, 2025 (arXiv:2508.10104).
Equivariant, hybrid and early-invariant versions: *Flopping for FLOPs*, sections 3 and 4, and *Octic Vision
Transformers*.
"""

from collections import Counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flopbench.cost import Cost, Shapes, free
from flopbench.errors import FlopbenchError
from flopbench.models.heads import make_head
from flopbench.models.layers import Attention, Mlp, Network, init_linear
from flopbench.models.tasks import TASKS, DecoderName, TaskName
from flopbench.private import compiled_alone
from flopbench.symmetries import Head, Symmetry, apart, each, schedule
from flopbench.symmetries.folding import Absorbs, Centres, Folded, FoldsBranches
from flopbench.symmetries.registry import NO_ROPE
from flopbench.symmetries.rotary import Rotary

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
        rotary: bool,
    ) -> None:
        super().__init__()
        self.norm1 = symmetry.layer_norm(width, eps)
        self.attn = Attention(symmetry, width, heads, fused=fused, rotary=rotary)
        self.residual1 = symmetry.residual(width, layer_scale=layer_scale, drop_path=drop_path)
        self.norm2 = symmetry.layer_norm(width, eps)
        self.mlp = Mlp(symmetry, width, 4 * width, dropout)
        self.residual2 = symmetry.residual(width, layer_scale=layer_scale, drop_path=drop_path)

    def forward(
        self,
        x: Any,
        tables: tuple[Tensor, ...] = (),
        normed: Any = None,
        following: nn.Module | None = None,
    ) -> Any:
        """`[B, N, C]` to the same shape; with the norm of the `following` block, to that and its norm.

        `tables` are those of rotary positions, where it has them, for one compilation of all blocks.
        `normed` is this block's own first norm of `x` where the block before could compute that along with
        its sum, else None; and so is what this one gives beside its own.
        """
        normed = self.norm1(x) if normed is None else normed
        x, normed = self.residual1(x, self.attn(normed, tables), self.norm2)
        return self.residual2(x, self.mlp(normed), following, ahead=True)

    cost = free


class VisionTransformer(Network, FoldsBranches):
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
        positions: "learnt", added to the patches' tokens, for images of one size; or "rope", rotations of
            queries and keys, for images of any size: sides that are multiples of `patch_size`.
        registers: learnt tokens beside the class token.
        eps: of layer norms.
        attention: "fused" scaled-dot-product attention, or "unfused" as in the paper's timings.
        layer_scale: initial value of the residual branches' scales.
        drop_path: rate of stochastic depth, the same for every block.
        dropout: rate in the MLPs.

    Raises:
        ValueError: channels that do not split into the symmetry's irreps and heads; no rotary positions; or
            fewer registers than none.
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
        positions: Literal["learnt", "rope"] = "learnt",
        registers: int = 0,
        eps: float = EPS,
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
        self.grid = grid = (image_size[0] // patch_size, image_size[1] // patch_size)
        if registers < 0:
            raise ValueError(f"registers must not be negative, got {registers}")
        self.others = 1 + registers
        rotary = positions == "rope"
        if rotary and plan.invariant and plan.switch < depth:
            raise ValueError(f"no rotary positions: {NO_ROPE}")
        self.patch_embed = stem.patch_embed(3, width, patch_size)
        self.pos_embed = nn.Identity() if rotary else stem.position_embedding(width, grid)
        self.cls_token = stem.class_token(width, self.others)
        self.switch = plan.switch
        self.join = plan.join(width, invariants)
        self.blocks = nn.ModuleList(
            Block(
                plan[index],
                width,
                heads,
                eps=plan.eps(index, eps),
                layer_scale=layer_scale,
                drop_path=drop_path,
                dropout=dropout,
                fused=attention == "fused",
                rotary=rotary,
            )
            for index in range(depth)
        )
        place = width // heads, grid, self.others
        self.rotary = Rotary(stem, *place) if rotary else None
        self.rotary_last = Rotary(last, *place) if rotary and plan.switch < depth else None
        self.norm = last.layer_norm(width, eps)
        self.first, self.last = plan.first, last
        self.head_kind: Head = head
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

    def states(self, images: Tensor) -> list[Any]:
        """Images `[B, 3, H, W]` to what each block gives, `[B, others + N, C]`."""
        states: list[Any] = []
        self.tokens(images, states)
        return states

    def grid_of(self, index: int, x: Any, images: Tensor, *, norm: bool) -> tuple[Any, Any]:
        """Patches on the grid, and the tokens before them; with `norm`, of the last symmetry."""
        if norm:
            x = self.norm(self.join(x) if index < self.switch else x)
        grid = self._grid(images)
        patches = each(lambda part: part[:, self.others :].unflatten(1, grid), x)
        return patches, each(lambda part: part[:, : self.others], x)

    @property
    def norms_grid(self) -> bool:
        """Its norm acts on every token."""
        return True

    def tokens(self, images: Tensor, states: list[Any] | None = None) -> Any:
        """Images `[B, 3, H, W]` to what the last block gives, `[B, others + N, C]`, the class token first.

        What each block gives is appended to `states`.

        Raises:
            FlopbenchError: it has no positions for images of that size.
        """
        self._grid(images)
        x = self.pos_embed(self.patch_embed(images))
        # What blocks are called with beside x: with learnt positions, nothing.
        turn = () if self.rotary is None else (self.rotary(x),)
        last = () if self.rotary_last is None else (self.rotary_last(x),)
        x = self.cls_token(each(lambda part: part.flatten(1, 2), x))
        normed = None
        for index, block in enumerate(self.blocks):
            if index == self.switch:
                x, turn = self.join(x), last
            following = self._following(index)
            if following is None and normed is None:
                x = self.run_block(block, x, *turn)
            else:
                x = block(x, *turn, normed=normed, following=following)
                x, normed = (x, None) if following is None else x
            if states is not None:
                states.append(x)
        return x

    def _grid(self, images: Tensor) -> tuple[int, int]:
        """The (rows, columns) of patches of images that it has positions for."""
        height, width = images.shape[-2:]
        grid = height // self.stride, width // self.stride
        if height % self.stride or width % self.stride:
            raise FlopbenchError(
                f"images of {height}×{width} pixels do not split into patches of {self.stride}: "
                f"give sides that are multiples of {self.stride}"
            )
        if self.rotary is None and grid != self.grid:
            own = "×".join(str(side * self.stride) for side in self.grid)
            raise FlopbenchError(
                f"images of {height}×{width} pixels: this network has learnt positions for {own} alone; "
                'build one for that size, or with positions="rope" for any'
            )
        return grid

    def pyramid(self, images: Tensor) -> list[Any]:
        """Images `[B, 3, H, W]` to the one grid that there is, `[B, H/P, W/P, C]`."""
        grid, x = self._grid(images), self.tokens(images)
        return [self.norm(each(lambda part: part[:, self.others :].unflatten(1, grid), x))]

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

    def fold_branches(self) -> None:
        """Move layer scales into the products before them, and the centring of norms of parts, too.

        Where nothing but such norms reads the sum of the branches, its parts may have mean 0: what enters the
        blocks is centred once, and branches add what has mean 0. A norm of parts then does no more than one
        of a tensor, and `states` have mean 0. Weights in half precision stay: they would be rounded twice.
        """
        stream = self._stream()
        if not stream or not all(_absorbs(*pair) for pair in stream):
            return
        norms = [self.norm, *(norm for block in self.blocks for norm in (block.norm1, block.norm2))]
        centring = [norm for norm in norms if isinstance(norm, Centres)]
        centre = len(centring) == len(norms) and isinstance(self.join, nn.Identity)
        for residual, branch in stream:
            residual.absorb(branch, centre=centre)
        if centre and not all(norm.centred for norm in centring):
            self.cls_token = nn.Sequential(self.cls_token, Folded(_centred))
            for norm in centring:
                norm.centred = True

    def _stream(self) -> list[tuple[Any, nn.Module]]:
        """Each residual sum with the last layer of its branch; none unless all is as it was built.

        So it is not where somebody put other modules in place of ours, uses one twice or looks into one.
        """
        ours = type(self) is VisionTransformer and all(type(block) is Block for block in self.blocks)
        if not ours or any(apart(type(module), module) for module in self.modules()):
            return []
        blocks: list[Any] = list(self.blocks)
        if any(type(block.attn) is not Attention or type(block.mlp) is not Mlp for block in blocks):
            return []
        if any(x.dtype not in (torch.float32, torch.float64) for x in self.parameters()):
            return []
        stream = [(block.residual1, block.attn.proj) for block in blocks]
        stream += [(block.residual2, block.mlp.fc2) for block in blocks]
        uses = Counter(id(module) for _, module in self.named_modules(remove_duplicate=False))
        within = [module for pair in stream for top in pair for module in top.modules()]
        return stream if all(uses[id(module)] == 1 for module in within) else []

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


def _absorbs(residual: nn.Module, branch: nn.Module) -> bool:
    return isinstance(residual, Absorbs) and residual.absorbs(branch)


def _centred(x: Any) -> Any:
    return each(lambda part: part - part.mean(dim=-1, keepdim=True), x)
