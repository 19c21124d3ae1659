"""Networks as others write them: tokens and masks, recurrence, detections, two inputs; each in two sizes.

Self-contained, so that a copy of this file is a module of somebody's own folder.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY, CLASSES = 32, 5


@dataclass
class Encoded:
    """As transformers' ModelOutput: parts by name, and one that is not always there."""

    logits: Tensor
    hidden: Tensor
    attentions: Tensor | None = None


class Encoder(nn.Module):
    """Token ids and an attention mask `[B, L]`; the embedding is the output layer's weight too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.position = nn.Buffer(torch.randn(64, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True, dropout=0.0) for _ in range(2)
        )
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, input_ids: Tensor, *, attention_mask: Tensor | None = None) -> Encoded:
        x = self.embedding(input_ids) + self.position[: input_ids.shape[1]]
        ignored = None if attention_mask is None else attention_mask == 0
        for block in self.blocks:
            x = block(x, src_key_padding_mask=ignored)
        return Encoded(self.head(x), x)


class Recurrent(nn.Module):
    """Token ids `[B, L]` to logits, and the state that the next call could begin with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(
        self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x, last = self.lstm(self.embedding(tokens), state)
        return self.head(x[:, -1]), last


class FrozenNorm(nn.Module):
    """Normalisation by statistics that are buffers and nothing else, as detectors have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean, self.scale = nn.Buffer(torch.zeros(width, 1, 1)), nn.Buffer(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale


class Detector(nn.Module):
    """Images of unlike sizes to a dict per image; the stem is frozen, one head is used at every level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, stride=4), FrozenNorm(width), nn.ReLU())
        self.stem.requires_grad_(False)
        self.levels = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(2))
        self.boxes, self.classes = nn.Conv2d(width, 4, 1), nn.Conv2d(width, CLASSES, 1)

    def forward(self, images: list[Tensor]) -> list[dict[str, object]]:
        return [self._detect(image[None]) for image in images]

    def _detect(self, image: Tensor) -> dict[str, object]:
        x, features, found = self.stem(image), OrderedDict(), []
        for number, level in enumerate(self.levels):
            x = features[f"p{number}"] = level(x).relu()
            found.append((self.boxes(x).flatten(2)[0].mT, self.classes(x).flatten(2)[0].mT))
        boxes, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        scores, labels = logits.softmax(-1).max(-1)
        return {"boxes": boxes, "logits": logits, "scores": scores, "labels": labels, "features": features}


@dataclass
class Sample:
    """As diffusers' output."""

    sample: Tensor


class Attended(nn.Module):
    """A convolution given the time, and attention between pixels, both with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.time = nn.GroupNorm(4, width), nn.Linear(width, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.attention_norm, self.qkv = nn.GroupNorm(4, width), nn.Conv2d(width, 3 * width, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = x + self.conv(F.silu(self.norm(x) + self.time(time)[..., None, None]))
        q, k, v = (part.flatten(2).mT for part in self.qkv(self.attention_norm(x)).chunk(3, dim=1))
        return x + F.scaled_dot_product_attention(q, k, v).mT.reshape(x.shape)


class UNet(nn.Module):
    """A noisy sample `[B, 3, H, W]` and a time step, `[B]` or a number, to the noise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.enter, self.leave = (
            nn.Conv2d(3, width, 3, padding=1),
            nn.Conv2d(2 * width, 3, 3, padding=1),
        )
        self.high, self.low = Attended(width), Attended(width)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor | float) -> Sample:
        steps = torch.as_tensor(timestep, device=sample.device).to(sample.dtype).expand(len(sample))
        rates = torch.arange(1, self.width + 1, device=sample.device, dtype=sample.dtype) / self.width
        time = (steps[:, None] * rates).sin()
        high = self.high(self.enter(sample), time)
        low = F.interpolate(self.low(self.down(high), time), scale_factor=2.0)
        return Sample(self.leave(torch.cat((high, low), dim=1)))


def encoder() -> nn.Module:
    return Encoder(16)


def small_encoder() -> nn.Module:
    return Encoder(8)


def recurrent() -> nn.Module:
    return Recurrent(16)


def small_recurrent() -> nn.Module:
    return Recurrent(8)


def detector() -> nn.Module:
    return Detector(16)


def small_detector() -> nn.Module:
    return Detector(8)


def unet() -> nn.Module:
    return UNet(16)


def small_unet() -> nn.Module:
    return UNet(8)


def masked_tokens(batch_size: int) -> dict[str, Tensor]:
    """By keyword; the last tokens of the first text are padding."""
    mask = torch.ones(batch_size, 12, dtype=torch.long)
    mask[0, 8:] = 0
    return {"input_ids": torch.randint(VOCABULARY, (batch_size, 12)), "attention_mask": mask}


def tokens(batch_size: int) -> Tensor:
    return torch.randint(VOCABULARY, (batch_size, 12))


def photographs(batch_size: int, image_size: tuple[int, int] = (32, 32)) -> list[Tensor]:
    """A list is one argument."""
    height, width = image_size
    return [torch.rand(3, height, width + 16 * (number % 2)) for number in range(batch_size)]


def noisy(batch_size: int) -> tuple[Tensor, Tensor]:
    """By position: a sample and its time step."""
    return torch.randn(batch_size, 3, 16, 16), torch.randint(1000, (batch_size,))


def language_loss(output: Encoded, inputs) -> Tensor:
    return F.cross_entropy(output.logits.flatten(0, 1), inputs.kwargs["input_ids"].flatten())


def classification_loss(output: tuple[Tensor, object], inputs) -> Tensor:
    return F.cross_entropy(output[0], inputs.args[0][:, 0] % CLASSES)


def detection_loss(output: list[dict[str, Tensor]], inputs) -> Tensor:
    return sum(
        (found["boxes"].abs().mean() + found["logits"].logsumexp(-1).mean() for found in output),
        torch.zeros(()),
    )


def diffusion_loss(output: Sample, inputs) -> Tensor:
    return F.mse_loss(output.sample, inputs.args[0])
