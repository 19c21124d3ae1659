"""Networks small enough for a test, under names of the form `package.module:callable`."""

from flopbench.models.vit import VisionTransformer
from flopbench.suites import Profile, Suite, parse_suite

PAIR = {"baseline": "tests.regression.tiny:plain", "candidate": "tests.regression.tiny:flop"}


TOML = """
title = "Tiny"
pairs = [{baseline = "%(baseline)s", candidate = "%(candidate)s"}]
[profiles.cpu]
image_sizes = [32]
num_classes = 10
batch_sizes = [1]
passes = ["forward"]
modes = ["eager"]
"""
"""A suite file of one pair, to be formatted with it."""


def _build(symmetry, image_size=(32, 32), num_classes=10, **options):
    return VisionTransformer(
        image_size=image_size,
        num_classes=num_classes,
        patch_size=8,
        width=16,
        depth=1,
        heads=2,
        symmetry=symmetry,
        **options,
    )


def plain(**options):
    """X."""
    return _build("plain", **options)


def flop(**options):
    """E(X)."""
    return _build("flop", **options)


def profile() -> Profile:
    """One eager cell of the pair above."""
    return suite().profile("cpu")


def suite(**more) -> Suite:
    """A suite of the pair above."""
    raw = {
        "title": "Tiny",
        "pairs": [PAIR],
        "defaults": {"image_sizes": [32], "num_classes": 10, "batch_sizes": [1], "modes": ["eager"]},
        "profiles": {"cpu": {"passes": ["forward"]}},
        **more,
    }
    return parse_suite(raw, name="tiny", where="tiny.toml")
