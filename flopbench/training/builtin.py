"""Small sets of real images that packages ship, read from their files: nothing is imported or unpickled."""

import gzip
import hashlib
import io
import pickletools
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from flopbench.errors import FlopbenchError
from flopbench.models.tasks import LearntTask
from flopbench.training.pasting import pasted

Array = np.ndarray


class Split(NamedTuple):
    """Grey images [N, h, w], bytes, and labels: [N], int64, or of each pixel [N, h, w], bytes."""

    images: Array
    labels: Array

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the content."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()[:12]


class ImageSet(NamedTuple):
    """A set that fits into memory. The background of its images is 0, and so is its label where pixels have
    labels.

    Attributes:
        name: that it is opened by.
        training: what networks learn from.
        validation: what their accuracy is measured on.
        classes: names in the order of the labels.
        oriented: whether the mirror image of an image is none of its class any more.
        left_out: reason → images that the files have and the set has not.
    """

    name: str
    training: Split
    validation: Split
    classes: tuple[str, ...]
    oriented: bool = False
    left_out: Mapping[str, int] = {}

    @property
    def task(self) -> LearntTask:
        """What its labels are for."""
        return "classification" if self.training.labels.ndim == 1 else "segmentation"


ANIMALS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
CLOTHES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
# Of what the files hold once they are unpacked.
ANIMAL_DIGESTS = {
    "animal_data_version_3.gz": "3d1bb93498a7f7cb5a4c0d5dc57d57d78adc2ac1722398921542a7515172c46f",
    "animal_label_version_3.gz": "c5575395e636cadcdfe5764ffc8d56f56d234a4dc687096f8fc2d975dd6a5597",
}
TEXTURE_DIGESTS = {
    "brick.png": "664a145c5253f0d66db1a12776785f0ea35a44cc7447ffc933f6d6118dc58643",
    "grass.png": "b18dae4c68bf850a7a7b28a29d1846c76be890665117b57fd125fe29c4d4ede6",
    "gravel.png": "3d51ad45f789cd8b98534b7af6bce774e499ead45421135afd757358c7230009",
}
FASHION_DIGESTS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def animal_shape_mnist(folder: Path | None) -> ImageSet:
    """Silhouettes of ten animals, 28×28, of the package animal-shape-mnist: equal images count once."""
    folder = folder or _package_folder("animal_shape_mnist", "animal-shape-mnist") / "data" / "Animal Shape"
    images, labels = (
        _verified(longest_bytes(_unpacked(folder / name), name), name, digest)
        for name, digest in ANIMAL_DIGESTS.items()
    )
    split = Split(
        np.frombuffer(images, np.uint8).reshape(-1, 28, 28), np.frombuffer(labels, "<i8").astype(np.int64)
    )
    return divided("animal-shape-mnist", split, ANIMALS)


