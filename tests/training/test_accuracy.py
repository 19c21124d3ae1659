import math

import pytest
import torch

import flopbench
from flopbench.errors import FlopbenchError
from flopbench.models.factory import perturb
from flopbench.training.accuracy import measure_accuracy
from flopbench.training.world import World

ALONE = World(torch.device("cpu"))


def batches(images, labels, size):
    return zip(images.split(size), labels.split(size), strict=True)


def scores(logits, labels):
    """Top-1, top-5 and NLL, image by image."""
    top1 = top5 = nll = 0
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda k: -row[k])
        top1 += order[0] == label
        top5 += label in order[:5]
        nll += math.log(sum(map(math.exp, row))) - row[label]
    return top1 / len(labels), top5 / len(labels), nll / len(labels)


def given(classes, count=23):
    generator = torch.Generator().manual_seed(classes)
    images = torch.randn(count, 3, 4, 6, generator=generator)
    weights = torch.randn(classes, 72, generator=generator)
    return images, torch.randint(classes, (count,), generator=generator), lambda x: x.flatten(1) @ weights.T


@pytest.mark.parametrize("classes", [2, 5, 6, 11])
@pytest.mark.parametrize("size", [1, 7, 23, 64])
def test_the_figures_are_those_of_every_image_by_itself(classes, size):
    images, labels, network = given(classes)

    found = measure_accuracy(network, batches(images, labels, size), ALONE, averaged=True)

    plain, mirrored = network(images), network(images.flip(-1))
    mean = (plain.double().softmax(1) + mirrored.double().softmax(1)).log()
    assert found.images == 23
    assert found.averaged
    assert found.flip_consistency == (plain.argmax(1) == mirrored.argmax(1)).double().mean().item()
    for figures, logits in ((found.plain, plain), (found.mirrored, mirrored), (found.averaged, mean)):
        top1, top5, nll = scores(logits, labels)
        assert figures.top1 == pytest.approx(top1)
        assert figures.nll == pytest.approx(nll)
        assert figures.top5 == (pytest.approx(top5) if classes > 5 else None)


def test_every_batch_has_the_shape_of_the_first_and_no_gradient():
    images, labels, network = given(3)
    seen = []

    def spied(x):
        assert not torch.is_grad_enabled()
        seen.append(len(x))
        return network(x)

    found = measure_accuracy(spied, batches(images, labels, 10), ALONE)
    assert set(seen) == {10}
    assert found.images == 23
    assert found.averaged is None


def test_outputs_that_are_written_over_are_not_compared_with_themselves():
    """As those of a CUDA graph are."""
    images, labels, network = given(7)
    memory = torch.empty(23, 7, dtype=torch.float64)

    found = measure_accuracy(
        lambda x: memory.copy_(network(x)), batches(images, labels, 23), ALONE, averaged=True
    )
    assert found == measure_accuracy(network, batches(images, labels, 23), ALONE, averaged=True)


@pytest.mark.parametrize(("name", "invariant"), [("vit_ti16", False), ("vit_ti16.flop", True)])
def test_an_invariant_network_says_the_same_of_a_mirror_image(name, invariant):
    model = flopbench.create_model(name, image_size=32, num_classes=10, depth=2, width=48).double().eval()
    perturb(model)
    images = torch.randn(16, 3, 32, 32, dtype=torch.float64)
    labels = torch.arange(16) % 10

    found = measure_accuracy(model, batches(images, labels, 6), ALONE)
    assert (found.flip_consistency == 1) is invariant
    assert (found.mirrored.nll == pytest.approx(found.plain.nll, rel=1e-9)) is invariant


def test_processes_add_up_what_each_has_seen(monkeypatch):
    """One that saw no image at all, where there are fewer than processes, takes part as well."""
    images, labels, network = given(9, count=5)
    whole = measure_accuracy(network, batches(images, labels, 2), ALONE)
    sums = []
    monkeypatch.setattr(World, "sum", lambda self, values: sums.append(values) or values)
    measure_accuracy(network, batches(images[:3], labels[:3], 2), ALONE)
    measure_accuracy(network, batches(images[3:], labels[3:], 2), ALONE)
    monkeypatch.setattr(World, "sum", lambda self, values: values + sums[0] + sums[1])
    found = measure_accuracy(network, [], ALONE)

    assert found.images == 5
    assert found.flip_consistency == whole.flip_consistency
    assert found.plain.nll == pytest.approx(whole.plain.nll)
    assert found.plain.top5 == whole.plain.top5


def test_what_cannot_be_scored_is_said():
    images, labels, network = given(4)
    with pytest.raises(FlopbenchError, match="no images"):
        measure_accuracy(network, [], ALONE)
    with pytest.raises(FlopbenchError, match="not finite"):
        measure_accuracy(lambda x: network(x) / 0, batches(images, labels, 8), ALONE)
