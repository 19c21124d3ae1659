"""Segmentation: the set, what moves with images, losses and figures by hand, a training and its weights."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

import flopbench
from flopbench.errors import FlopbenchError
from flopbench.models.tasks import TASKS
from flopbench.recipes import Augmentation, Loss, Recipe, load_recipe
from flopbench.results.trainings import Accuracy
from flopbench.training import builtin
from flopbench.training.accuracy import mean_iou, measure_accuracy
from flopbench.training.builtin import ImageSet, Split
from flopbench.training.data import open_data, open_validation
from flopbench.training.loop import Trainer
from flopbench.training.memory import InMemory, mirror_asymmetry
from flopbench.training.networks import load_network
from flopbench.training.optimising import make_loss
from flopbench.training.pasting import FOREGROUND, SIDE, pasted
from flopbench.training.preparing import build
from flopbench.training.world import World
from tests.support.training import recipe

ALONE = World(torch.device("cpu"))
SEGMENTATION = TASKS["segmentation"]
OPTIONS: dict[str, Any] = {"patch_size": 4, "width": 16, "depth": 2, "heads": 2}


def small_set(images: int = 24) -> ImageSet:
    """Squares, brighter the higher their class, on noise; three classes and the background."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 40, (images + 8, 8, 8), np.uint8)
    maps = np.zeros_like(pixels)
    for number in range(len(maps)):
        row, column, label = rng.integers(0, 5), rng.integers(0, 5), 1 + number % 3
        maps[number, row : row + 4, column : column + 4] = label
    pixels = pixels + 60 * maps
    return ImageSet(
        "squares",
        Split(pixels[:images], maps[:images]),
        Split(pixels[images:], maps[images:]),
        ("background", "a", "b", "c"),
    )


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """`small_set`, which is opened by its name."""
    found = small_set()
    monkeypatch.setitem(builtin.SETS, "squares", lambda folder: found)
    return found


def own_recipe(**fields: Any) -> Recipe:
    settings = {"task": "segmentation", "mix": {}, "options": {"vit_ti16*": OPTIONS}}
    return recipe(**settings | fields)


def test_silhouettes_are_pasted_the_same_way_for_ever_each_by_itself():
    rng = np.random.default_rng(0)
    silhouettes = rng.integers(0, 256, (6, 28, 20), np.uint8)
    textures = rng.integers(0, 256, (3, 60, 70), np.uint8)
    labels = np.arange(6) % 3
    images, maps = pasted(silhouettes, labels, textures)
    assert images.shape == maps.shape == (6, SIDE, SIDE)
    assert images.dtype == maps.dtype == np.uint8
    for silhouette, label, found in zip(silhouettes, labels, maps, strict=True):
        rows, columns = np.nonzero(found)
        assert set(np.unique(found)) == {0, label + 1}
        shape = silhouette > FOREGROUND
        within = found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] > 0
        filled = np.argwhere(shape)
        (top, left), (bottom, right) = filled.min(0), filled.max(0)
        assert np.array_equal(within, shape[top : bottom + 1, left : right + 1])
    order = [3, 0, 5]
    again = pasted(silhouettes[order], labels[order], textures)
    assert np.array_equal(again[0], images[order])
    assert np.array_equal(again[1], maps[order])


def test_the_set_of_animals_is_the_same_as_ever():
    if not (find_spec("animal_shape_mnist") and find_spec("skimage")):
        pytest.skip("the packages that have its parts are not installed")
    whole = builtin.animal_segmentation(None)
    assert (whole.task, len(whole.classes)) == ("segmentation", 11)
    assert [split.digest for split in (whole.training, whole.validation)] == ["7b2dce76f98f", "26a2fce54689"]
    assert whole.training.labels.max() == 10
    # Whichever split a silhouette is in, it may be on every texture, and left or right of the middle.
    assert max(mirror_asymmetry(whole.validation, whole.classes).values()) < 0.05


def test_textures_that_are_missing_or_others_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    monkeypatch.setattr(builtin, "animal_shape_mnist", lambda folder: small_set())
    with pytest.raises(FlopbenchError, match=r"brick\.png cannot be read"):
        builtin.animal_segmentation(tmp_path)
    builtin.Image.new("L", (512, 512)).save(tmp_path / "brick.png")
    with pytest.raises(FlopbenchError, match=r"brick\.png is not the file that flopbench knows"):
        builtin.animal_segmentation(tmp_path)


