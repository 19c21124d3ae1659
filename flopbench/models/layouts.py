"""What others call our parameters: the layouts of the authors' released state dicts and of timm's.

A layout renames the paths of modules and, by the type of a module, its parameters. Most tensors are
the same but for dimensions of size 1; the few that are composed of several name them all.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from flopbench.models.layers import Attention
from flopbench.symmetries import flop, flop_tokens, irreps, octic, plain

Shape = tuple[int, ...]
Names = str | tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """How one family's modules are called elsewhere.

    Attributes:
        paths: pairs of a regular expression and its replacement, applied to a module's path in order.
        parameters: by type of module, our parameter's name to theirs; "" is the module's own path.
            Types that are not listed keep their names.
    """

    paths: tuple[tuple[str, str], ...]
    parameters: dict[type[nn.Module], dict[str, Names]]


@dataclass(frozen=True)
class Source:
    """The entries of a state dict that make one of our parameters, with their shapes."""

    keys: tuple[str, ...]
    shapes: tuple[Shape, ...]
    compose: Callable[..., Tensor]


_FLOP = {"s": "sym", "a": "asym"}
_OCTIC = {"a1": "A1", "a2": "A2", "b1": "B1", "b2": "B2", "e": "E"}
_IRREPS = {**_FLOP, **_OCTIC}


def _by_irrep(names: dict[str, str], irreps: dict[str, str] = _IRREPS) -> dict[str, Names]:
    """Our names to theirs; `{}` stands for an irrep as we call it, and for the same as they do."""
    return {
        ours.format(irrep): theirs.format(called)
        for ours, theirs in names.items()
        for irrep, called in irreps.items()
    }


def _linear(name: str, irreps: dict[str, str] = _IRREPS) -> dict[str, Names]:
    return _by_irrep({"{}.weight": f"{name}_{{}}.weight", "{}.bias": f"{name}_{{}}.bias"}, irreps)


_RELEASED: dict[type[nn.Module], dict[str, Names]] = {
    plain.PositionEmbedding: {"weight": ""},
    plain.ClassToken: {"weight": ""},
    plain.Residual: {"gamma": ""},
    plain.Affine: {"weight": "alpha", "bias": "beta"},
    irreps.IrrepClassToken: {"weight_s": "0", "weight_a1": "0"},
    irreps.IrrepLinear: {**_linear("linear", _FLOP), **_linear("lin", _OCTIC)},
    irreps.IrrepLayerNorm: _by_irrep({"weight_{}": "scaling.alpha_{}", "bias": "scaling.beta"}),
    irreps.IrrepResidual: _by_irrep({"gamma_{}": "alpha_{}"}),
    flop.FlopPatchEmbed: _by_irrep({"weight_{}": "proj_{}.weight", "bias": "proj_sym.bias"}),
    flop.FlopPositionEmbedding: {"weight_s": "0", "weight_a": "1"},
    flop.FlopDepthwise: {
        "weight_ss": "sym_to_sym.weight",
        "weight_as": "asym_to_sym.weight",
        "weight_sa": "sym_to_asym.weight",
        "weight_aa": "asym_to_asym.weight",
        "bias": ("sym_to_sym.bias", "asym_to_sym.bias"),
    },
    flop.FlopDownsample: {
        "weight_s": ("sym_to_sym.weight", "asym_to_sym.weight"),
        "weight_a": ("asym_to_asym.weight", "sym_to_asym.weight"),
        "bias": "sym_to_sym.bias",
    },
    flop_tokens.FlopTokensMixing: _linear("lin"),
    flop_tokens.FlopTokensAffine: _by_irrep({"weight_{}": "alpha_{}", "bias_{}": "beta_{}"}),
    octic.OcticPatchEmbed: {
        **_by_irrep({"weight_{}": "lift8.conv_{}.weight", "bias": "lift8.conv_A1.bias"}),
        "weight_e": ("lift8.conv_E_left.weight", "lift8.conv_E_right.weight"),
    },
    octic.OcticPositionEmbedding: {
        "weight_a1": "0",
        "weight_a2": "1",
        "weight_b1": "2",
        "weight_b2": "3",
        "weight_e": ("4", "5"),
    },
    octic.OcticInvariantise: {"proj.weight": "weight", "proj.bias": "bias"},
}

_BLOCKS = ((r"\.residual(\d)$", r".gamma_\1"), (r"\.residual$", ".gamma"), (r"\.mix$", ".attn"))
_CONVOLUTIONS = ((r"\.mlp\.fc(\d)$", r".pwconv\1"), (r"^patch_embed(\.proj)?$", "stem"))

RELEASED: dict[str, Layout] = {
    "vit": Layout((*_BLOCKS, (r"^join$", "invariant_proj")), _RELEASED),
    "resmlp": Layout(_BLOCKS, {**_RELEASED, irreps.IrrepLinear: _linear("lin")}),
    "convnext_iso": Layout((*_BLOCKS, *_CONVOLUTIONS, (r"^stages\.0\.", "")), _RELEASED),
    "convnext": Layout(
        (
            *_BLOCKS,
            *_CONVOLUTIONS,
            (r"^stem$", "downsample_layers.0.0"),
            (r"^norm_embed$", "downsample_layers.0.1"),
            (r"^stages\.(\d+)\.downsample\.norm$", r"downsample_layers.\1.0"),
            (r"^stages\.(\d+)\.downsample\.conv$", r"downsample_layers.\1.1"),
            (r"\.blocks\.", "."),
        ),
        _RELEASED,
    ),
}

_TIMM: dict[type[nn.Module], dict[str, Names]] = {
    plain.PositionEmbedding: {"weight": ""},
    plain.ClassToken: {"weight": ""},
    plain.Affine: {"weight": "alpha", "bias": "beta"},
}


def _rotary(attention: dict[str, Names]) -> Layout:
    """timm's layout of rotary networks with registers, by what it calls the parameters of attention."""
    own: dict[type[nn.Module], dict[str, Names]] = {
        plain.ClassToken: {"weight": ("cls_token", "reg_token")},
        plain.Residual: {"gamma": ""},
        Attention: attention,
    }
    return Layout(((r"\.residual(\d)$", r".gamma_\1"), (r"^cls_token$", "")), own)


