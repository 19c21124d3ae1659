"""Sets of image files by the names that timm has for them: `hfds/NAME`, `wds/FOLDER`, and the like."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from timm.data.dataset_factory import create_dataset

from flopbench.errors import FlopbenchError, in_one_line
from flopbench.training.loading import Source
from flopbench.training.splits import Numbered, Split, Streamed

NEEDED = {
    "hfds": "datasets",
    "tfds": "tensorflow_datasets",
    "torch": "torchvision",
    "wds": "webdataset",
}
"""What the names of timm's sets begin with, and the package that each needs."""

STREAMED = ("tfds", "wds")

SPLITS = {"training": ("train",), "validation": ("validation", "val", "test")}
"""What a split may be called in a set; the first that there is counts."""


def is_timms(name: str) -> bool:
    """Whether a name is one of timm's, and no folder's."""
    return name.partition("/")[0] in NEEDED and "/" in name


def open_set(name: str, split: str, num_classes: int | None) -> Split:
    """A split of a set.

    Args:
        name: `PREFIX/NAME`, with `:FOLDER` where it lies elsewhere than its library looks; `wds/FOLDER`.
        split: training or validation.
        num_classes: how many the network has; None where the set names its classes, as a file `classes.txt`
            in its folder can.

    Raises:
        FlopbenchError: a package is missing, the set cannot be opened, has no such split, or other classes.
    """
    prefix, _, rest = name.partition("/")
    package = NEEDED[prefix]
    if find_spec(package) is None:
        raise FlopbenchError(f"{prefix}/ needs {package}: pip install {package.replace('_', '-')}")
    inner, _, folder = ("", "", rest) if prefix == "wds" else rest.partition(":")
    if prefix in ("torch", "wds") and not (folder and Path(folder).is_dir()):
        form = "torch/NAME:FOLDER" if prefix == "torch" else "wds/FOLDER"
        raise FlopbenchError(f"{name} names no folder that exists: {form}")
    # A record has no path of the machine.
    path = Path(inner or folder)
    shown = f"{prefix}/{path.resolve().name if path.is_dir() else inner}"
    errors = list[str]()
    for called in SPLITS[split]:
        opened = partial(create_dataset, f"{prefix}/{inner}", root=folder or None, split=called)
        try:
            images = opened()
        # Each library has errors of its own.
        except Exception as error:
            errors.append(in_one_line(error))
            continue
        classes = _classes(images, shown, Path(folder, "classes.txt") if folder else None, num_classes)
        source = Source(images, shown, called, classes)
        return Streamed(source, opened) if prefix in STREAMED else Numbered(source)
    raise FlopbenchError(f"{name} has no images for {split} that can be opened: {errors[0]}")


def _classes(images: Any, name: str, listed: Path | None, num_classes: int | None) -> tuple[str, ...]:
    labels = getattr(getattr(images, "reader", images), "class_to_idx", None)
    if labels:
        classes = tuple(sorted(labels, key=labels.__getitem__))
    elif listed and listed.is_file():
        classes = tuple(listed.read_text("utf-8").splitlines())
    elif num_classes:
        return tuple(map(str, range(num_classes)))
    else:
        remedy = f": {listed} may, one a line" if listed else ""
        raise FlopbenchError(f"{name} does not name its classes{remedy}")
    if num_classes not in (None, len(classes)):
        raise FlopbenchError(f"{name} has {len(classes)} classes, the network {num_classes}")
    return tuple(map(str, classes))