def test_maps_move_with_their_images(squares: ImageSet):
    data = InMemory(squares, (20, 20), ALONE, Augmentation(shift=3, mirror=0.5))
    batches = [batch for epoch in range(2) for batch in data.training(epoch, 0, 8, seed=1)]
    images = torch.cat([batch.images[:, 0] for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    assert labels.shape == (48, 20, 20)
    assert labels.dtype == torch.int64
    # The squares are as bright as their class says, the noise is darker.
    pixels = (images * data.std[0] + data.mean[0]) * 255
    assert torch.equal(torch.div(pixels.round(), 60, rounding_mode="floor").long(), labels)
    plain, mirrored = (next(data.training(0, 0, 24, seed=0, mirror=m)) for m in (0.0, 1.0))
    assert torch.equal(plain.labels.flip(-1), mirrored.labels)
    assert not torch.equal(plain.labels, mirrored.labels)


def test_asymmetry_of_maps_is_that_of_where_a_class_is():
    maps = np.array([[[1, 0, 0]], [[0, 0, 1]], [[2, 0, 0]], [[2, 0, 0]]])
    found = mirror_asymmetry(Split(maps, maps), ("ground", "a", "b"))
    assert found["a"] == 0
    assert found["b"] == pytest.approx(0.5)


def test_the_loss_is_that_of_every_pixel():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40).view(2, 4, 5) % 3
    found = make_loss(Loss(smoothing=0.1))(logits, labels)
    by_pixel = logits.movedim(1, -1).reshape(-1, 3).log_softmax(1)
    targets = torch.nn.functional.one_hot(labels.flatten(), 3) * 0.9 + 0.1 / 3
    assert found.item() == pytest.approx(-(targets * by_pixel).sum(1).mean().item(), rel=1e-5)


def test_the_mean_is_over_the_classes_that_there_are():
    # Of class 0 two pixels of three are found and one more is said to be; no pixel is of class 2 or said so.
    counts = torch.tensor([[2.0, 0.0, 0.0], [3.0, 1.0, 0.0], [3.0, 1.0, 0.0]])
    assert mean_iou(*counts) == pytest.approx((2 / 4 + 0 / 2) / 2)


def test_the_figures_are_those_of_all_pixels_together():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, 4, 6, generator=generator)
    labels = torch.randint(3, (5, 4, 6), generator=generator)
    weights = torch.randn(3, 3, 4, 6, generator=generator)

    def network(x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bchw,kchw->bkhw", x, weights)

    def batches(which: slice, size: int) -> Any:
        return zip(images[which].split(size), labels[which].split(size), strict=True)

    found = measure_accuracy(
        network, batches(slice(None), 2), ALONE, task=SEGMENTATION, classes=4, averaged=True
    )
    views = {"plain": network(images), "mirrored": network(images.flip(-1)).flip(-1)}
    views["averaged"] = torch.stack([view.double().softmax(1) for view in views.values()]).mean(0).log()
    for name, logits in views.items():
        first, scores = logits.argmax(1), getattr(found, name)
        ious = [((first == k) & (labels == k)).sum() / ((first == k) | (labels == k)).sum() for k in range(3)]
        assert scores.miou == pytest.approx(torch.stack(ious).mean().item())
        assert scores.top1 == pytest.approx((first == labels).double().mean().item())
        nll = torch.nn.functional.cross_entropy(logits.double(), labels).item()
        assert scores.nll == pytest.approx(nll)
        assert scores.top5 is None
    alike = views["plain"].argmax(1) == views["mirrored"].argmax(1)
    assert found.flip_consistency == alike.double().mean().item()
    assert found.images == 5


def test_processes_count_the_pixels_of_all(monkeypatch: pytest.MonkeyPatch):
    """One that saw no image at all takes part as well."""
    generator = torch.Generator().manual_seed(1)
    images, weights = (torch.randn(3, 3, 4, 4, generator=generator) for _ in range(2))
    labels = torch.randint(3, (3, 4, 4), generator=generator)

    def figures(which: slice) -> Accuracy:
        batches = [(images[which], labels[which])] if len(labels[which]) else []
        return measure_accuracy(
            lambda x: torch.einsum("bchw,kchw->bkhw", x, weights),
            batches,
            ALONE,
            task=SEGMENTATION,
            classes=3,
            averaged=True,
        )

    whole, sums = figures(slice(3)), []
    monkeypatch.setattr(World, "sum", lambda self, values: sums.append(values) or values)
    parts = [figures(slice(1)), figures(slice(1, 3))]
    monkeypatch.setattr(World, "sum", lambda self, values: values + sums[0] + sums[1])
    found = figures(slice(0))
    assert found.plain.miou == pytest.approx(whole.plain.miou)
    assert found.averaged
    assert whole.averaged
    assert found.averaged.miou == pytest.approx(whole.averaged.miou)
    # It is none of means of means.
    assert found.plain.miou != pytest.approx(sum(part.plain.miou or 0 for part in parts) / 2, abs=1e-3)


def test_an_interrupted_training_goes_on_to_the_bit(squares: ImageSet):
    def trainer() -> Trainer:
        used = own_recipe(augmentation={"shift": 1})
        return Trainer(used, build("vit_ti16.flop", OPTIONS, used, 4, 0), data, ALONE, seed=0)

    data = InMemory(squares, (8, 8), ALONE, Augmentation(shift=1, mirror=0.5))
    whole, first, second = trainer(), trainer(), trainer()
    whole.run(4)
    first.run(2)
    second.load_state_dict(first.state_dict())
    second.run(4)
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.evaluate() == second.evaluate()


def test_a_network_that_moves_with_the_image_says_the_same_of_its_mirror_image():
    model = flopbench.create_model("vit_ti16.flop", 16, 3, task="segmentation", **OPTIONS).double().eval()
    flopbench.models.factory.perturb(model)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4 * 256).view(4, 16, 16) % 3
    found = measure_accuracy(model, [(images, labels)], ALONE, task=SEGMENTATION, classes=3)
    assert found.flip_consistency == 1
    assert found.mirrored.miou == pytest.approx(found.plain.miou)


