"""Sets of image files by the names that timm has for them: `hfds/NAME`, `wds/FOLDER`, and the like."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from timm.data.dataset_factory import create_dataset

from flopbench.errors import FlopbenchError, in_one_line
from flopbench.training.loading import Source

NEEDED = {
    "hfds": "datasets",
    "hfids": "datasets",
    "tfds": "tensorflow_datasets",
    "torch": "torchvision",
    "wds": "webdataset",
}
"""What the names of timm's sets begin with, and the package that each needs."""

STREAMED = ("hfids", "tfds", "wds")

SPLITS = {"training": ("train",), "validation": ("validation", "val", "test")}
"""What a split may be called in a set; the first that there is counts."""

Opened = Callable[..., Any]
"""Opens timm's data set of a split anew, with further arguments of `create_dataset`."""


def is_timms(name: str) -> bool:
    """Whether a name is one of timm's, and no folder's."""
    return name.partition("/")[0] in NEEDED and "/" in name


def is_stream(name: str) -> bool:
    """Whether images of a set of timm's come in the order of a reader, not by their numbers."""
    return name.partition("/")[0] in STREAMED


def open_set(name: str, split: str, num_classes: int | None) -> tuple[Source, Opened]:
    """A split of a set, and how to open it anew.

    Args:
        name: `PREFIX/NAME`, with `:FOLDER` where it lies elsewhere than its library looks; `wds/FOLDER`.
        split: training or validation.
        num_classes: how many the network has; None where the set says how many it has.

    Raises:
        FlopbenchError: a package is missing, the set cannot be opened, has no such split, or other classes.
    """
    prefix, _, rest = name.partition("/")
    package = NEEDED[prefix]
    if find_spec(package) is None:
        raise FlopbenchError(f"{prefix}/ needs {package}: pip install {package.replace('_', '-')}")
    short, _, folder = name.partition(":")
    if prefix == "wds":
        short, folder = f"wds/{Path(rest).resolve().name}", rest
    if prefix in ("torch", "wds") and not (folder and Path(folder).is_dir()):
        form = "torch/NAME:FOLDER" if prefix == "torch" else "wds/FOLDER"
        raise FlopbenchError(f"{name} names no folder that exists: {form}")
    errors = list[str]()
    for called in SPLITS[split]:
        opened = partial(create_dataset, short, root=folder or None, split=called)
        try:
            images = opened()
        # Each library has errors of its own.
        except Exception as error:
            errors.append(in_one_line(error))
            continue
        classes = _classes(images, short, num_classes)
        return Source(images, short, called, classes), opened
    raise FlopbenchError(f"{short} has no images for {split} that can be opened: {errors[0]}")


def _classes(images: Any, name: str, num_classes: int | None) -> tuple[str, ...]:
    labels = getattr(getattr(images, "reader", images), "class_to_idx", None)
    if labels:
        classes = tuple(sorted(labels, key=labels.__getitem__))
    elif num_classes:
        return tuple(map(str, range(num_classes)))
    else:
        raise FlopbenchError(f"{name} does not say how many classes it has: give their number")
    if num_classes not in (None, len(classes)):
        raise FlopbenchError(f"{name} has {len(classes)} classes, the network {num_classes}")
    return tuple(map(str, classes))