def animal_segmentation(folder: Path | None) -> ImageSet:
    """The silhouettes of animal-shape-mnist on brick, grass and gravel of scikit-image, 32×32: eleven classes
    of pixels, the background and ten animals.

    Neither silhouettes nor parts of a texture are both in the training and the validation split.
    """
    animals = animal_shape_mnist(folder)
    folder = folder or _package_folder("skimage", "scikit-image") / "data"
    textures = np.stack([_texture(folder / name, digest) for name, digest in TEXTURE_DIGESTS.items()])
    # The lowest fifth of the textures is for validation, as a fifth of the silhouettes is.
    upper, lower = np.split(textures, [4 * textures.shape[1] // 5], axis=1)
    training, validation = (
        Split(*pasted(*silhouettes, grounds))
        for silhouettes, grounds in ((animals.training, upper), (animals.validation, lower))
    )
    return ImageSet(
        "animal-segmentation",
        training,
        validation,
        ("background", *ANIMALS),
        left_out=animals.left_out,
    )


def fashion_mnist(folder: Path | None) -> ImageSet:
    """Zalando's clothes, 28×28: four IDX files, of Debian's package or of a folder, packed or not."""
    where = folder or FASHION_FOLDER
    if not where.is_dir():
        raise FlopbenchError(
            f"Fashion-MNIST is not in {where}: apt-get install dataset-fashion-mnist, or name the folder of "
            "its four files: fashion-mnist:FOLDER"
        )
    arrays = [
        read_idx(_verified(_unpacked(where / f"{name}.gz", where / name), name, digest), name)
        for name, digest in FASHION_DIGESTS.items()
    ]
    training, validation = (
        Split(images, labels.astype(np.int64))
        for images, labels in zip(arrays[::2], arrays[1::2], strict=True)
    )
    return ImageSet("fashion-mnist", training, validation, CLOTHES)


def digits(folder: Path | None) -> ImageSet:
    """Handwritten digits, 8×8 with values from 0 to 16, of scikit-learn."""
    folder = folder or _package_folder("sklearn", "scikit-learn") / "datasets" / "data"
    name = "digits.csv.gz"
    try:
        table = np.loadtxt(io.BytesIO(_unpacked(folder / name)), np.int64, delimiter=",", ndmin=2)
        split = Split(table[:, :-1].astype(np.uint8).reshape(-1, 8, 8), table[:, -1])
    except ValueError:
        raise FlopbenchError(
            f"{name} is not the table of digits that scikit-learn has: install it anew"
        ) from None
    return divided("digits", split, tuple("0123456789"), oriented=True)


SETS: dict[str, Callable[[Path | None], ImageSet]] = {
    "animal-shape-mnist": animal_shape_mnist,
    "animal-segmentation": animal_segmentation,
    "fashion-mnist": fashion_mnist,
    "digits": digits,
}
"""Name → what reads the set, from its package or from another folder of its files."""


def divided(name: str, whole: Split, classes: tuple[str, ...], *, oriented: bool = False) -> ImageSet:
    """A set in two: a fifth of every class, of unlike images alone, is for validation.

    Which fifth, the images' digests decide: it is the same for ever, whatever the order of the files and the
    generators of random numbers.
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in whole.images]
    # Of equal images the first counts.
    first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
    for_training, for_validation = list[int](), list[int]()
    for label in range(len(classes)):
        of_class = [first[digest] for digest in sorted(first) if whole.labels[first[digest]] == label]
        fifth = len(of_class) // 5
        for_validation += of_class[:fifth]
        for_training += of_class[fifth:]
    training, validation = (
        Split(whole.images[chosen], whole.labels[chosen]) for chosen in (for_training, for_validation)
    )
    equal = len(digests) - len(first)
    left_out = {"equal to another image": equal} if equal else {}
    return ImageSet(name, training, validation, classes, oriented, left_out)


def longest_bytes(pickled: bytes, name: str) -> bytes:
    """The longest byte string within a pickle, whose instructions are read and not followed.

    Raises:
        FlopbenchError: it is no pickle, or has none.
    """
    try:
        return max((arg for _, arg, _ in pickletools.genops(pickled) if isinstance(arg, bytes)), key=len)
    except ValueError:
        raise FlopbenchError(f"{name} is damaged: it is no pickle of an array") from None


def read_idx(content: bytes, name: str) -> Array:
    """The array of bytes in an IDX file: two zeros, the type (8), how many dimensions; their sizes; the data.

    Raises:
        FlopbenchError: it is no such file, or not whole.
    """
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if dimensions == 0 or len(content) < start:
        raise FlopbenchError(f"{name} is not an IDX file of bytes")
    shape = np.frombuffer(content[4:start], ">u4").astype(int)
    if len(content) != start + shape.prod():
        wanted = "×".join(map(str, shape))
        raise FlopbenchError(
            f"{name} is damaged: {wanted} bytes are announced, {len(content) - start} follow"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _texture(path: Path, digest: str) -> Array:
    """A grey image [h, w], bytes."""
    try:
        with Image.open(path) as image:
            texture = np.asarray(image.convert("L"))
    except OSError as error:
        raise FlopbenchError(f"{path} cannot be read: {error}") from None
    _verified(texture.tobytes(), path.name, digest)
    return texture


def _package_folder(package: str, distribution: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FlopbenchError(f"{distribution} is not installed: pip install 'flopbench[sets]'")
    return Path(next(iter(spec.submodule_search_locations)))


def _unpacked(*candidates: Path) -> bytes:
    """The content of the first of these files that exists."""
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise FlopbenchError(f"there is no file {candidates[0]}")
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, ValueError) as error:
        raise FlopbenchError(f"{path} cannot be read: {error}") from None


def _verified(content: bytes, name: str, digest: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise FlopbenchError(
            f"{name} is not the file that flopbench knows: SHA-256 {found[:16]}…, not {digest[:16]}…"
        )
    return content
