"""Synthetic evaluations that look like measured ones, for tests of whatever reads them.

record = make_evaluation("vit_s16.flop", top1=0.79)
write_evaluation(tmp_path / "evaluate-vit_s16", record)
"""

from pathlib import Path
from typing import Any

from flopbench.models.catalog import label_of, parse_name
from flopbench.results.records import Interval
from flopbench.results.trainings import Accuracy, DataInfo, EvaluationRecord, Scores
from tests.support.runs import CPU, Device, environment

_TOP1 = {"vit_ti16": 0.72, "vit_s16": 0.78, "vit_b16": 0.83, "resmlp_s24": 0.76}
_RATE = {"vit_ti16": 200.0, "vit_s16": 60.0, "vit_b16": 20.0, "resmlp_s24": 50.0}


def make_evaluation(
    name: str = "vit_s16",
    *,
    top1: float | None = None,
    averaged: bool = False,
    data: str = "photographs",
    device: Device = CPU,
    **changes: Any,
) -> EvaluationRecord:
    """An evaluation of a network of the catalogue, with the given fields of the record replaced.

    Of a segmentation `top1` is mIoU, and half of the rest of the pixels are right, too.
    """
    parsed = parse_name(name)
    scores = _pixels if changes.get("task") == "segmentation" else _scores
    equivariant = parsed.version.invariant
    share = _TOP1.get(parsed.base, 0.7) if top1 is None else top1
    rate = _RATE.get(parsed.base, 50.0) * (1.5 if parsed.has_symmetry else 1.0)
    fields: dict[str, Any] = {
        "id": f"evaluate-{name}-{data}",
        "created": "2026-11-27T12:00:00+00:00",
        "command": f"flopbench evaluate {name} --weights {name}.safetensors --data {data}",
        "name": name,
        "label": label_of(name),
        "weights": f"{name}.safetensors",
        "weights_digest": "0123456789ab",
        "parameters": 11_039_656 if parsed.has_symmetry else 22_059_496,
        "macs": 2_507_174_400 if parsed.has_symmetry else 4_598_882_304,
        "data": DataInfo(name=data, split="validation", images=10_000, classes=10),
        "image_size": (224, 224),
        "crop": 1.0,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "accuracy": Accuracy(
            images=10_000,
            plain=scores(share),
            mirrored=scores(share if equivariant else share - 0.01),
            flip_consistency=1.0 if equivariant else 0.93,
            averaged=scores(share + 0.006) if averaged else None,
        ),
        "batch_size": 64,
        "dtype": "fp32",
        "mode": "compile",
        "impl": "auto",
        "implementations": {"linear": {"cpp": "asked for"}} if parsed.has_symmetry else {},
        "throughput": Interval(estimate=rate, low=0.98 * rate, high=1.02 * rate),
        "samples": (64 / rate,) * 5,
        "seconds": 120.0,
        "environment": environment(device),
    }
    return EvaluationRecord(**{**fields, **changes})


def write_evaluation(path: Path, record: EvaluationRecord) -> Path:
    """A folder of an evaluation at `path`, as `flopbench evaluate` leaves it."""
    path.mkdir(parents=True)
    (path / "evaluation.json").write_text(record.model_dump_json(by_alias=True) + "\n", encoding="utf-8")
    return path


def _scores(top1: float) -> Scores:
    return Scores(top1=top1, top5=top1 + 0.1, nll=1.2 - top1)


def _pixels(miou: float) -> Scores:
    return Scores(top1=(1 + miou) / 2, nll=1.2 - miou, miou=miou)
