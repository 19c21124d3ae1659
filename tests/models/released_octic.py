"""What octic networks of their authors compute: how weights are drawn, and the logits of those weights.

The logits are those of `OcticVisionTransformer` of davnords/octic-vits at 7f066f2 in fp64, of D8 those of its
DINOv2 form with a linear head on the class token. Weights are uniform, and so the same bits everywhere.
"""

from dataclasses import dataclass

import torch

State = dict[str, torch.Tensor]

IRREPS = ("A1", "A2", "B1", "B2", "E")
INVARIANTS = {"linear": 1, "power_spectrum": 6, "third_order": 15, "polynomial": 32}
"""How many eighths of the width the invariants have."""


@dataclass(frozen=True)
class Case:
    """A network, and its logits `[2, classes]` of the two images of `images(case)`.

    Attributes:
        octic: how many of the blocks are octic, the first ones.
        invariants: what joins (or ends) the octic blocks; None for a concatenation, H8.
    """

    width: int
    depth: int
    heads: int
    patch_size: int
    image_size: int
    classes: int
    octic: int
    invariants: str | None
    logits: tuple[tuple[float, ...], ...]


def state(case: Case, seed: int = 0) -> State:
    """A state dict of fp32 weights with the authors' names, none of them near its initial value."""
    generator = torch.Generator().manual_seed(seed)
    weights: State = {}
    for key, shape in shapes(case).items():
        scale = 0.5 if len(shape) < 2 or shape[0] == 1 else torch.Size(shape[1:]).numel() ** -0.5
        drawn = torch.rand(shape, generator=generator) - 0.5
        weights[key] = drawn * (12**0.5 * scale)
        if "alpha" in key or key.endswith(("norm1.weight", "norm2.weight", "norm.weight")):
            weights[key] += 1
        if key.startswith("cls_token.") and key != "cls_token.0":
            weights[key].zero_()
    return weights


def images(case: Case, seed: int = 1) -> torch.Tensor:
    """Two images in fp32, of mean 0.1."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.rand(2, 3, case.image_size, case.image_size, generator=generator) - 1.4


def shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """The entries of a file of DeiT III: section 9 of the specification."""
    C, c, n = case.width, case.width // 8, case.patch_size // 2
    grid = case.image_size // case.patch_size
    found: dict[str, tuple[int, ...]] = {}
    for kernel in ("A1", "A2", "B1", "B2", "E_left", "E_right"):
        found[f"patch_embed.lift8.conv_{kernel}.weight"] = (c, 3, n, n)
    found["patch_embed.lift8.conv_A1.bias"] = (c,)
    found |= {f"cls_token.{irrep}": (1, 1, c) for irrep in range(4)} | {"cls_token.4": (1, 1, 2, 2 * c)}
    found |= {f"pos_embed.{part}": (grid // 2, grid // 2, c) for part in range(6)}
    if case.invariants is not None:
        found |= _linear("invariant_proj", INVARIANTS[case.invariants] * c, C)
    for index in range(case.depth):
        octic, at = index < case.octic, f"blocks.{index}"
        for norm in ("norm1", "norm2"):
            if octic:
                found |= _vectors(f"{at}.{norm}.scaling", c) | {f"{at}.{norm}.scaling.beta": (c,)}
            else:
                found |= {f"{at}.{norm}.weight": (C,), f"{at}.{norm}.bias": (C,)}
        for name, (inputs, outputs) in {
            "attn.qkv": (C, 3 * C),
            "attn.proj": (C, C),
            "mlp.fc1": (C, 4 * C),
            "mlp.fc2": (4 * C, C),
        }.items():
            found |= (_octic_linear if octic else _linear)(f"{at}.{name}", inputs, outputs)
        for gamma in ("gamma_1", "gamma_2"):
            found |= _vectors(f"{at}.{gamma}", c) if octic else {f"{at}.{gamma}": (C,)}
    return found | {"norm.weight": (C,), "norm.bias": (C,)} | _linear("head", C, case.classes)


def _linear(at: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{at}.weight": (outputs, inputs), f"{at}.bias": (outputs,)}


def _octic_linear(at: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {f"{at}.lin_A1.bias": (outputs // 8,)}
    for irrep in IRREPS:
        part = 4 if irrep == "E" else 8
        found[f"{at}.lin_{irrep}.weight"] = (outputs // part, inputs // part)
    return found


def _vectors(at: str, c: int) -> dict[str, tuple[int, ...]]:
    return {f"{at}.alpha_{irrep}": (2 * c if irrep == "E" else c,) for irrep in IRREPS}


SMALL: dict[str, int] = {
    "width": 32,
    "depth": 4,
    "heads": 2,
    "image_size": 24,
    "patch_size": 6,
    "classes": 5,
}
TINY: dict[str, int] = {
    "width": 192,
    "depth": 12,
    "heads": 3,
    "image_size": 224,
    "patch_size": 16,
    "classes": 5,
}

CASES = {
    "H8": Case(
        **SMALL,
        octic=2,
        invariants=None,
        logits=(
            (-0.609822343912, -0.434527951236, 2.19856901738, -0.865368741335, -0.296934994505),
            (-0.322862232407, -0.721646400891, 2.13915616856, -1.2017726193, -0.874139155917),
        ),
    ),
    "I8": Case(
        **SMALL,
        octic=2,
        invariants="power_spectrum",
        logits=(
            (-1.2384808204, -0.349793042195, -0.545046189108, 2.51239090962, 1.34005682478),
            (-2.02042330098, -1.48899853213, 0.536733627858, 2.24766928398, 1.17447992206),
        ),
    ),
    "I8 polynomial": Case(
        **SMALL,
        octic=2,
        invariants="polynomial",
        logits=(
            (0.837288883279, 0.256030159607, -2.30945571359, -1.56552093511, 0.789951598573),
            (-0.0196907171054, -1.07356632591, -3.8102974219, 1.82582962744, 1.07142093579),
        ),
    ),
    "I8 third order": Case(
        **SMALL,
        octic=2,
        invariants="third_order",
        logits=(
            (0.315724829578, 0.998361067978, 1.43476043295, 1.94360872549, 0.394016725153),
            (-0.0321803414607, -0.136106298592, 0.266403694597, 1.33267222767, -0.261922730768),
        ),
    ),
    "I8 linear": Case(
        **SMALL,
        octic=2,
        invariants="linear",
        logits=(
            (-0.029412546594, 0.111723525657, -0.540011563022, 0.579567135681, -0.143987531121),
            (0.233921705557, 0.672036806403, -0.602323179141, 0.810570953013, -0.0322798064242),
        ),
    ),
    "D8": Case(
        **SMALL,
        octic=4,
        invariants="power_spectrum",
        logits=(
            (-0.949277329221, -1.01840078246, -0.379333193321, -0.539784743494, -2.02050511615),
            (-0.618112653394, -0.992616369213, -0.132433971574, -1.37204616824, -1.85223080262),
        ),
    ),
    "H8 Ti/16": Case(
        **TINY,
        octic=6,
        invariants=None,
        logits=(
            (-1.38178033256, 0.584140048927, 0.714729115563, -1.24863695812, -0.304015340752),
            (-1.02800590645, 1.04437706499, -0.0145673272987, -0.983670605331, -0.59673155101),
        ),
    ),
    "I8 Ti/16": Case(
        **TINY,
        octic=6,
        invariants="polynomial",
        logits=(
            (-0.457956108032, 0.0663038307125, 2.22170493779, 0.337443270494, -0.569284564676),
            (-0.532868803569, 1.08365695563, 0.501542932594, 2.32222086634, -1.52397562491),
        ),
    ),
}
