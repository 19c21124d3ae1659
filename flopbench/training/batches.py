"""Batches, and which images are in them: functions of the seed, the epoch and the place within it alone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flopbench.errors import FlopbenchError
from flopbench.training.world import World


class Batch(NamedTuple):
    """Images [B, 3, H, W], fp32 and normalised, and labels [B], or [B, H, W] of each pixel, int64; all on
    the device.
    """

    images: Tensor
    labels: Tensor


class Order(NamedTuple):
    """Which image stands at each place of an epoch [N], and as which of its versions [N]; both int64."""

    indices: np.ndarray
    versions: np.ndarray


def generator(*key: int) -> np.random.Generator:
    """Random numbers that are a function of `key`, whose numbers are not negative."""
    return np.random.default_rng(key)


def epoch_order(images: int, repeats: int, seed: int, epoch: int) -> Order:
    """A permutation of the images; with repeats so many versions of each one after another, and as many
    fewer images, so that an epoch is as long as without: what the RASampler of DeiT does.
    """
    places = np.arange(images)
    permutation = generator(seed, epoch).permutation(images)
    return Order(permutation[places // repeats], places % repeats)


def share(step: int, batch_size: int, world: World) -> slice:
    """The places of an epoch that fall to this process in a step: an image's versions go to several."""
    return slice(step * batch_size + world.rank, (step + 1) * batch_size, world.size)


def whole_steps(name: str, images: int, batch_size: int, world: World) -> int:
    """How many steps of whole batches an epoch has.

    Raises:
        FlopbenchError: none, or the batch cannot be shared out evenly.
    """
    if batch_size % world.size:
        raise FlopbenchError(f"{world.size} processes cannot share batches of {batch_size} images evenly")
    if batch_size > images:
        raise FlopbenchError(f"a batch of {batch_size} images is more than {name} has for training: {images}")
    return images // batch_size


def normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images of bytes [B, 3 or 1, H, W] as fp32 [B, 3, H, W], by the mean and standard deviation [3, 1, 1]
    of values between 0 and 1. Grey ones have three equal channels.
    """
    return (images.float() / 255 - mean) / std


def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One value per channel [3, 1, 1], as `normalised` takes them."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


def seed_all(*key: int, device: torch.device | None = None) -> None:
    """Let the global generators of Python, numpy and torch, of the current GPU too where `device` is one,
    begin where `key` says.
    """
    high, low, third = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(third)
    np.random.seed(third)
    # `torch.manual_seed` would seed every GPU, and `seeded` could not bring their states back.
    torch.default_generator.manual_seed(high << 32 | low)
    if device is not None and device.type == "cuda":
        torch.cuda.manual_seed(high << 32 | low)


@contextmanager
def generators_kept(device: torch.device | None = None) -> Iterator[None]:
    """After it the global generators that `seed_all` seeds go on as if nothing had been."""
    gpu = [device] if device is not None and device.type == "cuda" else []
    state, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(gpu):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(of_numpy)


@contextmanager
def seeded(*key: int, device: torch.device | None = None) -> Iterator[None]:
    """Within it global generators begin where `key` says (`seed_all`); afterwards they go on as before."""
    with generators_kept(device):
        seed_all(*key, device=device)
        yield
