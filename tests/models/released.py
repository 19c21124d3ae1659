"""The authors' networks, small, dense and slow, straight from the mathematics and the names of their entries.

Independent of flopbench on purpose: full kernels, explicit matrices, tokens in the paper's order. Features
are [B, N, C] or [B, C, H, W] with the symmetric channels before the antisymmetric ones.
"""

import torch
import torch.nn.functional as F

State = dict[str, torch.Tensor]
ROOT = 0.5**0.5


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        fan_in = torch.Size(shape[1:]).numel()
        scale = 0.5 if len(shape) < 2 or shape[0] == 1 else fan_in**-0.5
        state[key] = torch.randn(shape, generator=generator) * scale
        if "alpha" in key or key.endswith(("norm1.weight", "norm2.weight", "norm.weight")):
            state[key] += 1
    return state


# Shapes of the entries.


def vit_shapes(version, absolute=False):
    C, depth, P, grid, K = 16, 3, 4, 4, 5
    N, h, D = grid * grid, C // 2, 4 * C
    if version == "X":
        shapes = {
            "patch_embed.proj.weight": (C, 3, P, P),
            "patch_embed.proj.bias": (C,),
            "cls_token": (1, 1, C),
            "pos_embed": (1, N, C),
        }
    else:
        shapes = {
            "patch_embed.proj_sym.weight": (h, 3, P, P // 2),
            "patch_embed.proj_sym.bias": (h,),
            "patch_embed.proj_asym.weight": (h, 3, P, P // 2),
            "cls_token.0": (1, 1, h),
            "cls_token.1": (1, 1, h),
            "pos_embed.0": (1, N // 2, h),
            "pos_embed.1": (1, N // 2, h),
        }
    equivariant = {"X": 0, "E": depth, "H": depth // 2, "I": depth // 2}[version]
    for i in range(depth):
        at = f"blocks.{i}"
        for norm in ("norm1", "norm2"):
            shapes |= _norm_shapes(f"{at}.{norm}", C, i < equivariant)
        linears = {"attn.qkv": (3 * C, C), "attn.proj": (C, C), "mlp.fc1": (D, C), "mlp.fc2": (C, D)}
        for name, shape in linears.items():
            shapes |= _linear_shapes(f"{at}.{name}", *shape, i < equivariant)
        for gamma in ("gamma_1", "gamma_2"):
            shapes |= _gamma_shapes(f"{at}.{gamma}", C, i < equivariant)
    shapes |= _norm_shapes("norm", C, version == "E")
    features = h if version == "E" and not absolute else C
    return shapes | {"head.weight": (K, features), "head.bias": (K,)}


def resmlp_shapes(version, absolute=False):
    C, depth, P, grid, K = 12, 2, 4, 4, 5
    N, h, D = grid * grid, C // 2, 4 * C
    if version == "X":
        shapes = {"patch_embed.proj.weight": (C, 3, P, P), "patch_embed.proj.bias": (C,)}
    else:
        shapes = {
            "patch_embed.proj_sym.weight": (h, 3, P, P // 2),
            "patch_embed.proj_sym.bias": (h,),
            "patch_embed.proj_asym.weight": (h, 3, P, P // 2),
        }
    for i in range(depth):
        at = f"blocks.{i}"
        if version == "X":
            for norm in ("norm1", "norm2"):
                shapes |= {f"{at}.{norm}.alpha": (C,), f"{at}.{norm}.beta": (C,)}
            shapes |= {f"{at}.attn.weight": (N, N), f"{at}.attn.bias": (N,)}
            shapes |= _linear_shapes(f"{at}.mlp.fc1", D, C, False) | _linear_shapes(
                f"{at}.mlp.fc2", C, D, False
            )
        else:
            for norm in ("norm1", "norm2"):
                for name in ("alpha_sym", "alpha_asym", "beta_sym", "beta_asym"):
                    shapes[f"{at}.{norm}.{name}"] = (h,)
            for name, rows, columns in (
                ("attn", N // 2, N // 2),
                ("mlp.fc1", D // 2, h),
                ("mlp.fc2", h, D // 2),
            ):
                for irrep in ("sym", "asym"):
                    shapes[f"{at}.{name}.lin_{irrep}.weight"] = (rows, columns)
                    shapes[f"{at}.{name}.lin_{irrep}.bias"] = (rows,)
        for gamma in ("gamma_1", "gamma_2"):
            shapes |= _gamma_shapes(f"{at}.{gamma}", C, version == "E")
    features = h if version == "E" and not absolute else C
    shapes |= {"norm.alpha": (features,), "norm.beta": (features,)}
    return shapes | {"head.weight": (K, features), "head.bias": (K,)}


def convnext_shapes(version, widths=(8, 16), depths=(1, 2), absolute=False, scaled=True, meta=False):
    """One stage: isotropic. `meta`: matrices and vectors instead of 1×1 kernels, as in Meta's files."""
    P, K = 4, 5
    isotropic = len(widths) == 1
    shapes = {}
    stem = "stem" if isotropic else "downsample_layers.0.0"
    C = widths[0]
    if version == "X":
        shapes |= {f"{stem}.weight": (C, 3, P, P), f"{stem}.bias": (C,)}
    else:
        shapes |= {
            f"{stem}.proj_sym.weight": (C // 2, 3, P, P // 2),
            f"{stem}.proj_sym.bias": (C // 2,),
            f"{stem}.proj_asym.weight": (C // 2, 3, P, P // 2),
        }
    if not isotropic:
        shapes |= _norm_shapes("downsample_layers.0.1", C, version == "E")
    for s, (C, depth) in enumerate(zip(widths, depths, strict=True)):
        if s:
            before = widths[s - 1]
            shapes |= _norm_shapes(f"downsample_layers.{s}.0", before, version == "E")
            at = f"downsample_layers.{s}.1"
            if version == "X":
                shapes |= {f"{at}.weight": (C, before, 2, 2), f"{at}.bias": (C,)}
            else:
                for name in ("sym_to_sym", "sym_to_asym", "asym_to_sym", "asym_to_asym"):
                    shapes[f"{at}.{name}.weight"] = (C // 2, before // 2, 2, 1)
                shapes[f"{at}.sym_to_sym.bias"] = (C // 2,)
        for b in range(depth):
            at = f"blocks.{b}" if isotropic else f"stages.{s}.{b}"
            if version == "X":
                shapes |= {f"{at}.dwconv.weight": (C, 1, 7, 7), f"{at}.dwconv.bias": (C,)}
            else:
                for name, columns in (
                    ("sym_to_sym", 4),
                    ("asym_to_sym", 3),
                    ("sym_to_asym", 3),
                    ("asym_to_asym", 4),
                ):
                    shapes[f"{at}.dwconv.{name}.weight"] = (C // 4, 1, 7, columns)
                shapes |= {f"{at}.dwconv.{name}.bias": (C // 4,) for name in ("sym_to_sym", "asym_to_sym")}
            shapes |= _norm_shapes(f"{at}.norm", C, version == "E")
            for name, shape in (("pwconv1", (4 * C, C)), ("pwconv2", (C, 4 * C))):
                own = _linear_shapes(f"{at}.{name}", *shape, version == "E")
                shapes |= {k: (*v, 1, 1) if len(v) == 2 and not meta else v for k, v in own.items()}
            if scaled:
                own = _gamma_shapes(f"{at}.gamma", C, version == "E")
                shapes |= {k: v if meta or version == "E" else (1, *v, 1, 1) for k, v in own.items()}
    features = C // 2 if version == "E" and not absolute else C
    shapes |= {"norm.weight": (features,), "norm.bias": (features,)}
    return shapes | {"head.weight": (K, features), "head.bias": (K,)}


def _norm_shapes(at, width, equivariant):
    if equivariant:
        return {f"{at}.scaling.{name}": (width // 2,) for name in ("alpha_sym", "alpha_asym", "beta")}
    return {f"{at}.weight": (width,), f"{at}.bias": (width,)}


def _linear_shapes(at, out, width, equivariant):
    if not equivariant:
        return {f"{at}.weight": (out, width), f"{at}.bias": (out,)}
    half = {f"{at}.linear_{irrep}.weight": (out // 2, width // 2) for irrep in ("sym", "asym")}
    return half | {f"{at}.linear_sym.bias": (out // 2,)}


def _gamma_shapes(at, width, equivariant):
    if equivariant:
        return {f"{at}.alpha_sym": (width // 2,), f"{at}.alpha_asym": (width // 2,)}
    return {at: (width,)}


# The networks: state dict and images to logits.


def vit(state: State, images, version, *, heads=2):
    P = state["patch_embed.proj_sym.weight" if version != "X" else "patch_embed.proj.weight"].shape[2]
    grid = images.shape[-1] // P
    x = _patches(state, "patch_embed", images, version, "proj.", scale=ROOT)
    C = x.shape[1]
    if version == "X":
        x = x.flatten(2).mT + state["pos_embed"]
        token = state["cls_token"]
    else:
        # Left half in row-major order, then the mirror images in the same order.
        left = x[..., : grid // 2].flatten(2).mT
        right = x[..., grid // 2 :].flip(-1).flatten(2).mT
        e_s, e_a = state["pos_embed.0"], state["pos_embed.1"]
        embedding = torch.cat([torch.cat([e_s, e_s], 1), torch.cat([e_a, -e_a], 1)], -1)
        x = torch.cat([left, right], 1) + embedding
        token = torch.cat([state["cls_token.0"], torch.zeros_like(state["cls_token.1"])], -1)
    x = torch.cat([token.expand(len(x), -1, -1), x], 1)
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    equivariant = {"X": 0, "E": depth, "H": depth // 2, "I": depth // 2}[version]
    for i in range(depth):
        at, flop = f"blocks.{i}", i < equivariant
        if i == equivariant:
            s, a = x[..., : C // 2], x[..., C // 2 :]
            if version == "H":
                x = torch.cat([(s + a) * ROOT, (s - a) * ROOT], -1)
            elif version == "I":
                x = torch.cat([s, a.abs()], -1)
        mixed = _attention(state, f"{at}.attn", _norm(state, f"{at}.norm1", x, flop), heads, flop)
        x = x + _gamma(state, f"{at}.gamma_1", flop) * mixed
        y = _linear(state, f"{at}.mlp.fc1", _norm(state, f"{at}.norm2", x, flop), flop)
        y = _linear(state, f"{at}.mlp.fc2", _gelu(y, flop), flop)
        x = x + _gamma(state, f"{at}.gamma_2", flop) * y
    x = _norm(state, "norm", x, version == "E")[:, 0]
    if version == "E":
        absolute = state["head.weight"].shape[1] == C
        s, a = x.chunk(2, -1)
        x = torch.cat([s, a.abs()], -1) if absolute else s
    return _head(state, x)


def _attention(state, at, x, heads, flop):
    qkv = _linear(state, f"{at}.qkv", x, flop)
    C = x.shape[-1]
    d = C // heads
    if flop:
        # Rows of either irrep are (q, k, v) × head × C/(2h).
        s, a = (part.unflatten(-1, (3, heads, d // 2)) for part in qkv.chunk(2, -1))
        q, k, v = torch.cat([s, a], -1).unbind(2)
    else:
        q, k, v = qkv.unflatten(-1, (3, heads, d)).unbind(2)
    weights = torch.einsum("bnhd,bmhd->bhnm", q, k).div(d**0.5).softmax(-1)
    y = torch.einsum("bhnm,bmhd->bnhd", weights, v)
    parts = [y[..., : d // 2], y[..., d // 2 :]] if flop else [y]
    return _linear(state, f"{at}.proj", torch.cat([part.flatten(2) for part in parts], -1), flop)


def resmlp(state: State, images, version):
    x = _patches(state, "patch_embed", images, version, "proj.", scale=1.0)
    C, grid = x.shape[1], x.shape[-1]
    if version == "X":
        return _plain_resmlp(state, x.flatten(2).mT)
    h, n = C // 2, grid * grid // 2
    left = x[..., : grid // 2].flatten(2).mT
    right = x[..., grid // 2 :].flip(-1).flatten(2).mT
    # [t_s; t_a] along the tokens, [s, a] along the channels.
    x = torch.cat([(left + right) * ROOT, (left - right) * ROOT], 1)
    invariant = torch.zeros_like(x)
    invariant[:, :n, :h] = invariant[:, n:, h:] = 1
    hadamard = torch.tensor([[1, 1], [1, -1]], dtype=x.dtype) * ROOT
    tokens = torch.kron(hadamard, torch.eye(n, dtype=x.dtype))

    def both(at, name):
        return torch.cat([state[f"{at}.{name}_sym"], state[f"{at}.{name}_asym"]])

    def affine(at, x):
        return x * both(at, "alpha") + invariant * both(at, "beta")

    def channels(at, x):
        weight = torch.block_diag(state[f"{at}.lin_sym.weight"], state[f"{at}.lin_asym.weight"])
        bias = torch.cat([state[f"{at}.lin_sym.bias"], state[f"{at}.lin_asym.bias"]])
        mask = torch.zeros(x.shape[1], len(bias), dtype=x.dtype)
        mask[:n, : len(bias) // 2] = mask[n:, len(bias) // 2 :] = 1
        return x @ weight.T + mask * bias

    def mix(at, x):
        weight = torch.block_diag(state[f"{at}.lin_sym.weight"], state[f"{at}.lin_asym.weight"])
        bias = torch.cat([state[f"{at}.lin_sym.bias"], state[f"{at}.lin_asym.bias"]])
        return weight @ x + invariant * bias[:, None]

    def gelu(x):
        basis = torch.kron(hadamard, torch.eye(x.shape[-1] // 2, dtype=x.dtype))
        y = tokens @ x @ basis
        return tokens @ (y * torch.sigmoid(1.702 * y)) @ basis

    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    for i in range(depth):
        at = f"blocks.{i}"
        x = x + _gamma(state, f"{at}.gamma_1", True) * mix(f"{at}.attn", affine(f"{at}.norm1", x))
        y = channels(f"{at}.mlp.fc2", gelu(channels(f"{at}.mlp.fc1", affine(f"{at}.norm2", x))))
        x = x + _gamma(state, f"{at}.gamma_2", True) * y
    y = torch.cat([x[:, :n, :h], x[:, n:, h:]], 1)
    if len(state["norm.alpha"]) == C:
        y = torch.cat([y, torch.cat([x[:, n:, :h], x[:, :n, h:]], 1).abs()], -1)
    y = y * state["norm.alpha"] + state["norm.beta"]
    return _head(state, y.mean(1))


def _plain_resmlp(state, x):
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    for i in range(depth):
        at = f"blocks.{i}"
        y = x * state[f"{at}.norm1.alpha"] + state[f"{at}.norm1.beta"]
        y = state[f"{at}.attn.weight"] @ y + state[f"{at}.attn.bias"][:, None]
        x = x + state[f"{at}.gamma_1"] * y
        y = x * state[f"{at}.norm2.alpha"] + state[f"{at}.norm2.beta"]
        y = _linear(state, f"{at}.mlp.fc2", F.gelu(_linear(state, f"{at}.mlp.fc1", y, False)), False)
        x = x + state[f"{at}.gamma_2"] * y
    return _head(state, (x * state["norm.alpha"] + state["norm.beta"]).mean(1))


def convnext(state: State, images, version):
    isotropic = any(key.startswith("stem.") for key in state)
    flop = version == "E"
    x = _patches(state, "stem" if isotropic else "downsample_layers.0.0", images, version, "", scale=ROOT)
    if isotropic:
        depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
        for i in range(depth):
            x = _convnext_block(state, f"blocks.{i}", x, flop)
    else:
        x = _norm(state, "downsample_layers.0.1", x.movedim(1, -1), flop).movedim(-1, 1)
        stages = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("stages."))
        for s in range(stages):
            if s:
                x = _norm(state, f"downsample_layers.{s}.0", x.movedim(1, -1), flop).movedim(-1, 1)
                x = _downsample(state, f"downsample_layers.{s}.1", x, flop)
            depth = 1 + max(int(key.split(".")[2]) for key in state if key.startswith(f"stages.{s}."))
            for i in range(depth):
                x = _convnext_block(state, f"stages.{s}.{i}", x, flop)
    C = x.shape[1]
    if flop:
        s, a = x[:, : C // 2], x[:, C // 2 :]
        x = torch.cat([s, a.abs()], 1) if state["norm.weight"].numel() == C else s
    y = x.mean((2, 3))
    y = F.layer_norm(y, y.shape[-1:], state["norm.weight"], state["norm.bias"], 1e-6)
    return _head(state, y)


def _convnext_block(state, at, x, flop):
    C = x.shape[1]
    if flop:
        kernels, biases = [], []
        for name in ("sym_to_sym", "asym_to_sym", "sym_to_asym", "asym_to_asym"):
            half = state[f"{at}.dwconv.{name}.weight"]
            centre = half[..., 3:] if half.shape[-1] == 4 else torch.zeros_like(half[..., :1])
            sign = 1 if half.shape[-1] == 4 else -1
            kernels.append(torch.cat([half[..., :3], centre, sign * half[..., :3].flip(-1)], -1))
            bias = state.get(f"{at}.dwconv.{name}.bias")
            biases.append(torch.zeros(C // 4, dtype=x.dtype) if bias is None else bias)
        s1, s2, a1, a2 = x.chunk(4, 1)
        moved = torch.cat([s1, a1, s2, a2], 1)
        y = F.conv2d(moved, torch.cat(kernels), torch.cat(biases), padding=3, groups=C)
    else:
        y = F.conv2d(x, state[f"{at}.dwconv.weight"], state[f"{at}.dwconv.bias"], padding=3, groups=C)
    y = _norm(state, f"{at}.norm", y.movedim(1, -1), flop)
    y = _linear(state, f"{at}.pwconv2", _gelu(_linear(state, f"{at}.pwconv1", y, flop), flop), flop)
    if any(key.startswith(f"{at}.gamma") for key in state):
        y = _gamma(state, f"{at}.gamma", flop) * y
    return x + y.movedim(-1, 1)


def _downsample(state, at, x, flop):
    if not flop:
        return F.conv2d(x, state[f"{at}.weight"], state[f"{at}.bias"], stride=2)

    def kernel(name, sign):
        left = state[f"{at}.{name}.weight"]
        return torch.cat([left, sign * left], -1)

    to_s = torch.cat([kernel("sym_to_sym", 1), kernel("asym_to_sym", -1)], 1)
    to_a = torch.cat([kernel("sym_to_asym", -1), kernel("asym_to_asym", 1)], 1)
    bias = state[f"{at}.sym_to_sym.bias"]
    return F.conv2d(x, torch.cat([to_s, to_a]), torch.cat([bias, torch.zeros_like(bias)]), stride=2)


def _patches(state, at, images, version, plain_name, scale):
    if version == "X":
        weight = state[f"{at}.{plain_name}weight"]
        return F.conv2d(images, weight, state[f"{at}.{plain_name}bias"], stride=weight.shape[-2])
    w_s, w_a = state[f"{at}.proj_sym.weight"], state[f"{at}.proj_asym.weight"]
    kernel = torch.cat([torch.cat([w_s, w_s.flip(-1)], -1), torch.cat([w_a, -w_a.flip(-1)], -1)])
    bias = state[f"{at}.proj_sym.bias"]
    bias = torch.cat([bias, torch.zeros_like(bias)])
    return F.conv2d(images, kernel, bias, stride=kernel.shape[-1]) * scale


def _norm(state, at, x, flop):
    if not flop:
        return F.layer_norm(x, x.shape[-1:], state[f"{at}.weight"], state[f"{at}.bias"], 1e-6)
    s, a = x.chunk(2, -1)
    s, a = s - s.mean(-1, keepdim=True), a - a.mean(-1, keepdim=True)
    sigma = ((s.square().mean(-1, keepdim=True) + a.square().mean(-1, keepdim=True) + 1e-6) / 2).sqrt()
    s = state[f"{at}.scaling.alpha_sym"] * s / sigma + state[f"{at}.scaling.beta"]
    return torch.cat([s, state[f"{at}.scaling.alpha_asym"] * a / sigma], -1)


def _linear(state, at, x, flop):
    if not flop:
        return x @ state[f"{at}.weight"].flatten(1).T + state[f"{at}.bias"]
    w_s, w_a = (state[f"{at}.linear_{irrep}.weight"].flatten(1) for irrep in ("sym", "asym"))
    bias = state[f"{at}.linear_sym.bias"]
    return x @ torch.block_diag(w_s, w_a).T + torch.cat([bias, torch.zeros_like(bias)])


def _gelu(x, flop):
    if not flop:
        return F.gelu(x)
    half = x.shape[-1] // 2
    hadamard = torch.tensor([[1, 1], [1, -1]], dtype=x.dtype) * ROOT
    basis = torch.kron(hadamard, torch.eye(half, dtype=x.dtype))
    return F.gelu(x @ basis) @ basis


def _gamma(state, at, flop):
    if flop:
        return torch.cat([state[f"{at}.alpha_sym"], state[f"{at}.alpha_asym"]])
    return state[at].flatten()


def _head(state, x):
    return x @ state["head.weight"].T + state["head.bias"]
