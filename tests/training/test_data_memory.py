"""Sets that fit into memory: what is read of packages, how it is split, and the batches made of it."""

import gzip
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flopbench.errors import FlopbenchError
from flopbench.recipes import Augmentation, Optimiser, Recipe
from flopbench.training import builtin
from flopbench.training.batches import Batch
from flopbench.training.builtin import ImageSet, Split, divided, longest_bytes, read_idx
from flopbench.training.data import open_data, open_validation
from flopbench.training.memory import InMemory, mirror_asymmetry
from flopbench.training.world import World

CPU = torch.device("cpu")
ALONE = World(CPU)
IMAGES = 40


@pytest.fixture
def small() -> ImageSet:
    """Forty images for training and ten for validation, 4×4, each unlike the others; two classes."""
    rng = np.random.default_rng(0)
    whole = Split(rng.integers(1, 256, (IMAGES + 10, 4, 4), np.uint8), np.arange(IMAGES + 10) % 2)
    return ImageSet(
        "small", Split(*(a[:IMAGES] for a in whole)), Split(*(a[IMAGES:] for a in whole)), ("a", "b")
    )


def recipe(**augmentation: Any) -> Recipe:
    return Recipe(
        name="own",
        title="",
        epochs=1,
        batch_size=8,
        image_size=(28, 28),
        optimiser=Optimiser(name="adamw", learning_rate=1e-3),
        augmentation=Augmentation(**augmentation),
    )


def raw(data: InMemory, batch: Batch) -> torch.Tensor:
    """Bytes again, one channel [B, H, W]."""
    values = (batch.images[:, 0] * data.std[0] + data.mean[0]) * 255
    return values.round().to(torch.uint8)


def test_an_epoch_has_every_image_once_as_whole_batches(small: ImageSet):
    data = InMemory(small, (4, 4), ALONE, Augmentation(mirror=0))
    batches = list(data.training(0, 0, 8, seed=3))
    assert len(batches) == data.steps(8) == 5
    found = torch.cat([raw(data, batch) for batch in batches]).flatten(1)
    labels = torch.cat([batch.labels for batch in batches])
    places = {image.tobytes(): place for place, image in enumerate(small.training.images)}
    indices = [places[image.numpy().tobytes()] for image in found]
    assert sorted(indices) == list(range(IMAGES))
    assert indices != sorted(indices)
    assert labels.tolist() == small.training.labels[indices].tolist()
    # What does not fill a batch is left out of this epoch.
    assert [len(batch.labels) for batch in data.training(0, 0, 16, seed=3)] == [16, 16]


def test_some_of_the_validation_images_spread_evenly_can_stand_for_all(small: ImageSet):
    data = InMemory(small, (4, 4), ALONE, shown=5)
    found = torch.cat([raw(data, batch) for batch in data.validating(2)])
    assert data.validation.images == 5
    assert torch.equal(found, torch.from_numpy(small.validation.images[::2]))
    assert InMemory(small, (4, 4), ALONE, shown=100).validation.images == 10


def test_processes_share_the_images_that_stand_for_all(small: ImageSet):
    shares = [InMemory(small, (4, 4), World(CPU, rank, 2), shown=5).validating(8) for rank in range(2)]
    labels = [[batch.labels.tolist() for batch in share] for share in shares]
    assert [sum(map(len, own)) for own in labels] == [3, 2]


def test_batches_are_a_function_of_seed_and_epoch_and_begin_anywhere(small: ImageSet):
    data = InMemory(small, (6, 6), ALONE, Augmentation(shift=1, mirror=0.5))
    whole = list(data.training(2, 0, 8, seed=3))
    again = InMemory(small, (6, 6), ALONE, Augmentation(shift=1, mirror=0.5))
    for first, second in zip(whole[2:], again.training(2, 2, 8, seed=3), strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.labels, second.labels)
    for other in (data.training(3, 0, 8, seed=3), data.training(2, 0, 8, seed=4)):
        assert not torch.equal(next(other).images, whole[0].images)


