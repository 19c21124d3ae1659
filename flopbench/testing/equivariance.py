"""Does a layer or a network commute with a group's action? A check to put into anyone's tests."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from flopbench.errors import FlopbenchError
from flopbench.inputs import Inputs
from flopbench.models.factory import perturb
from flopbench.structures import leaves, mapped, named_leaves, parts, tensors, with_parts
from flopbench.symmetries import Generator, Symmetry, schedule
from flopbench.symmetries.actions import BY_SYMMETRY, BySymmetry
from flopbench.timing.outputs import numbers

_Stated = Callable[[Any], Any] | Sequence[Any] | Mapping[Any, Any] | None
Action = _Stated | BySymmetry
"""A function of the whole; an action for each part, by position or key; None leaves alone; what a symmetry
does to a kind of value (`flopbench.symmetries.actions`)."""

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
_Named = dict[str, Tensor]


def assert_equivariant(
    module: nn.Module | Callable[..., Any],
    inputs: Any,
    action_in: Action = BY_SYMMETRY,
    action_out: Action = BY_SYMMETRY,
    *,
    symmetry: Symmetry | str = "flop",
    dtypes: Iterable[torch.dtype] = (torch.float32, torch.float64),
    tolerance: float | None = None,
    perturbed: bool = True,
    gradients: bool = True,
) -> None:
    """Assert f(action_in(x)) = action_out(f(x)), and the same of the gradients, in fp32 and fp64.

        assert_equivariant(network, images, action_out=None)  # mirror images have the same logits
        assert_equivariant(layer, features, symmetry="octic")  # each generator of the group
        assert_equivariant(set_transformer, points, lambda x: x.roll(1, dims=1), lambda y: y.roll(1, dims=1))

    Where an output is no image, feature or vector of logits, state what kind of value it is:

        assert_equivariant(segmenter, images, action_out=SCALARS, symmetry="octic")
        assert_equivariant(optical_flow, (first, second), action_out=VECTORS)
        assert_equivariant(detector, images, action_out={"boxes": BOXES, "labels": INVARIANT})
        pose = keypoints({"flop": [1, 0, 2]})  # left and right wrist change places, the nose does not
        assert_equivariant(pose_network, images, action_out=pose)

    A module is copied, put into eval mode and given perturbed weights, so that layer scales near
    zero and zero biases hide nothing; the original and the inputs are left as they are.

    Args:
        module: the layer, network or function f.
        inputs: what f is called with: one argument, a tuple of arguments by position, a dict of arguments
            by name, or `Inputs`. What they hold is random to your liking. Floating-point tensors are cast to
            each of `dtypes`; tokens, masks and what is no tensor stay as they are.
        action_in: how an element of the group acts on the inputs: a function of what `inputs` is, or a tuple
            or dict of functions, one per argument, where None or nothing leaves an argument alone (of
            `Inputs` by position, e.g. 0, and by name). By default, and wherever `BY_SYMMETRY` stands, each
            generator of `symmetry` in its turn, which moves images `[B, C, H, W]` and features, leaves
            logits `[B, K]` alone and refuses what it cannot tell. There other kinds of values may stand as
            well, on which each generator acts likewise: `SCALARS`, `VECTORS`, `BOXES`, `keypoints(...)`,
            `heat_maps(...)`, `INVARIANT` (`flopbench.symmetries.actions` gives their shapes).
        action_out: how the same element acts on the output: a function of the whole of it, or a tuple or
            dict of functions of its parts; None where f is invariant. Both have to be differentiable, unless
            `gradients` is off. Functions of your own stand for one element: for a group of more generators,
            call this once for each of `symmetry.generators`, which are actions too.
        symmetry: the group, or its name; of no concern where both actions are given.
        dtypes: floating-point types to check in.
        tolerance: largest error relative to the largest number of that part of the output; by default 1e-4
            in fp32, 1e-10 in fp64. Whole numbers have to be the same.
        perturbed: give the parameters of a module random values first. With False they keep their own, for
            weights that are constrained or tied to one another.
        gradients: compare the gradients of inputs and parameters too.

    Raises:
        AssertionError: f is not equivariant, with the generator and the part of the output; or the check
            would be void, because an input is its own image, or an output is not finite, all the same, or
            does not depend on the input.
        FlopbenchError: an action for a part that is not there; no such symmetry, or one without generators;
            images or features that are not square, and a generator that turns them; boxes, vectors or points
            of another shape than theirs.
        TypeError: what a generator does to an input or an output is not known: state the action.
    """
    actions = _actions(action_in, action_out, symmetry)
    for dtype in dtypes:
        f = module
        if isinstance(module, nn.Module):
            f = copy.deepcopy(module).to(dtype).eval()
            if perturbed:
                perturb(f)
        allowed = tolerance if tolerance is not None else _TOLERANCE.get(dtype, 5e-2)
        given = mapped(inputs, lambda x, dtype=dtype: _leaf(x, dtype, gradients))
        for under, act_in, act_out in actions:
            how = f"{dtype}, tolerance {allowed:.2g}"
            _check(f, given, act_in, act_out, under, how, allowed, gradients)


def _actions(action_in: Action, action_out: Action, symmetry: Symmetry | str) -> list[tuple[str, Any, Any]]:
    """For each check: under what, in words, and both actions, a generator's wherever a kind stood."""
    if not any(isinstance(leaf, BySymmetry) for leaf in leaves((action_in, action_out))):
        return [("", action_in, action_out)]
    group = schedule(symmetry, 1).first if isinstance(symmetry, str) else symmetry
    if not isinstance(group, Symmetry):
        raise FlopbenchError(f"symmetry must be a name, e.g. 'octic', or a Symmetry, got {symmetry!r}")
    if not group.generators:
        raise FlopbenchError(f"the symmetry {group.name} moves nothing: there is nothing to check")
    found = []
    for generator in group.generators:

        def acting(kind: BySymmetry, generator: Generator = generator) -> Callable[[Any], Any]:
            # Whatever the structure, it acts on each tensor and each feature in it.
            return partial(mapped, fn=partial(kind.act, generator), kinds=(Tensor, group.feature))

        stated = (mapped(action, acting, BySymmetry) for action in (action_in, action_out))
        found.append((f" under a {generator.name}", *stated))
    return found