TIMM: dict[str, Layout] = {
    "vit": Layout(((r"\.residual(\d)$", r".ls\1"),), _TIMM),
    # Networks like DINOv3: a bias of the keys is zero there, and others may be.
    "vit_rope": _rotary({"qkv.bias": ("q_bias", "v_bias")}),
    "vit_rope_unbiased": _rotary({"qkv.bias": ()}),
    "resmlp": Layout(
        (
            (r"\.residual(\d)$", r".ls\1"),
            (r"\.mix$", ".linear_tokens"),
            (r"\.mlp\.", ".mlp_channels."),
            (r"^patch_embed\.", "stem."),
        ),
        {**_TIMM, plain.Residual: {"gamma": ""}},
    ),
    "convnext": Layout(
        (
            (r"\.residual$", ""),
            (r"\.dwconv$", ".conv_dw"),
            (r"^patch_embed\.proj$", "stem.0"),
            (r"^norm_embed$", "stem.1"),
            (r"\.downsample\.norm$", ".downsample.0"),
            (r"\.downsample\.conv$", ".downsample.1"),
            (r"^norm$", "head.norm"),
            (r"^head$", "head.fc"),
        ),
        _TIMM,
    ),
}


def sources(model: nn.Module, layout: Layout) -> Iterator[tuple[nn.Parameter, Source]]:
    """Each parameter of `model` with the entries of a foreign state dict that it is made of."""
    for path, module, name, parameter in _leaves(model, "", layout):
        for pattern, replacement in layout.paths:
            path = re.sub(pattern, replacement, path)
        theirs = layout.parameters.get(type(module), {}).get(name, name)
        leaves = (theirs,) if isinstance(theirs, str) else theirs
        keys = tuple(".".join(part for part in (path, leaf) if part) for leaf in leaves)
        yield parameter, _source(type(module), keys, parameter.shape)


def _leaves(
    module: nn.Module, path: str, layout: Layout
) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Path, module and parameter's name, down to the modules that the layout knows by type."""
    known = type(module) in layout.parameters
    for name, parameter in module.named_parameters(recurse=known):
        yield path, module, name, parameter
    if not known:
        for name, child in module.named_children():
            yield from _leaves(child, f"{path}.{name}" if path else name, layout)


def _source(kind: type[nn.Module], keys: tuple[str, ...], shape: torch.Size) -> Source:
    if kind is flop.FlopPositionEmbedding:
        # Tokens of the left half, row-major.
        return Source(keys, ((1, shape[1] * shape[2], shape[3]),), lambda tokens: tokens.reshape(shape))
    if kind is plain.ClassToken and len(keys) == 2:
        count, width = shape[1:]
        return Source(keys, ((1, 1, width), (1, count - 1, width)), lambda *both: torch.cat(both, dim=1))
    if kind is Attention and len(keys) != 1:
        third = shape[0] // 3
        return Source(keys, ((third,),) * len(keys), partial(_of_queries_and_values, torch.zeros(third)))
    if len(keys) == 1:
        return Source(keys, (tuple(shape),), lambda tensor: tensor)
    if kind is not flop.FlopDownsample:
        # Biases of the two convolutions that land in s; the two copies of an irrep.
        dim = -1 if kind is octic.OcticPositionEmbedding else 0
        half = list(shape)
        half[dim] //= 2
        return Source(keys, (tuple(half),) * 2, lambda *halves: torch.cat(halves, dim))
    # Downsampling: left columns [out, in/2, row, 1] of two kernels make [out, row, in].
    column = (shape[0], shape[2] // 2, shape[1], 1)
    return Source(keys, (column,) * 2, _rows_of_both)


def _of_queries_and_values(keys: Tensor, *biases: Tensor) -> Tensor:
    queries, values = biases or (keys, keys)
    return torch.cat([queries, keys.to(queries), values])


def _rows_of_both(one: Tensor, two: Tensor) -> Tensor:
    return torch.cat([one.squeeze(-1).transpose(1, 2), two.squeeze(-1).transpose(1, 2)], dim=-1)
