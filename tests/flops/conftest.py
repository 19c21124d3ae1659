import pytest

from flopbench.flops import build_on_meta

# Small in depth only: the widths are the real ones.
SMALL = {
    "vit_ti16": {"depth": 2, "image_size": (32, 64)},
    "resmlp_t12": {"depth": 2, "image_size": (32, 64)},
    "convnext_t": {"depths": (1, 1, 2, 1), "image_size": (64, 32)},
    "convnext_iso_s": {"depths": (3,), "image_size": (32, 64)},
}
OCTIC = [f"vit_ti16.octic{schedule}" for schedule in ("", "_hybrid", "_early_invariant")]
NAMES = [*(f"{name}{version}" for name in SMALL for version in ("", ".flop", ".hybrid")), *OCTIC]


def small(name, **options):
    """A shallow network of the name's family on the meta device, and its image size."""
    settings = {**SMALL[name.partition(".")[0]], "num_classes": 10, **options}
    if ".octic" in name:
        settings["image_size"] = (32, 32)
    return build_on_meta(name, **settings), settings["image_size"]


@pytest.fixture
def build():
    return small