def _check(
    f: Callable[..., Any],
    given: Any,
    action_in: _Stated,
    action_out: _Stated,
    under: str,
    how: str,
    tolerance: float,
    gradients: bool,
) -> None:
    moved = _acted(action_in, given)
    if _same(_named(given), _named(moved)):
        raise AssertionError(f"the input is its own image{under}: nothing would be checked")
    output, got = _call(f, given), _call(f, moved)
    _reject_void(f, given, _named(output))
    expected = _acted(action_out, output)
    broken = f"not equivariant{under}"
    _compare("output", _named(got), _named(expected), tolerance, broken, how)
    if not gradients:
        return

    # Equal functions of x have equal gradients: those of ⟨v, f(action x)⟩ and ⟨v, action f(x)⟩, for any v.
    parameters = dict(f.named_parameters()) if isinstance(f, nn.Module) else {}
    wanted = {
        "parameter": {name: p for name, p in parameters.items() if p.requires_grad},
        "input": {name: x for name, x in _named(given).items() if x.requires_grad},
    }
    found = [
        _gradients(_named(of), [*wanted["parameter"].values(), *wanted["input"].values()])
        for of in (got, expected)
    ]
    for kind, named in wanted.items():
        one, two = ({name: gradients.pop(0) for name in named} for gradients in found)
        _compare(f"gradient of the {kind}", one, two, tolerance, broken, how, common=kind == "parameter")


def _acted(action: _Stated, x: Any) -> Any:
    """What an action makes of `x`, as a whole or part by part."""
    if action is None:
        return x
    if callable(action):
        return action(x)
    actions = dict(action) if isinstance(action, Mapping) else dict(enumerate(action))
    if isinstance(x, Inputs):
        # An argument is named by its position or its name.
        by_place = _acted({i: a for i, a in actions.items() if isinstance(i, int)}, x.args)
        return Inputs(
            *by_place, **_acted({k: a for k, a in actions.items() if isinstance(k, str)}, dict(x.kwargs))
        )
    there = [key for key, _ in parts(x) or ()]
    if unknown := [key for key in actions if key not in there]:
        raise FlopbenchError(f"an action for part {unknown[0]!r}, and there is none: parts are {there}")
    return with_parts(x, lambda key, part: _acted(actions.get(key), part))


def _call(f: Callable[..., Any], given: Any) -> Any:
    # Of copies: what writes into its input changes none that is used again.
    return Inputs.of(mapped(given, torch.clone)).call(f)


