"""Folders of images: what is checked before anything is read, and the batches made of their files."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flopbench.errors import FlopbenchError
from flopbench.recipes import Augmentation, Evaluation, Optimiser, Recipe
from flopbench.training.batches import Batch, seeded
from flopbench.training.data import Data, open_data, open_validation
from flopbench.training.world import World

pytest.importorskip("timm")
pytest.importorskip("torchvision")
from PIL import Image

from flopbench.training import timm_sets
from flopbench.training.augmenting import evaluation_transform
from flopbench.training.files import FileData
from flopbench.training.loading import Loading, Source, in_colour
from flopbench.training.splits import Streamed

CPU = torch.device("cpu")
ALONE = World(CPU)
EVERYTHING = Augmentation(
    crop_scale=(0.3, 1), policy="3a", colour_jitter=0.3, erasing=0.5, mirror=0.5, interpolation="bilinear"
)
# What Python from 3.12 on says of starting workers beside torch's threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def recipe(augmentation: Augmentation = EVERYTHING) -> Recipe:
    return Recipe(
        name="own",
        title="",
        epochs=1,
        batch_size=4,
        image_size=(8, 8),
        optimiser=Optimiser(name="adamw", learning_rate=1e-3),
        augmentation=augmentation,
    )


def write(folder: Path, classes: Iterable[str], images: int, *, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(images):
            pixels = rng.integers(0, 256, (10, 12, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes of six images to train on and three to validate."""
    write(tmp_path / "photographs" / "train", ("cat", "dog"), 6)
    write(tmp_path / "photographs" / "val", ("cat", "dog"), 3, seed=1)
    return tmp_path / "photographs"


def opened(folder: Path, augmentation: Augmentation = EVERYTHING, **named: Any) -> Data:
    return open_data(str(folder), recipe(augmentation), named.pop("world", ALONE), **{"workers": 0, **named})


