"""What all encoders share: size and crop of a picture, blur, pooling, the digest of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from PIL import Image

GRID: Final = 4  # cells a side of token = "grid"
BICUBIC: Final = 3  # Pillow's number; bilinear is 2
BILINEAR: Final = 2


@dataclass(frozen=True)
class Preparation:
    """How a picture gets the encoder's size: resize, then cut out the centre.

    `resize` is (H, W) in pixels, or the length of the shorter side; `crop` is (H, W), `None` for none; `resample` is
    Pillow's number of the filter.
    """

    resize: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int = BICUBIC

    def __post_init__(self) -> None:
        if self.crop is None and not isinstance(self.resize, tuple):
            raise ValueError("pictures of one size need a crop, or a resize to (H, W)")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of what comes out."""
        if self.crop is not None:
            return self.crop
        assert isinstance(self.resize, tuple)
        return self.resize

    def picture(self, picture: Image.Image) -> torch.Tensor:
        """An RGB picture as (3, H, W) uint8, with Pillow's filters: what transformers' Pillow processors give."""
        height, width = self._resized(picture.height, picture.width)
        if (height, width) != (picture.height, picture.width):
            picture = picture.resize((width, height), Image.Resampling(self.resample))
        pixels_3HW = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return self._cropped(pixels_3HW).contiguous()

    def images(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        """Images of any size (B, 3, H, W), as the encoder's; those that have its size stay what they are."""
        if tuple(images_B3HW.shape[2:]) == self.size:
            return images_B3HW
        height, width = self._resized(*images_B3HW.shape[2:])
        mode = "bilinear" if self.resample == BILINEAR else "bicubic"
        resized = torch.nn.functional.interpolate(images_B3HW, (height, width), mode=mode, antialias=True)
        return self._cropped(resized.clamp(0, 1))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None or isinstance(self.resize, tuple):
            return self.resize or (height, width)
        short, long = min(height, width), max(height, width)
        other = int(self.resize * long / short)  # cut off, as in transformers and torchvision
        return (self.resize, other) if height <= width else (other, self.resize)

    def _cropped(self, images: torch.Tensor) -> torch.Tensor:
        if self.crop is None:
            return images
        height, width = self.crop
        extra = [max(0, height - images.shape[-2]), max(0, width - images.shape[-1])]
        if any(extra):  # black, the odd pixel above and left: as in transformers
            top, left = -(-extra[0] // 2), -(-extra[1] // 2)
            images = torch.nn.functional.pad(images, (left, extra[1] - left, top, extra[0] - top))
        top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
        return images[..., top : top + height, left : left + width]


@dataclass(frozen=True)
class Tower:
    """An encoder without the choices of a recipe: what it offers and how to compute it."""

    name: str
    preparation: Preparation
    layers: tuple[str, ...]
    """All that can be asked for."""
    default: tuple[str, ...]
    digest: str
    """Of the weights and of what is done to pixels."""
    forward: Callable[[torch.Tensor, Sequence[str], str], dict[str, torch.Tensor]]
    """(images (B, 3, H, W) in 0..1, layers, token) -> {layer: (B, D)}."""
    about: str = ""
    """`layers` in words, where they are many."""
    aliases: Mapping[str, str] = field(default_factory=dict)


def blurred(images_B3HW: torch.Tensor, sigma: float) -> torch.Tensor:
    """Images convolved with a Gaussian of `sigma` pixels; at the border, of what lies inside."""
    across, down = _gaussian(images_B3HW.shape[3], sigma), _gaussian(images_B3HW.shape[2], sigma)
    return down.to(images_B3HW) @ images_B3HW @ across.to(images_B3HW).T


def _gaussian(n: int, sigma: float) -> torch.Tensor:
    at = torch.arange(n, dtype=torch.float64)
    weight = torch.exp(-0.5 * ((at[:, None] - at) / sigma) ** 2)
    return weight / weight.sum(1, keepdim=True)


def pooled(map_BDHW: torch.Tensor, token: str) -> torch.Tensor:
    """A map's `mean` or `max` (B, D), or its means over a `grid` of 4 x 4 cells (B, 16 D)."""
    if token == "grid":
        return torch.nn.functional.adaptive_avg_pool2d(map_BDHW, GRID).flatten(1)
    return map_BDHW.amax((2, 3)) if token == "max" else map_BDHW.mean((2, 3))


def state_digest(state: Mapping[str, torch.Tensor], *about: object) -> str:
    """SHA-256 of named weights, whatever files they came in, and of `about`'s text."""
    digest = hashlib.sha256(repr(about).encode())
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
