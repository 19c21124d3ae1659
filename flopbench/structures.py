"""What networks take and return, whatever its structure: its tensors, and all else in it."""

import copy
from collections.abc import Callable, Mapping, Set
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn


def tensors(tree: Any) -> list[Tensor]:
    """All tensors among the `leaves` of what a network or a callable takes or returns."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def leaves(tree: Any, within: tuple[int, ...] = ()) -> list[Any]:
    """What a network or a callable takes or returns, taken apart whatever its structure.

    Lists, tuples, sets, mappings, dataclasses and other objects that hold attributes are gone into.

    Args:
        tree: what it takes or returns.
        within: the identities of the objects that `tree` is a part of, which are not gone into again.

    Returns:
        Tensors and everything else that has no parts.
    """
    parts = None if id(tree) in within else _parts(tree)
    if parts is None:
        return [tree]
    return [leaf for part in parts for leaf in leaves(part, (*within, id(tree)))]


def _parts(tree: Any) -> list[Any] | None:
    if isinstance(tree, Tensor):
        return list(tree.unbind()) if tree.is_nested else None
    if isinstance(tree, Mapping):
        return list(tree.values())
    if isinstance(tree, list | tuple | Set):
        return list(tree)
    if isinstance(tree, type | nn.Module) or callable(tree):
        return None
    # Of a dataclass with slots the fields are in no dictionary.
    names = getattr(tree, "__dataclass_fields__", None) or getattr(tree, "__dict__", None)
    return [getattr(tree, name) for name in names] if names else None


def mapped(tree: Any, fn: Callable[[Tensor], Any]) -> Any:
    """The same structure with `fn` of every tensor in its place.

    Lists, tuples, mappings and dataclasses are gone into, and made anew; everything else stays as it is.
    """
    if isinstance(tree, Tensor):
        return fn(tree)
    if isinstance(tree, Mapping):
        parts = {key: mapped(value, fn) for key, value in tree.items()}
        if type(tree) is dict:
            return parts
        # Others may take no mapping to begin with, and hold more than their items.
        other = copy.copy(tree)
        for key, value in parts.items():
            other[key] = value  # pyright: ignore[reportIndexIssue]
        return other
    if isinstance(tree, list | tuple):
        parts = [mapped(item, fn) for item in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if is_dataclass(tree) and not isinstance(tree, type):
        other = copy.copy(tree)
        for name in tree.__dataclass_fields__:
            object.__setattr__(other, name, mapped(getattr(tree, name), fn))
        return other
    return tree
