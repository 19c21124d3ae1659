"""A network's costs as a tree, one network or a pair side by side, like blocks folded into one row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from flopbench.flops.costs import LayerCost, total
from flopbench.models.averaged import layer_name

Costs = tuple[LayerCost | None, ...]
Leaf = tuple[tuple[str, ...], Costs]


@dataclass(frozen=True)
class Row:
    """One layer of one or two networks, with all beneath it; or one operator; or the total.

    Attributes:
        name: the layer's path, like blocks folded: `blocks.0–11.attn`.
        costs: of the baseline and the candidate, or of one network; None where a network lacks the layer.
    """

    name: str
    costs: Costs

    @property
    def type(self) -> str:
        """The layer's class, or both networks' classes."""
        return " / ".join(dict.fromkeys(cost.type for cost in self.costs if cost and cost.type))

    def ratio(self, figure: str = "macs") -> float | None:
        """The baseline's figure over the candidate's; None where either is zero."""
        values = [getattr(cost, figure) if cost else 0 for cost in self.costs]
        return values[0] / values[1] if len(values) == 2 and all(values) else None


def layer_rows(networks: Sequence[tuple[nn.Module, Sequence[LayerCost]]], depth: int) -> list[Row]:
    """The layers of one or two networks down to a depth, then the total.

    An index, as in `blocks.3`, is no level of its own: at depth 2 there is `blocks.0–11.attn`.
    Neighbours that cost the same in every layer of every network share a row, which holds their sum.

    Args:
        networks: each with its `layer_costs`.
        depth: levels of names.
    """
    by_path = [{cost.name: cost for cost in costs} for _, costs in networks]
    types = [
        {layer_name(model, path): type(module).__name__ for path, module in model.named_modules()}
        for model, _ in networks
    ]
    paths = dict.fromkeys(path for costs in by_path for path in costs)
    leaves = [
        (tuple(path.split(".")) if path else (), tuple(costs.get(path) for costs in by_path))
        for path in paths
    ]

    def rows(name: str, path: str, leaves: list[Leaf], depth: int) -> Iterator[Row]:
        own = [costs for rest, costs in leaves if not rest]
        if depth == 0 or _is_leaf(leaves):
            yield _sum(name, [costs for _, costs in leaves], [known.get(path, "") for known in types])
            return
        if own:
            yield _sum(f"{name or 'network'} itself", own, [known.get(path, "") for known in types])
        for first, last, inner in _children(leaves):
            label = first if first == last else f"{first}–{last}"
            below = depth if first.isdigit() else depth - 1
            yield from rows(f"{name}.{label}".lstrip("."), f"{path}.{first}".lstrip("."), inner, below)

    found = [row for row in rows("", "", leaves, depth) if any(map(_costs_something, row.costs))]
    return [*found, _whole([costs for _, costs in networks])]


def operator_rows(networks: Sequence[Sequence[LayerCost]]) -> list[Row]:
    """The operators of one or two networks (`costs_of_operators`), then the total."""
    by_name = [{cost.name: cost for cost in costs} for costs in networks]
    names = dict.fromkeys(name for costs in by_name for name in costs)
    return [*(Row(name, tuple(costs.get(name) for costs in by_name)) for name in names), _whole(networks)]


def _is_leaf(leaves: list[Leaf]) -> bool:
    """Whether a network does the whole layer itself: another's parts would have nothing to stand beside."""
    sides = zip(*(costs for _, costs in leaves), strict=True)
    paths = [path for path, _ in leaves]
    return any(
        [path for path, cost in zip(paths, side, strict=True) if _costs_something(cost)] == [()]
        for side in sides
    )


def _children(leaves: list[Leaf]) -> Iterator[tuple[str, str, list[Leaf]]]:
    """First and last name, and what is beneath, of each child; of each run of like numbered children."""
    children: dict[str, list[Leaf]] = {}
    for path, costs in leaves:
        if path:
            children.setdefault(path[0], []).append((path[1:], costs))
    run: list[tuple[str, list[Leaf]]] = []
    for name, beneath in children.items():
        alike = run and name.isdigit() and run[-1][0].isdigit() and _figures(beneath) == _figures(run[-1][1])
        if run and not alike:
            yield _merged(run)
            run = []
        run.append((name, beneath))
    if run:
        yield _merged(run)


def _figures(leaves: list[Leaf]) -> list[tuple[object, ...]]:
    return [(path, [cost and total([cost], "", cost.type) for cost in costs]) for path, costs in leaves]


def _merged(run: list[tuple[str, list[Leaf]]]) -> tuple[str, str, list[Leaf]]:
    leaves = [leaf for _, beneath in run for leaf in beneath]
    return run[0][0], run[-1][0], leaves


def _sum(name: str, costs: list[Costs], types: Sequence[str]) -> Row:
    sides = [[cost for cost in side if cost] for side in zip(*costs, strict=True)]
    kinds = [kind or (side[0].type if side else "") for kind, side in zip(types, sides, strict=True)]
    return Row(
        name,
        tuple(total(side, name, kind) if side else None for side, kind in zip(sides, kinds, strict=True)),
    )


def _whole(networks: Sequence[Sequence[LayerCost]]) -> Row:
    return Row("total", tuple(total(costs, "total") for costs in networks))


def _costs_something(cost: LayerCost | None) -> bool:
    return cost is not None and bool(cost.macs or cost.elementwise or cost.bytes or cost.parameters)
