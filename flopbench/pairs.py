"""Pairs: which two networks are held against one another, and what they are called with. Imports no torch."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from flopbench.errors import FlopbenchError
from flopbench.frozen import Frozen
from flopbench.models.catalog import GIVEN, ModelName, label_of, parse_name


def _imported(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:.+", value):
        raise ValueError("not of the form package.module:callable")
    return value


Imported = Annotated[str, AfterValidator(_imported)]
"""The name of somebody's own function: `package.module:callable`."""


def _part_or_imported(value: str) -> str:
    if not value.strip():
        raise ValueError("names no part of the output and no package.module:callable")
    return _imported(value) if ":" in value else value


Stated = Annotated[str, AfterValidator(_part_or_imported)]
"""The name of somebody's own function, or of a part of the output: a key, an attribute, an index."""


class Pair(Frozen):
    """A baseline X and a candidate, matched in depth, width, heads, tokens, activation and input.

    In a suite file a string, `"vit_b16.flop"` or `"candidate@baseline"`, or a table of these fields.

    Attributes:
        baseline: by default the candidate's plain twin.
        candidate: a name of flopbench's, `timm:NAME`, or `package.module:callable`: what can be called
            without arguments and returns a `torch.nn.Module` that takes images `[B, 3, H, W]` of each of the
            profile's `image_sizes`. It has as many logits as it likes: `num_classes` is not passed on.
        perturb: whether both networks get random weights before they are checked and timed, so that no
            term is zero, as scales are at initialisation. With `false` they keep the weights that they
            were built with, for those whose weights are trained, constrained or tied to one another.
            The proof that E(X) is invariant always takes random weights.
        cast: whether weights and inputs of floating point are cast to the cell's dtype. With `false` they
            come as they are, for networks that mix dtypes.
        inputs: what the networks are called with, instead of images: `package.module:callable`, a function of
            the batch size (and of `image_size`, if it has such a parameter) that returns a tensor, a tuple of
            arguments, a dict of keyword arguments or `flopbench.Inputs`.
        loss: what the backward and train passes differentiate: `package.module:callable`, a function of the
            output and the `flopbench.Inputs`; or a part of the output, by its key, attribute or index. By
            default the backward pass takes random gradients of all that is given, and the train pass a
            cross-entropy of logits.
        same: what of their outputs has to be equal: "output" for all of it, or a part by its key, attribute
            or index, within `tolerance`; or `package.module:callable`, a function of both outputs (the
            baseline's first) that says so. By default the outputs of two networks are not compared.
        tolerance: largest difference of what is the `same`, relative to its root mean square; by default as
            large as rounding in the cell's dtype may be.
    """

    baseline: str
    candidate: str
    perturb: bool = True
    cast: bool = True
    inputs: Imported | None = None
    loss: Stated | None = None
    same: Stated | None = None
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _keeps_weights_that_are_compared(self) -> Self:
        if self.same is not None and self.perturb:
            raise ValueError("networks that are to give the same keep their own weights: add perturb = false")
        if self.tolerance is not None and self.same is None:
            raise ValueError('tolerance says how much what is the same may differ: add same = "output"')
        return self

    @classmethod
    def of(cls, candidate: str, baseline: str | None = None) -> Self:
        """The pair of a candidate such as `vit_b16.flop` and its plain twin, or a stated baseline.

        Raises:
            FlopbenchError: a name is unknown, or the candidate is plain and no baseline is stated.
        """
        name = parse_name(candidate)
        if baseline is None:
            if not name.has_symmetry:
                named = f"name a symmetry ({name.spec.names[1]}) or " if name.spec else ""
                raise FlopbenchError(
                    f"pair {candidate!r} has no baseline: {named}write {{baseline = ..., candidate = ...}}"
                )
            baseline = name.base
        parse_name(baseline)
        return cls(baseline=baseline, candidate=candidate)

    @property
    def id(self) -> str:
        """`candidate`, or `candidate@baseline` where that is not the plain twin; `+inputs` of its own."""
        implied = parse_name(self.candidate).base
        networks = self.candidate if self.baseline == implied else f"{self.candidate}@{self.baseline}"
        # What was given from Python is named by its networks alone.
        own = self.inputs is not None and not self.inputs.startswith(f"{GIVEN}:")
        return f"{networks}+{self.inputs}" if own else networks

    @property
    def names(self) -> tuple[ModelName, ModelName]:
        """The baseline's and the candidate's name, read."""
        return parse_name(self.baseline), parse_name(self.candidate)

    @property
    def labels(self) -> tuple[str, str]:
        """What people read: the baseline's and the candidate's label, e.g. `ViT-B/16`, `E(ViT-B/16)`."""
        return label_of(self.baseline), label_of(self.candidate)

    @property
    def label(self) -> str:
        """As short as it can be: the candidate's label; both, where that says another baseline."""
        return self.labels[1] if self.tells_baseline else self.spoken

    @property
    def tells_baseline(self) -> bool:
        """Whether the candidate's label leaves no other baseline to think of: E(X) is against X.

        Networks that are not ours say nothing of a baseline, and are called by their names alone.
        """
        candidate = parse_name(self.candidate)
        return not candidate.spec or self.baseline == candidate.base

    @property
    def spoken(self) -> str:
        """In a sentence: "E(ViT-B/16) against ViT-B/16"."""
        return " against ".join(reversed(self.labels))
