"""Serve an exported network by plain ONNX Runtime: neither flopbench nor torch is imported.

`pip install onnxruntime pillow`, then `python serve_onnx.py net.onnx photo.jpg`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

# Where a file does not say what its network was trained on: whatever that was, it takes these.
USUAL = {"mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]", "crop": "1", "interpolation": '"bicubic"'}


def load(path: str, threads: int = 1) -> Any:
    """The session of a file, which computes on so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def classify(session: Any, photos: Sequence[Image.Image]) -> np.ndarray:
    """The probabilities of each class `[B, classes]`, of any number of photographs."""
    about = USUAL | session.get_modelmeta().custom_metadata_map
    (height, width), mean, std, crop = (
        json.loads(about[key]) for key in ("image_size", "mean", "std", "crop")
    )
    how = Image.Resampling[json.loads(about["interpolation"]).upper()]
    # What lies around the centre is cut off: crop is the share of the shorter side that stays.
    rgb = [photo.convert("RGB") for photo in photos]
    small = [ImageOps.fit(photo, (width, height), how, bleed=(1 - crop) / 2) for photo in rgb]
    images = ((np.stack(small) / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def milliseconds(session: Any, photos: Sequence[Image.Image], calls: int = 20) -> float:
    """The median time of a call, decoded photographs to probabilities; the first calls warm up."""
    times = []
    for _ in range(calls + 3):
        start = time.perf_counter()
        classify(session, photos)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[3:])


def main() -> None:
    """Print the likeliest classes of a photograph, and how long batches of one and of eight take."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("network")
    parser.add_argument("photo")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    photo = Image.open(given.photo)
    (odds,) = classify(load(given.network), [photo])
    for label in np.argsort(-odds)[:5]:
        print(f"class {label}: {odds[label]:.1%}")
    for threads in given.threads:
        session = load(given.network, threads)
        for batch in (1, 8):
            print(f"threads {threads}, batch {batch}: {milliseconds(session, [photo] * batch):.2f} ms")


if __name__ == "__main__":
    main()
