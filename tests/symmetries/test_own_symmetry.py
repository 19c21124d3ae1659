"""A symmetry of somebody's own: one file defines it, and nothing else knows that there is such a thing."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flopbench
from flopbench.errors import FlopbenchError
from flopbench.flops.audit import audit
from flopbench.inputs import Inputs
from flopbench.models import SPECS, label_of, list_models, parse_name
from flopbench.symmetries import About, register, registry
from flopbench.testing.verify import verify_model

FILE = Path(__file__).parents[2] / "examples" / "own_symmetry.py"
QUICK: dict[str, Any] = {
    "widths": [64],
    "depths": [2],
    "image_sizes": [64],
    "num_classes": [10],
    "batch_sizes": [1],
    "passes": ["forward"],
    "cell_seconds": 0.2,
    "precision": 0.9,
}


def measured(candidate: str) -> flopbench.Result:
    return flopbench.benchmark("vit_ti16", candidate, devices="cpu", progress=False, **QUICK)


def told(message: str) -> Any:
    return pytest.raises(FlopbenchError, match=message)


@pytest.fixture(autouse=True)
def forgotten_afterwards(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_registered", {})
    yield
    sys.modules.pop("own_symmetry", None)


@pytest.fixture
def script() -> dict[str, Any]:
    """The names of the file, run as somebody's script: its classes can be imported from nowhere."""
    space: dict[str, Any] = {"__name__": "__main__"}
    definitions, main, _ = FILE.read_text(encoding="utf-8").partition('if __name__ == "__main__":')
    assert main
    exec(compile(definitions, FILE.name, "exec"), space)
    return space


@pytest.fixture
def installed(monkeypatch, tmp_path: Path) -> Path:
    """A package that is installed, and names the symmetry in its metadata."""
    about = tmp_path / "vertical-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vertical\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[flopbench.symmetries]\nvertical = own_symmetry:VERTICAL\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(FILE.parent)
    return about


def test_the_file_is_short():
    assert len(FILE.read_text(encoding="utf-8").splitlines()) < 200


def test_a_script_benchmarks_a_network_with_its_own_symmetry(script, tmp_path: Path, monkeypatch):
    result = measured("vit_ti16.vertical")
    (record,) = result.records
    assert record.status == "ok", record.reason
    assert record.cell.labels == ("ViT-64×2/16", "V(ViT-64×2/16)")
    assert record.check is not None
    assert record.check.random is not None
    assert record.check.random < record.check.tolerance
    assert record.baseline is not None
    assert record.candidate is not None
    assert record.baseline.macs is not None
    assert record.candidate.macs is not None
    assert 1.8 < record.baseline.macs / record.candidate.macs < 2
    assert not record.candidate.uncounted_operators
    assert "V(ViT-64×2/16)" in result.report(tmp_path).markdown.read_text(encoding="utf-8")

    # Where nobody has registered it, what was measured is read all the same.
    saved = result.save(tmp_path / "run")
    monkeypatch.setattr(registry, "_registered", {})
    read = flopbench.load_run(saved or tmp_path / "run")
    assert read.records[0].cell.labels == record.cell.labels
    assert "V(ViT-64×2/16)" in read.report(tmp_path / "read").markdown.read_text(encoding="utf-8")
    assert registry.pack() == {}
    with told("the layers of the symmetry vertical are not known here: import what registers it"):
        flopbench.create_model("vit_ti16.vertical")
    assert register(script["VERTICAL"])
    assert flopbench.create_model("vit_ti16.vertical", depth=1)


def test_a_suite_knows_the_symmetry_of_an_installed_package(installed, tmp_path: Path):
    suite = tmp_path / "own.toml"
    suite.write_text(
        "\n".join(
            [
                'title = "Own"',
                'pairs = ["vit_ti16.vertical_early_invariant"]',
                "[profiles.cpu]",
                *(f"{key} = {value!r}" for key, value in {**QUICK, "modes": ["eager"]}.items()),
            ]
        )
    )
    result = flopbench.run_suite(suite, device="cpu", results=tmp_path / "results", progress=False)
    (record,) = result.records
    assert record.status == "ok", record.reason
    assert record.cell.labels == ("ViT-64×2/16", "I_V(ViT-64×2/16)")


