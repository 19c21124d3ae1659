"""What is given from Python: networks, what they are called with, and functions, each under a name."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from flopbench.errors import FlopbenchError, brief
from flopbench.inputs import Inputs
from flopbench.models.catalog import GIVEN, parse_name

# What a name may stand for besides a network.
_RESERVED = ("inputs", "loss", "same")


class Objects(dict[str, Any]):
    """Objects by the names that they are put under: `python:NAME` stands for one (`models.foreign.put`).

    What has a name of its own, a string, goes by that and is not put here.
    """

    @property
    def networks(self) -> list[Any]:
        """The networks among them."""
        return [one for name, one in self.items() if name not in _RESERVED]

    def network(self, role: str, given: Any, key: str = "") -> str:
        """The name of a network: its class or the function's name, unless `key` was chosen.

        Args:
            role: what it is called in an error, and told from another of the same name by.
            given: an `nn.Module`, a function, or a name.
            key: the name that its user chose.

        Raises:
            FlopbenchError: it is nothing that can be called with inputs, or an unknown name.
        """
        if isinstance(given, str):
            return parse_name(given).raw
        if isinstance(given, type):
            name = given.__name__
            raise FlopbenchError(f"{role} is the class {name}: give an instance of it, {name}(...)")
        if isinstance(given, Tensor) or not callable(given):
            kind = type(given).__name__
            raise FlopbenchError(
                f"{role} is of type {kind}: give a torch.nn.Module, a function, or a model's name"
            )
        name = _on_a_line(key) or _title(given)
        if name in self or name in _RESERVED:
            name = next(other for other in _others(name, role) if other not in self)
        return self._put(name, given)

    def inputs(self, given: Any) -> str | None:
        """The name of what networks are called with; None for images.

        Raises:
            FlopbenchError: it is a network, or holds no tensor.
        """
        if given is None or isinstance(given, str):
            return given
        if isinstance(given, nn.Module | type):
            raise FlopbenchError("inputs is a network: give what networks are called with")
        if not callable(given):
            given = Inputs.of(given)
            if not given.tensors:
                raise FlopbenchError("inputs hold no tensor: give a tensor, a tuple or a dict of them")
            # Of its own: what it was computed from is no part of what is measured.
            given = given.map(lambda x: x.detach().requires_grad_(x.requires_grad))
        return self._put("inputs", given)

    def function(self, what: str, given: Any) -> str | None:
        """The name of a function, `loss` or `same`; that of a part of the output stays as it is.

        Raises:
            FlopbenchError: it is neither.
        """
        if given is None or isinstance(given, str):
            return given
        if isinstance(given, int) and not isinstance(given, bool):
            return str(given)
        if not callable(given):
            raise FlopbenchError(
                f"{what} is {brief(given)}: give a function, or the key, attribute or index of a part of the "
                "output"
            )
        return self._put(what, given)

    def _put(self, name: str, given: Any) -> str:
        self[name] = given
        return f"{GIVEN}:{name}"


def _on_a_line(name: str) -> str:
    """A chosen name without line breaks, and without what would steer a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in name).split())


def _title(network: Any) -> str:
    """What a network is called: its class, or the function's name."""
    if isinstance(network, partial):
        return _title(network.func)
    if isinstance(network, nn.Module):
        return type(getattr(network, "_orig_mod", network)).__name__
    name = getattr(network, "__name__", type(network).__name__)
    return "function" if name == "<lambda>" else name


def _others(name: str, role: str) -> Iterator[str]:
    """Names to tell one from another of the same name."""
    yield f"{name} ({role.partition(' ')[0]})"
    number = 2
    while True:
        yield f"{name} ({number})"
        number += 1
