"""Folders of images: `train/CLASS/IMAGE` and `val/CLASS/IMAGE`, checked before anything is read."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm.data.dataset_factory import create_dataset
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from timm.data.readers.img_extensions import get_img_extensions
from timm.utils.misc import natural_key

from flopbench.errors import FlopbenchError
from flopbench.training.loading import Source

SPLITS = {
    "training": ("train", "training"),
    "validation": ("val", "validation", "valid", "eval", "evaluation", "test"),
}
"""What the folders of a split may be called."""


def open_folders(root: Path) -> tuple[Source, Source]:
    """The training and the validation split of a folder, whose classes have to be the same.

    Raises:
        FlopbenchError: either is missing, or not as `open_folder` says.
    """
    training, validation = (
        open_folder(_split(root, split) or _missing(root, split), root, split) for split in SPLITS
    )
    if training.classes != validation.classes:
        first, second = set(training.classes), set(validation.classes)
        alone = [f"{_few(sorted(first - second))} only for training"] if first - second else []
        alone += [f"{_few(sorted(second - first))} only for validation"] if second - first else []
        raise FlopbenchError(f"the classes of {root} differ: {'; '.join(alone)}")
    return training, validation


def open_validation_folder(root: Path, num_classes: int | None) -> Source:
    """The validation split of a folder, or the folder itself where it has the classes at once.

    Raises:
        FlopbenchError: as `open_folder`.
    """
    folder = _split(root, "validation")
    if folder is None and _split(root, "training"):
        _missing(root, "validation")
    return open_folder(folder or root, root, "validation", num_classes)


def open_folder(folder: Path, root: Path, split: str, num_classes: int | None = None) -> Source:
    """Images by class.

    Args:
        folder: of the classes' folders.
        root: what the set is called by.
        split: which it is.
        num_classes: how many the network has. Where these are other than the folders, each of which is named
            after a synset of ImageNet or by a number, this says the label; else it is the folders' order.

    Raises:
        FlopbenchError: no folder, no classes or one alone, a class without images, or classes that are not
            those of a network of `num_classes`.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FlopbenchError(f"{folder} {what}: name a folder of train/CLASS/IMAGE and val/CLASS/IMAGE")
    names = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    names.sort(key=natural_key)
    if len(names) < 2:
        found = f"has one class alone, {names[0]}" if names else "has no folders of classes"
        raise FlopbenchError(f"{folder} {found}: images lie in CLASS/IMAGE, of two classes or more")
    extensions = get_img_extensions(as_set=True)
    for name in names:
        if not any(file.suffix.lower() in extensions for file in (folder / name).iterdir()):
            raise FlopbenchError(f"{folder / name} has no images: its class is empty, or no class")
    classes = _labels(folder, names, num_classes)
    labels = {name: label for label, name in enumerate(classes)}
    images: Any = create_dataset("", root=str(folder), search_split=False, class_map=labels)
    paths = "\n".join(Path(path).relative_to(folder).as_posix() for path, _ in images.reader.samples)
    digest = hashlib.sha256(paths.encode()).hexdigest()[:12]
    return Source(images, root.resolve().name, split, classes, digest)


def _labels(folder: Path, names: Sequence[str], num_classes: int | None) -> tuple[str, ...]:
    """The names of classes in the order of their labels, those without images among them."""
    if num_classes in (None, len(names)):
        return tuple(names)
    subset = infer_imagenet_subset({"num_classes": num_classes})
    if all(re.fullmatch(r"n\d{8}", name) for name in names) and subset:
        known = ImageNetInfo(subset).label_names()
        if foreign := sorted(set(names) - set(known)):
            raise FlopbenchError(f"{folder}: {_few(foreign)} is no class of {subset}")
        return tuple(known)
    if all(re.fullmatch(r"0|[1-9]\d{0,8}", name) for name in names):
        if int(names[-1]) >= num_classes:
            raise FlopbenchError(
                f"{folder / names[-1]} is none of the network's {num_classes} classes, which count from 0"
            )
        return tuple(map(str, range(num_classes)))
    raise FlopbenchError(
        f"{folder} has {len(names)} classes, the network {num_classes}: name the folders by their labels "
        "(0, 1, …) or, those of ImageNet, by synsets (n01440764)"
    )


def _split(root: Path, split: str) -> Path | None:
    return next((root / name for name in SPLITS[split] if (root / name).is_dir()), None)


def _missing(root: Path, split: str) -> Path:
    if not root.is_dir():
        return root
    raise FlopbenchError(
        f"{root} has no folder {SPLITS[split][0]}: images lie in {SPLITS[split][0]}/CLASS/IMAGE"
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