def test_what_does_not_commute_with_the_generator_is_not_timed(script):
    class Leaning(nn.Module):
        """Adds what is not its own mirror image."""

        def __init__(self, width: int, grid: tuple[int, int]) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(*grid, width // 2))

        def forward(self, x: Any) -> Any:
            return type(x)(x.even + self.weight, x.odd)

    vertical = script["Vertical"]

    class Wrong(vertical):
        about = About("wrong", ("W",), 2)
        layers = {**vertical.layers, "position embedding": Leaning}

    register(Wrong())
    with told(r"W\(ViT-64×2/16\) is not invariant under a vertical mirroring"):
        measured("vit_ti16.wrong")


def test_the_network_commutes_with_what_the_symmetry_states_and_no_more(script):
    model = flopbench.create_model("vit_ti16.vertical", 64, depth=1, num_classes=10)
    (generator,) = script["VERTICAL"].generators
    images = torch.randn(2, 3, 64, 64)
    flopbench.assert_equivariant(model, images, generator, None)
    with pytest.raises(AssertionError):
        flopbench.assert_equivariant(model, images, lambda x: x.flip(3), None)


@pytest.mark.parametrize("name", ["vit_ti16.vertical_hybrid", "attention_192.vertical"])
def test_the_first_half_of_a_network_and_a_layer_are_verified(script, name):
    assert verify_model(name, 32).passed


def test_all_counters_and_the_closed_form_agree_on_what_flopping_counts(script):
    with torch.device("meta"):
        networks = [
            flopbench.create_model(f"vit_ti16.{version}", 64, depth=1) for version in ("vertical", "flop")
        ]
        images = Inputs(torch.empty(1, 3, 64, 64))
    vertical, flop = (audit(network, "one block", images) for network in networks)
    assert vertical.macs == flop.macs
    assert vertical.parameters == flop.parameters


def test_its_versions_are_models_like_any_others(script):
    assert "vit_b16.vertical_hybrid" in list_models()
    assert label_of("vit_b16.vertical_hybrid") == "H_V(ViT-B/16)"
    assert parse_name("vit_b16.vertical").invariant
    assert not parse_name("vit_b16.vertical_hybrid").invariant
    with torch.device("meta"):
        assert flopbench.create_model("vit_ti16.vertical_hybrid")
        assert flopbench.create_model("layer_norm_192.vertical")
    with told(r"there is no resmlp_t12\.vertical: the symmetry vertical has layers"):
        parse_name("resmlp_t12.vertical")
    with told("vertical needs a grid with an even number of rows, got 13×14"):
        flopbench.create_model("vit_ti16.vertical", (13 * 16, 14 * 16))


def test_without_its_package_a_version_is_not_known():
    with told(r"unknown version of vit_b16 'vertical'; known: .*flop.*octic.*"):
        parse_name("vit_b16.vertical")


def test_a_package_that_cannot_be_loaded_is_told_where_a_version_is_not_known(installed: Path):
    (installed / "entry_points.txt").write_text("[flopbench.symmetries]\nvertical = nowhere:VERTICAL\n")
    assert parse_name("vit_b16.flop")
    with told("the symmetry vertical of the package vertical cannot be loaded"):
        parse_name("vit_b16.vertical")


def test_a_package_that_cannot_be_loaded_hides_no_record(installed: Path):
    (installed / "entry_points.txt").write_text("[flopbench.symmetries]\nbroken = nowhere:BROKEN\n")
    registry.describe(About("vertical", ("V",), 2))
    assert parse_name("vit_b16.vertical").label() == "V(ViT-B/16)"


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (About("flop", ("F",), 2), "has a version flop already"),
        (About("hybrid", ("F",), 2), "the symmetry flop has a version hybrid already"),
        (About("own", ("F",), 2, names=("own", "octic", "third")), "the symmetry octic has a version octic"),
        (About("own", ("E",), 2), r"E\(X\) stands for the version flop already"),
        (About("own", ("V", "H8", "I_V"), 2), r"H8\(X\) stands for the version octic_hybrid already"),
        (About("own", ("",), 2), "X stands for the version plain already"),
    ],
)
def test_a_name_that_is_taken_is_told(about, message):
    class Other:
        pass

    other: Any = Other()
    other.about = about
    with told(f"the symmetry {about.name} cannot be registered: .*{message}"):
        register(other)


def test_registered_again_a_symmetry_takes_the_place_of_the_former(script):
    again = script["Vertical"]()
    register(again)
    assert registry.load(again.about) is again
    assert len([name for name in SPECS["vit_b16"].names if "vertical" in name]) == 4


def test_a_symmetry_of_a_module_that_a_fresh_process_does_not_find_is_told(script, monkeypatch):
    # As of a module that was made by hand: what goes by its name is the class.
    monkeypatch.setitem(sys.modules, "ghost", types.ModuleType("ghost"))
    monkeypatch.setattr(sys.modules["ghost"], "Vertical", script["Vertical"], raising=False)
    monkeypatch.setattr(script["Vertical"], "__module__", "ghost")
    with told("a fresh process cannot read the symmetry vertical: ModuleNotFoundError: .*ghost"):
        measured("vit_ti16.vertical")


def test_a_symmetry_that_does_not_pickle_is_told(script):
    script["VERTICAL"].stuck = (tensor for tensor in [Tensor()])
    with told("the symmetry vertical cannot go to a fresh process: TypeError"):
        measured("vit_ti16.vertical")


@pytest.mark.parametrize("wrong", [{"labels": ()}, {"labels": tuple("ABCDE")}, {"names": tuple("abcde")}])
def test_labels_and_names_are_those_of_schedules(wrong):
    with told("the symmetry own has .* labels and .* names: give a label or up to 4"):
        About(**{"name": "own", "labels": ("O",), "divisor": 2, **wrong})


def test_what_a_script_registered_is_not_replaced_by_a_package(installed, script):
    own = registry._registered["vertical"]
    with told("horizontal"):
        parse_name("vit_ti16.horizontal")
    assert registry._registered["vertical"] is own
