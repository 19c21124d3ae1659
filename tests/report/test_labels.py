"""Labels of networks, read; and what is published of the networks that they stand for."""

import pytest

from flopbench.models import label_of, list_models
from flopbench.models.catalog import parse_name
from flopbench.report.labels import family_of, read, size_of, version_of
from flopbench.report.pictures.style import version_look
from flopbench.report.published import published, sources, with_accuracy
from flopbench.symmetries.registry import BASELINE, versions


@pytest.mark.parametrize(
    "label", ["ViT-mine", "F(ViT-B/16)", "ViT", "f(x)", "ViT-A/16", "E(E(ViT-B/16))", "E(ViT-B/16", ""]
)
def test_what_is_called_like_ours_is_not_ours(label):
    assert read(label) is None
    assert family_of(label) is None
    assert (version_of(label), size_of(label)) == (BASELINE, "")


def test_every_label_is_read_as_its_name_is():
    for name in list_models():
        parsed, label = parse_name(name), read(label_of(name))
        assert label is not None, name
        assert parsed.spec is not None
        assert (label.version, label.network) == (parsed.version, parsed.spec.label)
        assert label.size == parsed.spec.size


def test_other_widths_and_patches_are_of_the_same_family():
    assert size_of("I(ViT-768×4/16)") == "768×4/16"
    assert family_of("H8(ViT-H/16)") == "ViT"


def test_any_two_versions_differ_without_their_colours():
    looks = [version_look(version) for version in versions()]
    assert len({(look.marker, look.dashes) for look in looks}) == len(looks)


def test_figures_have_their_source():
    by_label = {}
    for network in published():
        by_label.setdefault(network.label, []).append(network)
    assert [own.source.title for own in by_label["E(ViT-B/16)"]] == ["Flopping for FLOPs"]
    (huge,) = by_label["H8(ViT-H/14)"]
    assert (huge.gflops, huge.top1, huge.gain_percent) == (102, 85.0, None)
    assert "Octic" in huge.source.title
    # Nothing is made of what another paper's network reached without labels.
    assert all(own.top1 is None for own in by_label["H8(ViT-H/16)"])
    assert by_label["H8(ViT-H/16)"][0].figure("top1_linear") == 82.2
    assert {own.source for own in published()} == set(sources().values())


def test_a_gain_is_over_the_plain_network_of_the_same_source():
    gains = [network for network in published() if network.gain_percent is not None]
    assert gains
    for network in gains:
        assert network.baseline is not None
        assert network.baseline.source == network.source
        assert network.label.endswith(f"({network.baseline.label})")


def test_a_network_that_several_sources_have_stands_once_beside_its_flops():
    labels = [network.label for network in with_accuracy()]
    assert len(labels) == len(set(labels))
    assert {"ViT-H/14", "E(ViT-H/14)", "H8(ViT-H/14)", "I8(ViT-L/16)"} <= set(labels)