def same(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    assert pairs
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_a_folder_is_two_splits_of_batches(photographs: Path):
    data = opened(photographs)
    assert (data.info.name, data.info.split, data.info.images, data.info.classes) == (
        "photographs",
        "training",
        12,
        2,
    )
    assert (data.validation.split, data.validation.images) == ("validation", 6)
    assert data.classes == ("cat", "dog")
    (photographs / "train" / "dog" / "5.png").rename(photographs / "train" / "dog" / "6.png")
    again = opened(photographs)
    assert (again.info.digest == data.info.digest, again.validation) == (False, data.validation)
    data = again
    batches = list(data.training(0, 0, 4, seed=0))
    assert [batch.images.shape for batch in batches] == [(4, 3, 8, 8)] * data.steps(4) == [(4, 3, 8, 8)] * 3
    assert sorted(torch.cat([batch.labels for batch in batches]).tolist()) == [0] * 6 + [1] * 6
    validated = list(data.validating(4))
    assert [len(batch.labels) for batch in validated] == [4, 2]
    assert torch.cat([batch.labels for batch in validated]).tolist() == [0, 0, 0, 1, 1, 1]


def test_validation_images_are_resized_cropped_and_normalised(photographs: Path):
    image = Image.open(photographs / "val" / "cat" / "0.png").resize((12, 10), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.asarray(image)[1:9, 2:10].copy()).permute(2, 0, 1) / 255
    data = open_validation(
        str(photographs),
        image_size=(8, 8),
        crop=0.8,
        mean=(0.5, 0.4, 0.3),
        std=(0.5, 0.25, 0.2),
        world=ALONE,
        workers=0,
    )
    found = next(data.validating(4)).images[0]
    scaled = found * torch.tensor(data.std)[:, None, None] + torch.tensor(data.mean)[:, None, None]
    torch.testing.assert_close(scaled, expected)


def test_batches_are_the_same_for_any_number_of_workers_and_any_start(photographs: Path):
    whole = list(opened(photographs).training(1, 0, 4, seed=5))
    assert same(whole, opened(photographs, workers=2).training(1, 0, 4, seed=5))
    assert same(whole[1:], opened(photographs).training(1, 1, 4, seed=5))
    assert not same(whole, opened(photographs).training(2, 0, 4, seed=5))
    assert not same(whole, opened(photographs).training(1, 0, 4, seed=6))


def test_random_numbers_of_others_go_on_as_if_nothing_had_been(photographs: Path):
    def numbers() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    with seeded(1):
        alone = numbers(), numbers()
    with seeded(1):
        first = numbers()
        list(opened(photographs).training(0, 0, 4, seed=0))
        assert (first, numbers()) == alone


def test_processes_share_what_one_alone_has(photographs: Path):
    augmentation = EVERYTHING.model_copy(update={"erasing": 0.0, "repeats": 2})
    alone = list(opened(photographs, augmentation).training(0, 0, 4, seed=0))
    for rank in range(2):
        part = opened(photographs, augmentation, world=World(CPU, rank, 2))
        own = [Batch(batch.images[rank::2], batch.labels[rank::2]) for batch in alone]
        assert same(own, part.training(0, 0, 4, seed=0))
    # An image and its other version stand side by side.
    assert all(batch.labels[0] == batch.labels[1] for batch in alone)
    assert not torch.equal(alone[0].images[0], alone[0].images[1])
    parts = [opened(photographs, world=World(CPU, rank, 4)) for rank in range(4)]
    validated = [label for part in parts for batch in part.validating(1) for label in batch.labels.tolist()]
    assert sorted(validated) == [0, 0, 0, 1, 1, 1]


def test_without_crops_images_are_shifted_and_mirrored_alone(photographs: Path):
    still, mirrored = (
        next(opened(photographs, Augmentation(shift=2)).training(0, 0, 12, seed=0, mirror=share)).images
        for share in (0.0, 1.0)
    )
    assert torch.equal(still.flip(-1), mirrored)
    first, second = (
        next(opened(photographs, Augmentation(shift=2)).training(e, 0, 12, seed=0)) for e in (0, 1)
    )
    assert not torch.equal(first.images.sort(0).values, second.images.sort(0).values)


def test_rectangles_are_erased(photographs: Path):
    whole, erased = (
        next(opened(photographs, Augmentation(erasing=share)).training(0, 0, 12, seed=0)).images
        for share in (0.0, 1.0)
    )
    other = (whole != erased).flatten(1).float().mean(1)
    assert ((other > 0) & (other < 0.9)).all()


def test_every_step_erases_anew(photographs: Path):
    whole, erased = (
        [batch.images for batch in opened(photographs, Augmentation(erasing=share)).training(0, 0, 4, seed=0)]
        for share in (0.0, 1.0)
    )
    first, second = (one != other for one, other in zip(whole[:2], erased[:2], strict=True))
    assert not torch.equal(first, second)


def test_workers_end_when_the_iteration_does(photographs: Path):
    import multiprocessing

    batches = opened(photographs, workers=2).training(0, 0, 4, seed=0)
    next(batches)
    assert multiprocessing.active_children()
    del batches
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_line_with_its_name(photographs: Path, workers: int):
    (photographs / "train" / "cat" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    whole = (photographs / "val" / "dog" / "1.png").read_bytes()
    (photographs / "val" / "dog" / "1.png").write_bytes(whole[:100])
    data = opened(photographs, workers=workers)
    with pytest.raises(FlopbenchError, match=r"^[^\n]*photographs/train/cat/3\.png [^\n]*$"):
        list(data.training(0, 0, 4, seed=0))
    with pytest.raises(FlopbenchError, match=r"^[^\n]*photographs/val/dog/1\.png cannot be read: [^\n]*$"):
        list(data.validating(4))


def empty_class(root: Path) -> None:
    (root / "val" / "bird").mkdir()
    (root / "val" / "bird" / "readme.txt").touch()


def other_classes(root: Path) -> None:
    (root / "val" / "dog").rename(root / "val" / "wolf")


def one_class(root: Path) -> None:
    (root / "train" / "dog").rename(root / "dog")


def no_classes(root: Path) -> None:
    for name in ("cat", "dog"):
        for file in (root / "train" / name).iterdir():
            file.rename(root / "train" / f"{name}{file.name}")
        (root / "train" / name).rmdir()


def no_validation(root: Path) -> None:
    (root / "val").rename(root / "other")


def test_images_of_any_kind_become_three_channels_of_eight_bits():
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for image in (Image.fromarray(ramp * 256 + 7), Image.fromarray(ramp.astype(np.uint8))):
        assert np.array_equal(np.asarray(in_colour(image)), np.stack([ramp] * 3, -1)), image.mode
    for mode in ("1", "LA", "P", "RGBA", "CMYK"):
        assert in_colour(Image.new(mode, (3, 2))).mode == "RGB"
    with pytest.raises(ValueError, match="numbers of 32 bits: save it with 8 or 16"):
        in_colour(Image.new("F", (3, 2)))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (empty_class, "photographs/val/bird has no images"),
        (other_classes, "photographs differ: dog only for training; wolf only for validation$"),
        (one_class, "photographs/train has one class alone, cat: images lie in CLASS/IMAGE"),
        (no_classes, "photographs/train has no folders of classes: images lie in CLASS/IMAGE"),
        (no_validation, "photographs has no folder val: images lie in val/CLASS/IMAGE"),
    ],
)
def test_folders_that_do_not_fit_are_refused_at_once(
    photographs: Path, spoil: Callable[[Path], None], line: str
):
    spoil(photographs)
    with pytest.raises(FlopbenchError, match=line):
        opened(photographs)


