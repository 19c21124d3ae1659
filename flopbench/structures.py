"""What networks take and return, whatever its structure: its tensors, and all else in it."""

import copy
from collections.abc import Callable, Mapping, Set
from typing import Any

from torch import Tensor, nn


def tensors(tree: Any) -> list[Tensor]:
    """All tensors among the `leaves` of what a network or a callable takes or returns."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def leaves(tree: Any) -> list[Any]:
    """What a network or a callable takes or returns, taken apart whatever its structure.

    Lists, tuples, sets, mappings, dataclasses and other objects that hold attributes are gone into.

    Returns:
        Tensors and everything else that has no parts.
    """
    return [leaf for _, leaf in named_leaves(tree)]


def named_leaves(tree: Any, name: str = "", within: tuple[int, ...] = ()) -> list[tuple[str, Any]]:
    """The `leaves`, each with the path to it: `boxes.0` is the first of the part `boxes`.

    Args:
        tree: what a network takes or returns.
        name: the path to `tree` itself; empty where it is all.
        within: the identities of the objects that `tree` is a part of, which are not gone into again.
    """
    found = None if id(tree) in within else parts(tree)
    if found is None:
        return [(name, tree)]
    return [
        leaf
        for key, part in found
        for leaf in named_leaves(part, f"{name}.{key}" if name else str(key), (*within, id(tree)))
    ]


def part(tree: Any, name: str) -> Any:
    """A part of what a network returns, by its key, attribute or index; `a.0` is one of a part's parts.

    Raises:
        LookupError: there is none of that name; it says which there are.
    """
    found = {str(key): value for key, value in parts(tree) or ()}
    if name in found:
        return found[name]
    head, _, rest = name.partition(".")
    if rest and head in found:
        return part(found[head], rest)
    if isinstance(tree, list | tuple) and name.startswith("-") and name[1:].isdecimal():
        return tree[int(name)]
    # Attributes that are computed, and the names of a named tuple.
    if not isinstance(tree, Tensor) and name.isidentifier() and not callable(getattr(tree, name, print)):
        return getattr(tree, name)
    has = f"it has {', '.join(found)}" if found else f"it is {described(tree)}"
    raise LookupError(f"the output has no part {name!r}: {has}")


def described(tree: Any) -> str:
    """In words: "a tensor (2, 10)", "a dict"."""
    return f"a tensor {tuple(tree.shape)}" if isinstance(tree, Tensor) else f"a {type(tree).__name__}"


def parts(tree: Any) -> list[tuple[Any, Any]] | None:
    """What `leaves` finds in it, by its key, attribute or index; None where it has no parts."""
    if isinstance(tree, Tensor):
        return list(enumerate(tree.unbind())) if tree.is_nested else None
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, list | tuple | Set):
        return list(enumerate(tree))
    if isinstance(tree, type | nn.Module) or callable(tree):
        return None
    # Of a dataclass with slots the fields are in no dictionary.
    names = getattr(tree, "__dataclass_fields__", None) or getattr(tree, "__dict__", None)
    return [(name, getattr(tree, name)) for name in names] if names else None


def mapped(tree: Any, fn: Callable[[Any], Any], kinds: Any = Tensor) -> Any:
    """The same structure with `fn` of every tensor in its place, or of every object of `kinds`.

    What `leaves` goes into is made anew; everything else stays as it is.
    """
    return _mapped(tree, fn, kinds, ())


def _mapped(tree: Any, fn: Callable[[Any], Any], kinds: Any, within: tuple[int, ...]) -> Any:
    if isinstance(tree, kinds):
        return fn(tree)
    if id(tree) in within:
        return tree
    return with_parts(tree, lambda _, value: _mapped(value, fn, kinds, (*within, id(tree))))


def with_parts(tree: Any, fn: Callable[[Any, Any], Any]) -> Any:
    """The same structure with `fn` of its key and itself in place of each of the `parts`."""
    found = None if isinstance(tree, Tensor) else parts(tree)
    if found is None:
        return tree
    made = [(key, fn(key, value)) for key, value in found]
    if type(tree) is dict:
        return dict(made)
    if isinstance(tree, list | tuple | Set):
        values = [value for _, value in made]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)  # pyright: ignore[reportCallIssue]
    # Classes may take other things to begin with than what they hold, and hold more than their items.
    other = copy.copy(tree)
    for key, value in made:
        if isinstance(other, Mapping):
            other[key] = value  # pyright: ignore[reportIndexIssue]
        else:
            object.__setattr__(other, key, value)
    return other
