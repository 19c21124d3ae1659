"""Suite files: pairs, cells, and mistakes told in one line."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from flopbench.cells import AXES, Cell
from flopbench.errors import FlopbenchError
from flopbench.modes import CAPTURING, ENGINES, DeviceKind
from flopbench.pairs import Pair
from flopbench.suites import (
    VARIANTS,
    MinimumEffect,
    Variant,
    available_suites,
    load_suite,
    override,
    parse_suite,
)


def suite(text: str, tmp_path: Path):
    path = tmp_path / "my.toml"
    path.write_text(text)
    return load_suite(path)


GOOD = """
title = "Mine"
pairs = ["vit_s16.flop", "vit_b16.flop@timm:deit3_base_patch16_224"]
[defaults]
dtypes = ["bf16"]
[profiles.cpu]
batch_sizes = [1, 2]
[profiles.cpu.quick]
batch_sizes = [1]
pairs = [{ baseline = "vit_s16", candidate = "vit_s16.hybrid" }]
"""


def test_defaults_and_pairs_flow_into_every_profile(tmp_path: Path):
    loaded = suite(GOOD, tmp_path)
    profile = loaded.profile("cpu")
    assert profile.values(AXES["dtype"]) == ("bf16",)
    assert [pair.id for pair in profile.pairs] == [
        "vit_s16.flop",
        "vit_b16.flop@timm:deit3_base_patch16_224",
    ]
    quick = loaded.profile("cpu", "quick")
    assert quick.values(AXES["batch_size"]) == (1,)
    assert quick.pairs[0].labels == ("ViT-S/16", "H(ViT-S/16)")


def test_cells_are_the_product_and_their_ids_differ(tmp_path: Path):
    cells = list(suite(GOOD, tmp_path).profile("cpu").cells("cpu"))
    assert len(cells) == 2 * 2 * 2 * 2  # pairs × modes × passes × batch sizes
    assert len({cell.id for cell in cells}) == len(cells)
    assert cells[0].id == "vit_s16.flop/cpu/b1/forward/bf16/eager"


def test_cells_are_measured_breadth_first_as_the_values_are_listed(tmp_path: Path):
    profile = override(
        suite(GOOD, tmp_path).profile("cpu"),
        pairs=("vit_b16.flop", "vit_s16.flop"),
        batch_sizes=(64, 1),
        impls=("auto", "fused"),
    )
    ids = [cell.id for cell in profile.cells("cpu")]
    kinds = ("eager", "eager/fused-kernels", "compile", "compile/fused-kernels")
    assert ids == [
        f"{pair}/cpu/{work}/bf16/{kind}"
        for work in ("b64/forward", "b64/backward", "b1/forward", "b1/backward")
        for pair in ("vit_b16.flop", "vit_s16.flop")
        for kind in kinds
    ]


def test_a_variant_has_what_its_profile_has_but_for_what_it_says(tmp_path: Path):
    text = GOOD.replace("[1, 2]", "[1, 2]\nbudget_seconds = 60\ncell_seconds = 3")
    loaded = suite(f"{text}[profiles.cpu.full]\nbatch_sizes = [1, 2, 4]\n", tmp_path)
    usual, full = loaded.profile("cpu"), loaded.profile("cpu", "full")
    assert full.values(AXES["batch_size"]) == (1, 2, 4)
    assert (full.pairs, full.cell_seconds) == (usual.pairs, 3)
    # The long sweep has no budget of another.
    assert (usual.budget_seconds, loaded.profile("cpu", "quick").budget_seconds) == (60, 60)
    assert full.budget_seconds is None
    own = suite(f"{text}[profiles.cpu.full]\nbudget_seconds = 600\n", tmp_path)
    assert own.profile("cpu", "full").budget_seconds == 600


@pytest.mark.parametrize("variant", ["quick", "full"])
def test_a_mistake_in_a_variant_is_where_the_file_has_it(tmp_path: Path, variant: Variant):
    text = GOOD.split("[profiles.cpu.quick]")[0] + f"[profiles.cpu.{variant}]\n"
    for mistake in ("budget = 3", "batch_sizes = [0]"):
        with pytest.raises(FlopbenchError, match=rf"^my.toml: profiles\.cpu\.{variant}[.:]"):
            suite(text + mistake, tmp_path)


@pytest.mark.parametrize("variant", ["quick", "full"])
def test_a_variant_that_is_not_there_is_one_line(tmp_path: Path, variant: Variant):
    message = f"suite 'my' has no {variant} profile for cuda; it has .*: leave out --{variant}$"
    with pytest.raises(FlopbenchError, match=message):
        suite(GOOD, tmp_path).profile("cuda", variant)


def compiled(cells: Iterable[Cell]) -> int:
    return sum(cell.mode != "eager" for cell in cells)


@pytest.mark.parametrize(
    "name",
    ["vit", "resmlp", "convnext", "hybrid", "paper", "speed", "widths", "dense", "resolution", "engines"],
)
def test_on_a_gpu_a_budget_bounds_all_but_the_long_sweep(name: str):
    """Whole networks are compiled in minutes: a first look compiles few. What is compiled is captured, for
    launches one by one bound all else.
    """
    loaded = load_suite(name)
    usual, quick = loaded.profile("cuda"), loaded.profile("cuda", "quick")
    assert (usual.budget_seconds or 1e9) < 600
    assert (quick.budget_seconds or 1e9) < 120
    assert compiled(quick.cells("cuda")) <= 4
    assert {cell.pass_ for cell in quick.cells("cuda")} == {"forward"}
    assert set(quick.cells("cuda")) != set(usual.cells("cuda"))
    modes = {cell.mode for profile in (usual, quick) for cell in profile.cells("cuda")}
    assert modes & CAPTURING
    assert modes - ENGINES <= {"eager", *CAPTURING}
    if "cuda" in loaded.full:
        full = loaded.profile("cuda", "full")
        assert full.budget_seconds is None
        assert {c.id for c in full.cells("cuda")} >= {c.id for c in usual.cells("cuda")}


def test_the_main_suite_begins_with_what_matters_most_on_a_gpu():
    cells = list(load_suite("vit").profile("cuda").cells("cuda"))
    first = [cell for cell in cells if (cell.batch_size, cell.pass_) == (64, "forward")]
    assert cells[: len(first)] == first
    networks = list(dict.fromkeys(cell.pair.baseline for cell in first))
    assert networks == ["vit_s16", "vit_b16", "vit_l16", "vit_h14"]
    # A whole network takes a minute to compile: as many as a few processes get done in a part of ten.
    assert compiled(first) == 8
    assert cells[len(first)].pass_ == "backward"
    assert compiled(cells) <= 48


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_budget_that_runs_out_has_every_pair_at_the_small_resolutions(device: DeviceKind):
    cells = list(load_suite("resolution").profile(device).cells(device))
    pairs = dict.fromkeys(cell.pair.id for cell in cells)
    assert set(pairs) == {f"{x}.flop{rival}" for x in ("vit_s16", "vit_b16") for rival in ("", f"@{x}.tta")}
    seen = dict.fromkeys((cell.batch_size, cell.image_size[0], cell.pair.id) for cell in cells)
    sizes = (224, 384, 512, 768, 1024)
    batches = dict.fromkeys(cell.batch_size for cell in cells)
    assert [*seen] == [(batch, size, pair) for batch in batches for size in sizes for pair in pairs]


def test_dense_networks_are_measured_beside_test_time_augmentation():
    for device in ("cpu", "cuda"):
        cells = list(load_suite("dense").profile(device).cells(device))
        assert {(cell.task, cell.image_size, cell.num_classes) for cell in cells} == {
            ("segmentation", (512, 512), 150)
        }
        assert {cell.decoder for cell in cells} == {"linear", "conv"}
        forward, train = ({c.pair.id for c in cells if c.pass_ == pass_} for pass_ in ("forward", "train"))
        assert train == {"vit_s16.flop", "vit_b16.flop", "convnext_t.flop"}
        assert forward > train
        assert cells[0].pass_ == "forward"
        assert "vit_b16.flop@vit_b16.tta" in forward


def test_an_id_names_what_is_not_as_usual():
    fields = {"pair": Pair.of("vit_s16.flop"), "device": "cpu", "batch_size": 8, "pass": "train"}
    fields |= {"dtype": "fp32", "mode": "eager"}
    assert Cell.model_validate(fields).id == "vit_s16.flop/cpu/b8/train/fp32/eager"
    fields |= {"image_size": (224, 192), "num_classes": 10, "attention": "unfused"}
    fields |= {"memory_format": "channels_last", "impl": "fused", "width": 64, "depth": 2}
    cell = Cell.model_validate(fields)
    assert cell.id.endswith("/224x192/10-classes/width64/depth2/unfused/channels_last/fused-kernels")
    kept = cell.model_copy(update={"pair": cell.pair.model_copy(update={"perturb": False})})
    assert kept.id == f"{cell.id}/own-weights"
    assert cell.words == [
        *("batch 8", "in a training step", "fp32", "eager"),
        *(
            "224×192 pixels",
            "10 classes",
            "width 64",
            "depth 2",
            "unfused attention",
            "channels_last",
            "fused kernels",
        ),
    ]


def kinds_of(cells: Iterable[Cell]) -> set[tuple[str, str]]:
    return {(cell.mode, cell.dtype) for cell in cells}


def test_what_a_mode_lacks_is_left_out_of_a_product():
    profile = load_suite("engines").profile("cpu", "full")
    kinds = kinds_of(profile.cells("cpu"))
    assert {(mode, "fp32") for mode in profile.values(AXES["mode"])} <= kinds
    assert {mode for mode, dtype in kinds if dtype == "int8"} == {"onnxruntime", "openvino"}
    assert ("onnxruntime", "bf16") not in kinds
    assert ("openvino", "bf16") in kinds
    # Neither is a pass that exported networks have not, where others have it.
    both = override(profile, passes=("forward", "backward"), pairs=("vit_s16.flop",), impls=("auto",))
    backward = {cell.mode for cell in both.cells("cpu") if cell.pass_ == "backward"}
    assert backward == {"eager", "compile"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"modes": ("onnxruntime",), "dtypes": ("bf16",)},
            "onnxruntime has no bf16 on cpu: choose --dtype fp32 or",
        ),
        ({"modes": ("onnxruntime",), "dtypes": ("fp32", "bf16")}, "onnxruntime has no bf16"),
        (
            {"modes": ("eager", "openvino"), "dtypes": ("int8",)},
            "choose --mode onnxruntime or openvino, not e",
        ),
        ({"modes": ("eager", "openvino"), "passes": ("train",)}, "no train pass: choose --pass forward"),
    ],
)
def test_what_a_mode_lacks_is_refused_where_it_is_asked_for_alone(changes: dict[str, tuple], message: str):
    profile = override(load_suite("engines").profile("cpu", "quick"), **changes)
    with pytest.raises(FlopbenchError, match=message):
        list(profile.cells("cpu"))


def test_engines_stand_beside_torch_and_our_baselines_beside_timm_s():
    cells = list(load_suite("engines").profile("cpu").cells("cpu"))
    assert {cell.mode for cell in cells} == {"eager", "compile", "aot-inductor", "onnxruntime", "openvino"}
    assert {cell.pass_ for cell in cells} == {"forward"}
    assert {cell.batch_size for cell in cells} == {1, 8}
    promising = dict.fromkeys(cell.pair.id for cell in cells if cell.pair.names[1].has_symmetry)
    assert [*promising] == ["vit_s16.flop", "vit_b16.flop", "resmlp_s24.flop", "convnext_t.flop"]
    others = {cell.pair.candidate: cell.pair for cell in cells if cell.pair.id not in promising}
    assert others.keys() == {"vit_s16", "vit_b16", "resmlp_s24", "convnext_t"}
    assert all(pair.baseline.startswith("timm:") for pair in others.values())
    assert others["vit_s16"].label == "ViT-S/16 against timm:deit3_small_patch16_224"
    assert "tensorrt" in {cell.mode for cell in load_suite("engines").profile("cuda").cells("cuda")}


def test_what_runs_the_same_is_measured_once(tmp_path: Path):
    profile = override(suite(GOOD, tmp_path).profile("cpu"), batch_sizes=(1,), passes=("forward",))

    def kinds(pair: str, dtype: str = "fp32") -> list[tuple[str, str]]:
        own = override(profile, pairs=(pair,), impls=("eager", "auto", "fused"), dtypes=(dtype,))
        return [(cell.mode, cell.impl) for cell in own.cells("cpu")]

    compiled = [("compile", "eager"), ("compile", "auto"), ("compile", "fused")]
    assert kinds("vit_s16.flop") == [("eager", "eager"), ("eager", "fused"), *compiled]
    # In bf16 there may be a faster attention uncompiled.
    assert ("eager", "auto") in kinds("vit_s16.flop", "bf16")
    assert kinds("timm:one@timm:other") == [("eager", "eager"), ("compile", "eager")]


def test_a_width_that_is_not_free_is_refused(tmp_path: Path):
    profile = override(suite(GOOD, tmp_path).profile("cpu"), pairs=("convnext_t.flop",), widths=(64,))
    with pytest.raises(FlopbenchError, match="the width and depth of convnext_t are not free"):
        list(profile.cells("cpu"))


def test_two_kinds_of_attention_make_no_difference_without_attention():
    profile = override(load_suite("paper").profile("cuda"), batch_sizes=(64,))
    kinds = [(cell.pair.candidate, cell.attention) for cell in profile.cells("cuda")]
    assert kinds.count(("vit_b16.flop", "fused")) == kinds.count(("vit_b16.flop", "unfused")) > 0
    assert len({attention for name, attention in kinds if name == "resmlp_b24.flop"}) == 1


@pytest.mark.parametrize("name", sorted(available_suites()))
def test_every_shipped_suite_is_sound(name: str):
    loaded = load_suite(name)
    for device in ("cpu", "cuda"):
        if device in loaded.profiles:
            assert list(loaded.profile(device).cells(device))
        for variant in VARIANTS:
            if device in loaded.variant(variant):
                assert list(loaded.profile(device, variant).cells(device))


def test_the_paper_suite_has_the_eleven_pairs():
    assert len(load_suite("paper").profile("cuda").pairs) == 11


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Mine"', "", "my.toml: title is missing"),
        ('title = "Mine"', 'title = "Mine"\ntitel = "x"', "unknown key 'titel'; did you mean title"),
        ("[1, 2]", "[0]", r"profiles\.cpu\.batch_sizes\[0\]: input should be greater than .*, got 0"),
        ("[1, 2]", "[]", r"profiles\.cpu\.batch_sizes: .*at least 1 item"),
        (
            "[1, 2]",
            "[1]\nimage_sizes = ['big']",
            r"image_sizes\[0\]: not an image size; write 224 or 224x192",
        ),
        ("[1, 2]", "[1, 2]\nwidths = [30]", r"widths\[0\]: input should be a multiple of 4, got 30"),
        ("[1, 2]", '["many"]', r"batch_sizes\[0\]: .*valid integer.*'many'"),
        (
            "[1, 2]",
            "[1]\npasses = ['forwards']",
            r"passes\[0\]: input should be 'forward', 'backward' or 'train'",
        ),
        ("vit_s16.flop", "vit_s15.flop", "unknown model 'vit_s15.flop'; did you mean vit_s16"),
        ("vit_s16.flop", "vit_s16.flip", "unknown version of vit_s16 'flip'"),
        ('"vit_s16.flop"', '"vit_s16"', "has no baseline"),
        ("[profiles.cpu]", "[profiles.tpu]", "profiles.tpu.*cpu.*cuda"),
        (
            "[profiles.cpu]\nbatch_sizes = [1, 2]\n[profiles.cpu.quick]",
            "[minimum_effect]",
            "has no .profiles.cpu.",
        ),
        ("[1, 2]", "[1, 2]\nimage_sizes = [225]", "image height 225 does not suit vit_s16"),
    ],
)
def test_a_mistake_is_one_line_with_place_and_remedy(tmp_path: Path, old: str, new: str, message: str):
    assert old in GOOD
    with pytest.raises(FlopbenchError, match=message) as caught:
        list(suite(GOOD.replace(old, new), tmp_path).profile("cpu").cells("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # Pairs: types, keys, and the same one twice.
        (
            '["vit_s16.flop"',
            "[{candidate = 5}",
            r"profiles\.cpu\.pairs\[0\]\.candidate: .*valid string, got 5",
        ),
        ('["vit_s16.flop"', "[{}", r"pairs\[0\]\.candidate is missing"),
        ('baseline = "vit_s16"', "baseline = 5", r"pairs\[0\]\.baseline: .*string, got 5"),
        ('["vit_s16.flop"', "[5", r"profiles\.cpu\.pairs\[0\]: .*, got 5"),
        (
            'candidate = "vit_s16.hybrid" }',
            'candidate = "vit_s16.hybrid", pertub = false }',
            r"quick.*pairs\[0\]: unknown key 'pertub'; did you mean perturb\?",
        ),
        (
            '["vit_s16.flop"',
            '["vit_s16.flop", "vit_s16.flop@vit_s16"',
            "'vit_s16.flop' is named twice",
        ),
        # Axes: keys, the same value twice, sizes that no machine has, numbers that are none.
        (
            "batch_sizes = [1, 2]",
            "batch_size = [1]",
            r"cpu: unknown key 'batch_size'; .*batch_sizes",
        ),
        ("[1, 2]", "[1, 1]", r"profiles\.cpu\.batch_sizes: 1 is named twice"),
        ("[1, 2]", "[1]\nimage_sizes = [224, '224x224']", r"image_sizes: \(224, 224\) is named twice"),
        ("[1, 2]", "[1_000_000_000_000]", r"batch_sizes\[0\]: input should be less than .*, got 10{12}"),
        ("[1, 2]", "[1]\nimage_sizes = [1_000_000_000]", r"image_sizes\[0\]\[0\]: input should be less than"),
        ("[1, 2]", "[1]\nreplicates = 300_000_000", r"replicates: input should be less than .* 10000, got"),
        ("[1, 2]", "[1]\ncell_seconds = inf", r"cell_seconds: input should be a finite number|less than"),
        ("[1, 2]", "[1]\nprecision = nan", r"precision: input should be"),
        ("[1, 2]", "[1]\nbudget_seconds = 1e300", r"budget_seconds: input should be less than"),
        (
            "[profiles.cpu.quick]",
            "[minimum_effect]\nspeedups = 1\n[profiles.cpu.quick]",
            "did you mean speedup",
        ),
        ("[profiles.cpu.quick]", "[minimum_effect]\nmacs = nan\n[profiles.cpu.quick]", "minimum_effect.macs"),
        ("[defaults]", "[quick.cpu]\n[defaults]", "unknown key 'quick'"),
    ],
)
def test_a_slip_is_named_with_file_and_key(tmp_path: Path, old: str, new: str, message: str):
    assert old in GOOD
    with pytest.raises(FlopbenchError, match=rf"^my\.toml: .*({message})") as caught:
        suite(GOOD.replace(old, new), tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "content",
    [
        b'title = "\xff"',
        b"x = " + b"[" * 10_000,
        b"x = " + b"9" * 5000,
        b"\x00",
        'title = "Mine"\ntitle = "Mine"'.encode("utf-16"),
    ],
    ids=["no UTF-8", "deep", "digits", "zero", "UTF-16"],
)
def test_what_is_no_toml_is_one_line(tmp_path: Path, content: bytes):
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(FlopbenchError, match=r"^my\.toml is not valid TOML: ") as caught:
        load_suite(path)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path):
    path = tmp_path / "my.toml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert load_suite(path).title == "Mine"


def test_a_pair_keeps_its_weights_where_it_says_so(tmp_path: Path):
    text = GOOD.replace('candidate = "vit_s16.hybrid" }', 'candidate = "vit_s16.hybrid", perturb = false }')
    loaded = suite(text, tmp_path)
    assert [pair.perturb for pair in loaded.profile("cpu").pairs] == [True, True]
    assert not loaded.profile("cpu", "quick").pairs[0].perturb
    assert loaded.digest != suite(GOOD, tmp_path).digest


OWN = """{ baseline = "nets:a", candidate = "nets:b", inputs = "nets:tokens", loss = "nets:loss", \
same = "logits", tolerance = 1e-3, perturb = false, cast = false }"""


def test_a_pair_says_what_it_takes_and_what_is_the_same(tmp_path: Path):
    loaded = suite(GOOD.replace('"vit_s16.flop",', f"{OWN},"), tmp_path)
    own, timm = loaded.profile("cpu").pairs
    assert (own.inputs, own.loss, own.same, own.tolerance) == ("nets:tokens", "nets:loss", "logits", 1e-3)
    assert (own.perturb, own.cast) == (False, False)
    assert timm == Pair.of("vit_b16.flop", "timm:deit3_base_patch16_224")
    # Networks on inputs of their own take no images, of whatever size.
    profile = override(loaded.profile("cpu"), pairs=(own,), image_sizes=((225, 1),), passes=("train",))
    assert [cell.pair for cell in profile.cells("cpu")] == [own] * 4
    assert suite(GOOD.replace('"vit_s16.flop",', f"{OWN},".replace("logits", "1")), tmp_path) != loaded


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "nets:tokens",
            "tokens",
            r"pairs\[0\]\.inputs: not of the form package\.module:c.*, got 'tokens'",
        ),
        ('"nets:tokens"', "[3, 4]", r"pairs\[0\]\.inputs: .*valid string, got \[3, 4\]"),
        ("nets:loss", ":loss", r"pairs\[0\]\.loss: not of the form package\.module:callable, got ':loss'"),
        ("logits", "", r"pairs\[0\]\.same: names no part of the output and no package\.module:callable"),
        (
            "perturb = false, ",
            "",
            r"pairs\[0\]: networks that are to give the same keep their own weights",
        ),
        (
            'same = "logits", ',
            "",
            r"pairs\[0\]: tolerance says how much .*: add same = \"output\"",
        ),
        ("1e-3", "-1", r"pairs\[0\]\.tolerance: input should be greater than 0, got -1"),
        ("1e-3", "nan", r"pairs\[0\]\.tolerance: input should be "),
        ("inputs", "input", r"pairs\[0\]: unknown key 'input'; did you mean inputs"),
    ],
)
def test_a_slip_in_what_a_pair_says_is_one_line(tmp_path: Path, old: str, new: str, message: str):
    assert old in OWN
    with pytest.raises(FlopbenchError, match=rf"^my\.toml: profiles\.cpu\.{message}") as caught:
        suite(GOOD.replace('"vit_s16.flop",', f"{OWN.replace(old, new, 1)},"), tmp_path)
    assert "\n" not in str(caught.value)


def test_an_id_with_brackets_is_a_pattern_of_itself():
    effect = MinimumEffect(cells={"test_a[16]": {"throughput": 0.5}, "*/b1/*": {"speedup": 0.1}})
    assert effect.of("throughput", "test_a[16]") == 0.5
    assert effect.of("throughput", "test_a") == MinimumEffect().throughput
    assert effect.of("speedup", "vit/b1/x") == 0.1


def test_not_toml_and_not_there(tmp_path: Path):
    with pytest.raises(FlopbenchError, match=r"my\.toml is not valid TOML"):
        suite("title = ", tmp_path)
    with pytest.raises(FlopbenchError, match="no suite file at"):
        load_suite(tmp_path / "absent.toml")
    with pytest.raises(FlopbenchError, match=r"unknown suite 'vitt'; did you mean vit\?"):
        load_suite("vitt")


def test_a_profile_that_is_not_there(tmp_path: Path):
    with pytest.raises(FlopbenchError, match="has no profile for cuda; it has cpu"):
        suite(GOOD, tmp_path).profile("cuda")


def test_the_digest_is_of_what_is_measured(tmp_path: Path):
    base = suite(GOOD, tmp_path).digest
    assert suite(GOOD.replace("[1, 2]", "[1, 2]\nattention = 'fused'"), tmp_path).digest == base
    assert suite(GOOD.replace("Mine", "Yours"), tmp_path).digest == base
    assert suite(GOOD.replace("[1, 2]", "[1, 4]"), tmp_path).digest != base


def test_a_pair_is_named_by_its_candidate():
    assert Pair.of("vit_b16.flop").baseline == "vit_b16"
    assert Pair.of("vit_b16.flop", "vit_s16").id == "vit_b16.flop@vit_s16"


def test_overrides_are_checked():
    profile = load_suite("vit").profile("cpu")
    assert override(profile, batch_sizes=(3,), precision=None).values(AXES["batch_size"]) == (3,)
    with pytest.raises(FlopbenchError, match="precision"):
        override(profile, precision=2.0)


def test_parse_suite_wants_tables():
    with pytest.raises(FlopbenchError, match=r"x: profiles must be a table, got 3"):
        parse_suite({"title": "x", "profiles": 3}, name="x", where="x")