def test_what_is_no_folder_is_refused(tmp_path: Path):
    (tmp_path / "file.jpg").touch()
    for name, line in (
        (
            str(tmp_path / "none"),
            "none does not exist: name a folder of train/CLASS/IMAGE and val/CLASS/IMAGE",
        ),
        (str(tmp_path / "file.jpg"), r"file\.jpg is a file: name a folder"),
        ("digts", "unknown data set or folder 'digts'; did you mean digits"),
        (
            f"wds/{tmp_path / 'none'}",
            r"names no folder that exists: wds/FOLDER|needs webdataset: pip install",
        ),
        ("torch/cifar10", "names no folder that exists: torch/NAME:FOLDER"),
        (
            f"torch/cifar10:{tmp_path}",
            r"torch/cifar10:.* has no images for training that can be opened: RuntimeError",
        ),
    ):
        with pytest.raises(FlopbenchError, match=line):
            open_data(name, recipe(), ALONE, workers=0)


def test_a_folder_is_evaluated_whole(photographs: Path):
    part = recipe().model_copy(update={"evaluation": Evaluation(images=2)})
    with pytest.raises(
        FlopbenchError, match=r"evaluation\.images of own: .* is evaluated whole; leave it out"
    ):
        open_data(str(photographs), part, ALONE, workers=0)


def test_a_policy_that_timm_has_not_is_refused(photographs: Path):
    with pytest.raises(FlopbenchError, match="own: timm has no policy 'four-augment'"):
        opened(photographs, Augmentation(policy="four-augment"))


def labelled(folder: Path, num_classes: int | None) -> tuple[list[int], int]:
    data = open_validation(str(folder), image_size=(8, 8), world=ALONE, workers=0, num_classes=num_classes)
    return torch.cat([batch.labels for batch in data.validating(4)]).tolist(), len(data.classes)


def test_synsets_and_numbers_have_the_networks_labels(tmp_path: Path):
    synsets = write(tmp_path / "few", ("n01443537", "n07615774", "n15075141"), 1)
    assert labelled(synsets, 1000) == ([1, 929, 999], 1000)
    assert labelled(synsets, None) == labelled(synsets, 3) == ([0, 1, 2], 3)
    numbers = write(tmp_path / "numbers", ("2", "10", "0"), 1)
    assert labelled(numbers, 11) == ([0, 2, 10], 11)
    # Networks that were trained on these folders themselves have them in their order.
    assert labelled(numbers, 3) == ([0, 1, 2], 3)
    with pytest.raises(FlopbenchError, match="numbers/10 is none of the network's 10 classes"):
        labelled(numbers, 10)
    with pytest.raises(FlopbenchError, match="few has 3 classes, the network 4: name the folders by"):
        labelled(synsets, 4)
    (synsets / "n01443537").rename(synsets / "n00000001")
    with pytest.raises(FlopbenchError, match="few: n00000001 is no class of imagenet-1k"):
        labelled(synsets, 1000)


def test_an_evaluation_does_not_take_the_training_images(photographs: Path):
    no_validation(photographs)
    with pytest.raises(FlopbenchError, match="photographs has no folder val"):
        labelled(photographs, None)


class Told:
    """What timm's readers of streams have, told by a test."""

    dist_rank, dist_num_replicas = 1, 2


