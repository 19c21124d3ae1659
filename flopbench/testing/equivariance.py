"""Does a layer or a network commute with a flop? A check to put into anyone's tests."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.models.factory import perturb
from flopbench.symmetries import mirror

Action = Callable[[Any], Any]

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def invariant(x: Any) -> Any:
    """The action on what a flop leaves alone, e.g. the logits of a classifier."""
    return x


def assert_equivariant(
    module: nn.Module | Callable[..., Any],
    *inputs: Any,
    input_action: Action = mirror,
    output_action: Action = mirror,
    dtypes: Iterable[torch.dtype] = (torch.float32, torch.float64),
    tolerance: float | None = None,
    perturbed: bool = True,
    gradients: bool = True,
) -> None:
    """Assert f(mirror x) = mirror f(x), and the same of the gradients, in fp32 and fp64.

    A module is copied, put into eval mode and given perturbed weights, so that layer scales near
    zero and zero biases hide nothing; the original is left as it is.

    Args:
        module: the layer, network or function f.
        inputs: what f is called with: tensors or features; what they hold is random to your liking.
        input_action: how a flop acts on each input. The default mirrors images `[B, C, H, W]` and
            features, leaves logits `[B, K]` alone and refuses what it cannot tell.
        output_action: how a flop acts on the output, e.g. `invariant`.
        dtypes: floating-point types to check in.
        tolerance: largest error relative to the deviation of the output; 1e-4 in fp32, 1e-10 in fp64.
        perturbed: give the parameters of a module random values first.
        gradients: compare the gradients of inputs and parameters too.

    Raises:
        AssertionError: f is not equivariant; or the check would be void, because an input is its own
            mirror image, or an output is not finite, all the same, or does not depend on the input.
    """
    for dtype in dtypes:
        f = module
        if isinstance(module, nn.Module):
            f = copy.deepcopy(module).to(dtype).eval()
            if perturbed:
                perturb(f)
        allowed = tolerance if tolerance is not None else _TOLERANCE.get(dtype, 5e-2)
        _check(f, [_cast(x, dtype) for x in inputs], input_action, output_action, allowed, gradients)


def _check(
    f: Callable[..., Any],
    inputs: list[Any],
    input_action: Action,
    output_action: Action,
    tolerance: float,
    gradients: bool,
) -> None:
    leaves = [_map(x, lambda part: part.detach().requires_grad_(gradients)) for x in inputs]
    mirrored_leaves = [
        _map(input_action(x), lambda part: part.detach().requires_grad_(gradients)) for x in inputs
    ]
    if all(torch.equal(*pair) for x, y in zip(leaves, mirrored_leaves, strict=True) for pair in _parts(x, y)):
        raise AssertionError("the input is its own mirror image: nothing would be checked")

    output, mirrored = f(*leaves), f(*mirrored_leaves)
    expected = output_action(output)
    with torch.no_grad():
        other = f(*(_map(x, lambda part: part.flip(0) * 1.5 + 0.5) for x in inputs))
    for part, different in _parts(output, other):
        _reject_void(part, different)
    _compare("output", mirrored, expected, tolerance)
    if not gradients:
        return

    # For any direction v, the gradients of ⟨v, f(x)⟩ and of ⟨flop v, f(flop x)⟩ are mirror images.
    generator = torch.Generator().manual_seed(0)
    direction = _map(output, lambda part: torch.randn(part.shape, generator=generator).to(part))
    parameters = [p for p in f.parameters() if p.requires_grad] if isinstance(f, nn.Module) else []
    one = _gradients(output, direction, leaves, parameters)
    two = _gradients(mirrored, output_action(direction), mirrored_leaves, parameters)
    count = len(parameters)
    _compare("gradient of a parameter", two[:count], one[:count], tolerance, common=True)
    inputs_one = _unflatten(one[count:], leaves)
    inputs_two = _unflatten(two[count:], mirrored_leaves)
    for got, start in zip(inputs_two, inputs_one, strict=True):
        _compare("gradient of an input", got, input_action(start), tolerance)


def _reject_void(part: Tensor, different: Tensor) -> None:
    part = part.detach()
    if not torch.isfinite(part).all():
        raise AssertionError("the output is not finite")
    spread = part.double().std().item() if part.numel() > 1 else 0.0
    if not spread > 1e-9 * part.abs().max().item():
        raise AssertionError(
            "the output is all the same: any constant is invariant, nothing would be checked"
        )
    if torch.allclose(part, different, rtol=1e-6, atol=1e-6 * spread):
        raise AssertionError("the output does not depend on the input: nothing would be checked")


def _compare(what: str, got: Any, expected: Any, tolerance: float, *, common: bool = False) -> None:
    """Raise unless equal within `tolerance` of the deviation, of each part or of all in common."""
    pairs = list(_parts(got, expected))
    scales = [right.detach().double().abs().max().item() for _, right in pairs]
    for (left, right), own in zip(pairs, scales, strict=True):
        if left.shape != right.shape:
            raise AssertionError(f"{what}: shapes {tuple(left.shape)} and {tuple(right.shape)} differ")
        scale = max(scales) if common else own
        error = (left - right).detach().double().abs().max().item() / (scale or 1.0)
        if not error <= tolerance:
            raise AssertionError(
                f"not equivariant: {what} {tuple(right.shape)} is off by {error:.2g} of its size "
                f"({right.dtype}, tolerance {tolerance:.2g})"
            )


def _gradients(
    output: Any, direction: Any, inputs: list[Any], parameters: list[nn.Parameter]
) -> list[Tensor]:
    total = sum(((part * along).sum() for part, along in _parts(output, direction)), torch.zeros(()))
    leaves = [part for x in inputs for part in _flatten(x)]
    wanted = [*parameters, *leaves]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True)]


def _flatten(x: Any) -> list[Tensor]:
    return [x] if isinstance(x, Tensor) else [part for item in x for part in _flatten(item)]


def _map(x: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(x, Tensor):
        return fn(x)
    parts = [_map(item, fn) for item in x]
    return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)


def _parts(x: Any, y: Any) -> Iterable[tuple[Tensor, Tensor]]:
    return zip(_flatten(x), _flatten(y), strict=True)


def _unflatten(tensors: list[Tensor], like: list[Any]) -> list[Any]:
    rest = iter(tensors)
    return [_map(x, lambda _: next(rest)) for x in like]


def _cast(x: Any, dtype: torch.dtype) -> Any:
    return _map(x, lambda part: part.to(dtype))