def test_every_epoch_shifts_anew():
    # Of one image alone, so that its order says nothing.
    one = Split(np.repeat(np.arange(1, 17, dtype=np.uint8).reshape(1, 4, 4), 8, 0), np.arange(8) % 2)
    data = InMemory(ImageSet("one", one, one, ("a", "b")), (6, 6), ALONE, Augmentation(shift=1, mirror=0))
    first, second = (next(data.training(epoch, 0, 8, seed=3)).images for epoch in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("repeats", [1, 3])
def test_processes_share_what_one_alone_has(small: ImageSet, repeats: int):
    augmentation = Augmentation(shift=1, mirror=0.5, repeats=repeats)
    alone = InMemory(small, (4, 4), ALONE, augmentation)
    both = [InMemory(small, (4, 4), World(CPU, rank, 2), augmentation) for rank in range(2)]
    shares = zip(*(one.training(0, 0, 8, seed=0) for one in both), strict=True)
    for whole, (even, odd) in zip(alone.training(0, 0, 8, seed=0), shares, strict=True):
        assert torch.equal(whole.images[::2], even.images)
        assert torch.equal(whole.images[1::2], odd.images)
    validated = [torch.cat([batch.labels for batch in one.validating(3)]) for one in both]
    assert torch.equal(torch.stack(validated, 1).flatten(), torch.from_numpy(small.validation.labels))


def test_repeats_are_versions_of_one_image_in_an_epoch_as_long(small: ImageSet):
    data = InMemory(small, (6, 6), ALONE, Augmentation(shift=1, mirror=0.5, repeats=4))
    batches = list(data.training(0, 0, 8, seed=0))
    assert len(batches) == 5
    images = raw(data, batches[0])
    # Two images in four versions each: shifted within their margin, all pixels are still there.
    energies = images.long().flatten(1).sum(1)
    assert len(energies[:4].unique()) == len(energies[4:].unique()) == 1
    assert len(images.unique(dim=0)) > 2


def test_the_share_of_mirrored_images_can_be_another_than_the_recipes(small: ImageSet):
    data = InMemory(small, (4, 4), ALONE, Augmentation(mirror=0.5))
    never, half, always = (next(data.training(0, 0, 40, seed=0, mirror=m)).images for m in (0, None, 1.0))
    assert torch.equal(never.flip(-1), always)
    mirrored = (half == always).flatten(1).all(1)
    assert torch.equal(half[~mirrored], never[~mirrored])
    assert 8 < mirrored.sum() < 32


def test_images_lie_in_the_middle_magnified_on_background(small: ImageSet):
    data = InMemory(small, (10, 12), ALONE)
    images = torch.cat([raw(data, batch) for batch in data.validating(4)])
    assert images.shape == (10, 10, 12)
    shown = images[:, 1:-1, 2:-2]
    expected = torch.from_numpy(small.validation.images).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(shown, expected)
    assert images.long().sum() == shown.long().sum()


def test_images_are_normalised_by_the_training_split(small: ImageSet):
    data = InMemory(small, (4, 4), ALONE)
    images = torch.cat([batch.images for batch in data.training(0, 0, 8, seed=0)])
    assert images.shape == (IMAGES, 3, 4, 4)
    assert images.is_contiguous()
    assert torch.equal(images[:, 0], images[:, 2])
    torch.testing.assert_close(images.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std(correction=0), torch.tensor(1.0))
    other = next(InMemory(small, (4, 4), ALONE, mean=(0, 0, 0), std=(1, 1, 1)).validating(10)).images
    torch.testing.assert_close(other[:, 1] * 255, torch.from_numpy(small.validation.images).float())


@pytest.mark.parametrize("size", [(3, 4), (4, 3), (5, 4), (4, 7)])
def test_images_that_are_too_large_or_off_the_middle_are_refused(small: ImageSet, size: tuple[int, int]):
    with pytest.raises(FlopbenchError, match=f"small, 4x4, .* image_size {size[0]}x{size[1]}: take 4x4, or"):
        InMemory(small, size, ALONE)


def test_a_batch_has_to_be_whole_and_shared_evenly(small: ImageSet):
    with pytest.raises(FlopbenchError, match="a batch of 41 images is more than small has for training: 40"):
        InMemory(small, (4, 4), ALONE).steps(41)
    with pytest.raises(FlopbenchError, match="3 processes cannot share batches of 8 images evenly"):
        next(InMemory(small, (4, 4), World(CPU, 0, 3)).training(0, 0, 8, seed=0))


def test_augmentations_that_tensors_do_not_take_are_refused():
    with pytest.raises(FlopbenchError, match=r"mirror, repeats alone; own also has crop_scale, policy$"):
        open_data("digits", recipe(crop_scale=(0.08, 1), policy="3a", interpolation="bilinear"), ALONE)


def test_the_split_is_stratified_without_equal_images_and_knows_no_order():
    rng = np.random.default_rng(0)
    images = np.concatenate([rng.integers(0, 256, (60, 2, 2), np.uint8)] * 2)
    whole = Split(images, np.concatenate([np.arange(60) % 3] * 2))
    split = divided("own", whole, ("a", "b", "c"))
    assert split.left_out == {"equal to another image": 60}
    assert np.bincount(split.training.labels).tolist() == [16, 16, 16]
    assert np.bincount(split.validation.labels).tolist() == [4, 4, 4]
    both = {image.tobytes() for part in (split.training, split.validation) for image in part.images}
    assert len(both) == 60
    order = rng.permutation(60)
    assert divided("own", Split(*(a[order] for a in whole)), ("a", "b", "c")).validation.digest == (
        split.validation.digest
    )


def test_networks_of_other_classes_are_refused(small: ImageSet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(builtin.SETS, "small", lambda folder: small)
    assert open_validation("small", image_size=(4, 4), world=ALONE, num_classes=2).validation.images == 10
    with pytest.raises(FlopbenchError, match="small has 2 classes, the network 1000"):
        open_validation("small", image_size=(4, 4), world=ALONE, num_classes=1000)


def test_asymmetry_is_that_of_class_means():
    symmetric = np.array([[[1, 2, 1]]])
    antisymmetric = np.array([[[1, 0, 3]]])
    split = Split(np.concatenate([symmetric, antisymmetric]), np.array([0, 1]))
    assert mirror_asymmetry(split, ("a", "b")) == pytest.approx({"a": 0, "b": 2 / 10})


def test_a_pickle_is_read_and_not_run(tmp_path: Path):
    mark = tmp_path / "run"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (mark,)

    assert longest_bytes(pickle.dumps([Trap(), b"b", b"12345"], 4), "f.gz") == b"12345"
    assert not mark.exists()
    for broken in (b"no pickle", pickle.dumps([1]), b""):
        with pytest.raises(FlopbenchError, match=r"f\.gz is damaged: it is no pickle of an array"):
            longest_bytes(broken, "f.gz")


def test_an_idx_file_is_read_whole_or_refused():
    head = b"\0\0\x08\x02" + np.array([2, 3], ">u4").tobytes()
    assert read_idx(head + bytes(range(6)), "f").tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(FlopbenchError, match="f is damaged: 2×3 bytes are announced, 5 follow"):
        read_idx(head + bytes(5), "f")
    for other in (b"", head[:3], head[:7], b"\x89PNG" + bytes(20)):
        with pytest.raises(FlopbenchError, match="f is not an IDX file of bytes"):
            read_idx(other, "f")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("animal-shape-mnist", r"pip install 'flopbench\[sets\]'"),
        ("digits", r"pip install 'flopbench\[sets\]'"),
        (
            "fashion-mnist",
            "apt-get install dataset-fashion-mnist, or name the folder .* fashion-mnist:FOLDER",
        ),
    ],
)
def test_what_is_not_installed_is_named_with_the_command(
    name: str, remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(builtin, "find_spec", lambda package: None)
    monkeypatch.setattr(builtin, "FASHION_FOLDER", tmp_path / "none")
    with pytest.raises(FlopbenchError, match=remedy):
        open_validation(name, image_size=(28, 28), world=ALONE)


def test_files_that_are_missing_damaged_or_others_are_named(tmp_path: Path):
    def opened() -> object:
        return open_validation(f"fashion-mnist:{tmp_path}", image_size=(28, 28), world=ALONE)

    with pytest.raises(FlopbenchError, match=r"there is no file .*train-images-idx3-ubyte\.gz"):
        opened()
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(bytes(1000), mtime=0)[:-9])
    with pytest.raises(FlopbenchError, match=r"train-images-idx3-ubyte\.gz cannot be read: .*end"):
        opened()
    file.write_bytes(gzip.compress(bytes(1000)))
    with pytest.raises(FlopbenchError, match=r"is not the file that flopbench knows: SHA-256 541b3e9d"):
        opened()