def _reject_void(f: Callable[..., Any], given: Any, output: _Named) -> None:
    """Raise where agreement would say nothing, because any output like this one agrees."""
    floating = {name: part for name, part in output.items() if _real(part)}
    # A mask or whole numbers may be the same for all beside what is computed; alone, they are that.
    judged = floating or output
    if not judged:
        raise AssertionError("the output holds no tensor: nothing would be checked")
    for name, part in judged.items():
        values = numbers(part.detach())
        if not values.isfinite().all():
            raise AssertionError(f"{_of('output', name)} is not finite")
        spread = values.std().item() if values.numel() > 1 else values.abs().sum().item()
        if not spread > 1e-9 * values.abs().max().item():
            raise AssertionError(
                f"{_of('output', name)} is all the same: any constant is invariant, nothing would be checked"
            )
    unmoved = set(judged)
    for other in _others(given):
        with torch.no_grad():
            different = _named(_call(f, other))
        unmoved &= {name for name in unmoved if name in different and _close(judged[name], different[name])}
        if not unmoved:
            return
    name = next(name for name in judged if name in unmoved)
    raise AssertionError(f"{_of('output', name)} does not depend on the input: nothing would be checked")


def _others(given: Any) -> Iterator[Any]:
    """Inputs that differ from these in all real numbers, and then in one tensor of whole numbers each."""
    if any(_real(x) for x in tensors(given)):
        yield mapped(given, lambda x: (x.flip(0) if x.ndim else x) * 1.5 + 0.5 if _real(x) else x)
    generator = torch.Generator().manual_seed(0)
    for chosen in tensors(given):
        if not _real(chosen) and chosen.numel():
            # Of the values that there are, others would be no tokens; and no permutation, to which a network
            # of sets is blind.
            values = chosen.unique()
            drawn = values[torch.randint(len(values), chosen.shape, generator=generator).to(chosen.device)]
            yield mapped(given, lambda x, chosen=chosen, drawn=drawn: drawn if x is chosen else x)


def _compare(
    what: str,
    got: _Named,
    expected: _Named,
    tolerance: float,
    broken: str,
    how: str,
    *,
    common: bool = False,
) -> None:
    """Raise unless equal within `tolerance` of the largest number, of each part or of all in common."""
    if got.keys() != expected.keys():
        raise AssertionError(
            f"{broken}: {what} of the moved input: parts {[*got]}; moved {what}: parts {[*expected]}"
        )
    sizes = {name: _largest(part) for name, part in expected.items()}
    for name, wanted in expected.items():
        part = got[name]
        if part.shape != wanted.shape:
            raise AssertionError(
                f"{_of(what, name)}: shapes {tuple(part.shape)} and {tuple(wanted.shape)} differ"
            )
        if part.numel() == 0:
            continue
        size = max(sizes.values()) if common else sizes[name]
        error = (numbers(part) - numbers(wanted)).abs().max().item() / (size or 1.0)
        if not error <= (tolerance if _real(wanted) else 0.0):
            raise AssertionError(
                f"{broken}: {_of(what, name)} {tuple(wanted.shape)} is off by {error:.2g} of its size ({how})"
            )


def _gradients(output: _Named, wanted: Sequence[Tensor]) -> list[Tensor]:
    """Of the sum of all numbers in the output, each times a random one."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for part in output.values():
        values = numbers(part)
        direction = torch.randn(values.shape, generator=generator, dtype=values.dtype).to(values.device)
        if part.requires_grad:
            total = total + (values * direction).sum().to(total.device)
    found = (
        torch.autograd.grad(total, wanted, allow_unused=True)
        if total.requires_grad and wanted
        else [None] * len(wanted)
    )
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True)]


def _leaf(x: Tensor, dtype: torch.dtype, gradients: bool) -> Tensor:
    if not _real(x):
        return x.detach().clone()
    return x.detach().clone().to(dtype.to_complex() if x.is_complex() else dtype).requires_grad_(gradients)


def _named(tree: Any) -> _Named:
    return {name: leaf for name, leaf in named_leaves(tree) if isinstance(leaf, Tensor)}


def _real(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _same(one: _Named, other: _Named) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[name]) for name, x in one.items())


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    x = numbers(one.detach())
    spread = x.std().item() if x.numel() > 1 else 0.0
    return torch.allclose(x, numbers(other), rtol=1e-6, atol=1e-6 * spread)


def _largest(x: Tensor) -> float:
    return numbers(x.detach()).abs().max().item() if x.numel() else 0.0


def _of(what: str, name: str) -> str:
    return f"{what} {name}" if name else what
