"""Counting what is given from Python, or by name: here, or in a process of its own."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from flopbench.cells import Cell
from flopbench.errors import FlopbenchError
from flopbench.flops.command import NEVER_RUN, Counts, Request, count, names_of
from flopbench.given import Objects
from flopbench.models import foreign
from flopbench.models.catalog import parse_name
from flopbench.pairs import Pair
from flopbench.runner.process import run_job
from flopbench.suites import first_mistake


def count_given(
    network: Any,
    inputs: Any,
    *,
    values: Mapping[str, Any],
    baseline: Any = None,
    loss: Any = None,
    batch_size: int | None = None,
    **how: Any,
) -> Counts:
    """See `flopbench.count_flops`; `values` are of axes by field, `how` further fields of `Request`."""
    objects = Objects()
    if baseline is None and isinstance(network, str):
        names = names_of(network)
    else:
        given = {"network": network} if baseline is None else {"baseline": baseline, "network": network}
        names = tuple(objects.network(role, one) for role, one in given.items())
    inputs, loss = objects.inputs(inputs), objects.function("loss", loss)
    # What is given is counted as it is: nothing of its inputs is cast.
    cast = not any(parse_name(name).given for name in names)
    try:
        pair = Pair(baseline=names[0], candidate=names[-1], cast=cast, inputs=inputs, loss=loss)
        cell = Cell.model_validate({**NEVER_RUN, **values, "pair": pair, "batch_size": batch_size or 1})
    except ValidationError as error:
        raise FlopbenchError(first_mistake(error)) from None
    for name in names:
        cell.options(name)
    request = Request(cell, batch_size=batch_size, **how)
    if not objects and any(parse_name(name).spec is None for name in names):
        return _apart(request)
    foreign.put(objects)
    try:
        return count(request)
    finally:
        foreign.put({})


def _apart(request: Request) -> Counts:
    """Counted in a process of its own, which somebody else's network may end or print in as it likes."""
    outcome = run_job("flopbench.flops.command:count_in_worker", request, timeout=math.inf, echo=True)
    if outcome.kind == "done":
        return outcome.value
    names = " and ".join(request.labels)
    what = outcome.value if outcome.kind == "usage" else f"cannot count {names}: {outcome.value}"
    raise FlopbenchError(what)