@pytest.mark.parametrize(
    ("name", "package", "images", "oriented", "digests"),
    [
        ("animal-shape-mnist", "animal_shape_mnist", (7775, 1941), False, ("3cd2964dfc41", "b56ef94e24ac")),
        ("digits", "sklearn", (1442, 355), True, ("f1504fda5bec", "e1041e0fa22c")),
    ],
)
def test_the_sets_of_packages_are_split_as_ever(
    name: str, package: str, images: tuple[int, int], oriented: bool, digests: tuple[str, str]
):
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    data = open_data(name, recipe(shift=2), ALONE)
    for info, number, digest in zip((data.info, data.validation), images, digests, strict=True):
        assert (info.images, info.digest, info.oriented, info.classes) == (number, digest, oriented, 10)
    batch = next(data.training(0, 0, 8, seed=0))
    assert batch.images.shape == (8, 3, 28, 28)


@pytest.mark.skipif(not builtin.FASHION_FOLDER.is_dir(), reason="Fashion-MNIST is not installed")
def test_fashion_mnist_is_less_symmetric_than_its_labels():
    data = builtin.fashion_mnist(None)
    assert (len(data.training.labels), len(data.validation.labels)) == (60000, 10000)
    asymmetry = mirror_asymmetry(data.training, data.classes)
    assert asymmetry["ankle boot"] == pytest.approx(0.227, abs=0.002)
    assert max(asymmetry["trouser"], asymmetry["bag"]) < 0.02