class Stream(torch.utils.data.IterableDataset[tuple[Any, int]]):
    """Ten images of labels from 0 to 9, of which timm would give this process the odd ones."""

    readable = 10

    def __init__(self, **named: Any):
        self.reader = Told()
        self.named = named
        self.epoch = 0

    def set_loader_cfg(self, num_workers: int) -> None:
        assert num_workers == 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Any:
        numbers = list(range(self.readable))[self.reader.dist_rank :: self.reader.dist_num_replicas]
        if self.named.get("is_training"):
            # Training goes round and round, beginning elsewhere in every epoch.
            numbers = [(number + self.epoch) % 10 for number in numbers * 3]
        return ((Image.new("RGB", (8, 8), (25 * number,) * 3), number) for number in numbers)


def streamed(classes: int = 10) -> FileData:
    split = Streamed(Source(Stream(), "stream", "train", tuple("0123456789")[:classes]), Stream)
    transform = evaluation_transform((8, 8), 1, "bicubic", (0, 0, 0))
    loading = Loading(World(CPU, 1, 2), 0, (0, 0, 0), (1, 1, 1))
    return FileData(split, split, transform, loading, recipe(Augmentation(repeats=2, colour_jitter=0.5)))


def test_streams_are_shared_out_and_read_once_more_up_to_a_step():
    data = streamed()
    # As long as without repeats; of ten images one stays over.
    whole = list(data.training(1, 0, 6, seed=0)) + list(data.training(2, 0, 6, seed=0))
    assert [batch.labels.tolist() for batch in whole] == [[2, 2, 4], [3, 3, 5]]
    assert not torch.equal(whole[0].images[0], whole[0].images[1])
    whole = list(data.training(1, 0, 2, seed=0))
    assert len(whole) == data.steps(2) == 5
    assert same(whole[2:], data.training(1, 2, 2, seed=0))
    # timm's own shares of a stream are not all of it.
    assert [batch.labels.tolist() for batch in data.validating(2)] == [[1, 3], [5, 7], [9]]


def test_a_stream_says_how_many_read_it_and_what_its_classes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(timm_sets.NEEDED, "wds", "timm")
    monkeypatch.setattr(timm_sets, "create_dataset", lambda name, **named: Stream(**named))
    name = f"wds/{tmp_path}"
    with pytest.raises(FlopbenchError, match=r"does not name its classes: .*classes\.txt may, one a line"):
        open_data(name, recipe(), ALONE)
    assert open_validation(name, image_size=(8, 8), world=ALONE, num_classes=12).classes[11] == "11"
    (tmp_path / "classes.txt").write_text("\n".join("abcdefghij"), "utf-8")
    data = open_data(name, recipe(), ALONE, workers=3)
    assert data.classes == tuple("abcdefghij")
    assert (data.info.readers, data.validation.readers) == (3, None)
    with pytest.raises(FlopbenchError, match="has 10 classes, the network 12"):
        open_validation(name, image_size=(8, 8), world=ALONE, num_classes=12)


def test_streams_that_lack_images_or_have_foreign_labels_are_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(FlopbenchError, match=r"label 9 of image 9 of stream \(train\) is none of 9 classes"):
        list(streamed(9).validating(2))
    monkeypatch.setattr(Stream, "readable", 8)
    with pytest.raises(FlopbenchError, match=r"^stream \(train\) has 8 images that can be read, not the 10"):
        list(streamed().validating(2))


def test_labels_and_grey_images_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from timm.data import dataset_factory

    class Grey(torch.utils.data.Dataset[tuple[Any, int]]):
        class_to_idx = {"0 - zero": 0, "1 - one": 1}

        def __init__(self, **named: Any):
            self.labels = [0, 1, 1] if named["train"] else [0, 2]

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, number: int) -> tuple[Any, int]:
            return Image.new("L", (8, 8), 255), self.labels[number]

    monkeypatch.setitem(dataset_factory._TORCH_BASIC_DS, "mnist", Grey)
    data = open_data(f"torch/mnist:{tmp_path}", recipe(Augmentation()), ALONE, workers=0)
    assert (data.info.name, data.info.images, data.classes) == ("torch/mnist", 3, ("0 - zero", "1 - one"))
    batch = next(data.training(0, 0, 3, seed=0))
    assert sorted(batch.labels.tolist()) == [0, 1, 1]
    assert batch.images.shape == (3, 3, 8, 8)
    with pytest.raises(
        FlopbenchError, match=r"label 2 of image 1 of torch/mnist \(validation\) is none of 2"
    ):
        list(data.validating(2))
    with pytest.raises(FlopbenchError, match="torch/mnist has 2 classes, the network 10"):
        open_validation(f"torch/mnist:{tmp_path}", image_size=(8, 8), world=ALONE, num_classes=10)