def test_a_training_has_its_miou_and_its_weights_load_again(squares: ImageSet, tmp_path: Any):
    used = own_recipe(epochs=4)
    training = flopbench.train(used, "vit_ti16.flop", "squares", out=tmp_path / "t", device="cpu")
    scores = training.folders[0].points()[-1].best.plain
    assert scores.measure.name == "mIoU"
    found = load_network("vit_ti16.flop", tmp_path / "t" / "weights.safetensors")
    assert (found.task, found.num_classes, found.options) == ("segmentation", 4, OPTIONS)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(found.model(images), training.model.eval()(images))
        larger = load_network("vit_ti16.flop", tmp_path / "t", image_size=(16, 16))
        assert larger.model(torch.randn(1, 3, 16, 16)).shape == (1, 4, 16, 16)
    record = flopbench.evaluate(
        "vit_ti16.flop", tmp_path / "t", data="squares", device="cpu", cell_seconds=0, results=None
    ).records[0]
    assert record.task == "segmentation"
    assert record.accuracy.plain.miou == pytest.approx(scores.miou, abs=1e-6)
    assert record.accuracy.flip_consistency == 1
    # Of the weights of a plain network, test-time augmentation promises as much.
    plain = own_recipe(epochs=1, schedule={})
    flopbench.train(plain, "vit_ti16", "squares", out=tmp_path / "x", device="cpu")
    averaged = flopbench.evaluate(
        "vit_ti16.tta", tmp_path / "x", data="squares", device="cpu", cell_seconds=0, results=None
    ).records[0]
    assert averaged.accuracy.flip_consistency == 1
    with pytest.raises(FlopbenchError, match=r"train vit_ti16, and evaluate it as vit_ti16\.tta"):
        flopbench.train(plain, "vit_ti16.tta", "squares", out=tmp_path / "y", device="cpu")
    with pytest.raises(
        FlopbenchError, match=r"holds weights of vit_ti16\.flop for segmentation, not for class"
    ):
        load_network("vit_ti16.flop", tmp_path / "t", task="classification")
    with pytest.raises(
        FlopbenchError, match="the labels of digits are for classification, what is wanted is"
    ):
        flopbench.evaluate("vit_ti16.flop", tmp_path / "t", data="digits", device="cpu", results=None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "depth"}, "task"),
        (
            {"mix": {"mixup": 0.8}},
            "mix is of images that have one label each: leave it out of a segmentation",
        ),
        ({"loss": {"name": "binary-cross-entropy"}}, "loss.name of a segmentation must be cross-entropy"),
        ({"options": {"vit*": {"task": "depth"}}}, "options of vit*: task is what the data or the recipe"),
    ],
)
def test_what_a_segmentation_cannot_learn_by_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(FlopbenchError) as caught:
        load_recipe(own_recipe(), fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_of_another_task_are_refused(squares: ImageSet):
    with pytest.raises(FlopbenchError, match=r"labels of squares are for segmentation, .* is classification"):
        open_data("squares", recipe(mix={}), ALONE)
    with pytest.raises(FlopbenchError, match=r"labels of squares are for segmentation"):
        open_validation("squares", image_size=(8, 8), world=ALONE)
    with pytest.raises(
        FlopbenchError, match=r"labels of /nowhere are for classification, .* is segmentation"
    ):
        open_data("/nowhere", own_recipe(), ALONE)


def test_what_a_recipe_is_called_by_says_nothing_of_the_usual_task():
    plain = load_recipe("proxy-cpu")
    assert plain.digest == "8320532d969a"
    assert own_recipe().digest != recipe(mix={}, options={"vit_ti16*": OPTIONS}).digest
