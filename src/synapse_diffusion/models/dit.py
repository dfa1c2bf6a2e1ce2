"""A small diffusion transformer with adaLN-zero (DiT, Peebles & Xie 2023), for pixels or latents.

The gains, shifts and gates of all layers are one matrix product a step, and attention takes queries, keys and values
from one. With one vector the function is the published one (`tests/test_dit.py` puts its weights into diffusers').
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from synapse_diffusion.models.base import Dropout
from synapse_diffusion.models.conditioning import (
    Condition,
    Denoiser,
    Embedded,
    Time,
    Vectors,
    check_names,
    known_or,
    modulated,
)

CACHED_TOKENS: Final = 512  # on one core: at width 128 a feed-forward layer's are 1 MB, a core's level-2 cache


class Block(nn.Module):
    """Attention among patches and a feed-forward layer, each modulated before and gated after."""

    def __init__(self, width: int, heads: int, ratio: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_in = nn.Linear(width, ratio * width)
        self.feed_out = nn.Linear(ratio * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x_BND: Tensor, m: tuple[Tensor, ...]) -> Tensor:
        """Same shape; `m` are shift, scale and gate (B, 1, D) of attention, then of the feed-forward layer."""
        mixed_BND = self.attend(modulated(x_BND, m[0], m[1]))
        x_BND = torch.addcmul(x_BND, m[2], self.dropout(self.out(mixed_BND)))
        fed = functional.gelu(self.feed_in(modulated(x_BND, m[3], m[4])))
        return torch.addcmul(x_BND, m[5], self.dropout(self.feed_out(fed)))

    def attend(self, x_BND: Tensor) -> Tensor:
        """Mixed values (B, N, D)."""
        split = self.query_key_value(x_BND).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(split[0], split[1], split[2])
        return mixed.transpose(1, 2).flatten(2)


class DiT(Denoiser):
    """Predicts in the shape of the picture (C, H, W), given named vectors and, if `image` channels are, an image.

    Positions are fixed sines and cosines, or learned. Raises `ValueError` unless `patch` divides H and W, and `heads`
    and 4 divide `width`.
    """

    position_ND: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        vectors: Mapping[str, int],
        image: int = 0,
        *,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        patch: int = 4,
        ratio: int = 4,
        dropout: float = 0.0,
        positions: Literal["fixed", "learned"] = "fixed",
    ) -> None:
        super().__init__()
        channels, height, breadth = shape
        if height % patch or breadth % patch or width % heads or width % 4:
            raise ValueError(
                f"patch {patch} must divide {height} x {breadth}, and {heads} heads and 4 the width {width}"
            )
        self.shape, self.patch = shape, patch
        self.enter = nn.Linear(channels * patch**2, width)
        self.time = Time(width)
        self.vectors = Vectors(vectors, width)
        if image:
            self.image = nn.Linear(image * patch**2, width)
            self.image_null_D = nn.Parameter(torch.zeros(width))
        self.has_image = bool(image)
        position_ND = sine_positions(height // patch, breadth // patch, width)
        if positions == "learned":
            self.position_ND = nn.Parameter(0.02 * torch.randn_like(position_ND))
        else:
            self.register_buffer("position_ND", position_ND, persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, ratio, dropout) for _ in range(depth))
        self.modulation = nn.Linear(width, (6 * depth + 2) * width)
        self.exit = nn.Linear(width, channels * patch**2)
        self.begin()

    def begin(self) -> None:
        """Published start: Xavier's uniform weights; modulation and exit zero, so that the network's answer is zero."""
        linear = [self.enter, *([self.image] if self.has_image else [])]
        linear += [m for m in self.blocks.modules() if isinstance(m, nn.Linear)]
        for layer in linear:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.modulation, self.exit):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def embed(self, condition: Condition, n_rows: int) -> Embedded:
        """The vectors' sum (B, D) and, with an image, its patches' tokens (B, N, D), which are added to x's.

        That is the image beside x at the input, with a mask as one more channel, as far as it does not change.
        """
        check_names(condition, [*self.vectors.null, *(["image"] if self.has_image else [])])
        vector_BD = self.vectors(condition, n_rows)
        if not self.has_image:
            return (vector_BD,)
        null_ND = self.image_null_D.expand_as(self.position_ND)
        return vector_BD, known_or(condition, "image", self.enter_image, null_ND, n_rows)

    def enter_image(self, image_BCHW: Tensor) -> Tensor:
        """Tokens (B, N, D) of an image of any size, resized to that of x."""
        resized = functional.interpolate(image_BCHW, self.shape[1:], mode="bilinear", antialias=True)
        result: Tensor = self.image(patches(resized, self.patch))
        return result

    def denoise(self, x: Tensor, t: Tensor, embedded: Embedded) -> Tensor:
        """Prediction (B, C, H, W); times (B,), or (1,) for all rows.

        On a CPU without gradient, a few rows go through all layers at a time, so that the cache holds what is between.
        """
        vector_BD = embedded[0]
        modulation = self.modulation(functional.silu(self.time(t) + vector_BD))
        modulation_BM1D = modulation.unflatten(1, (-1, 1, vector_BD.shape[1]))
        rows = len(x)
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            rows = max(1, CACHED_TOKENS * torch.get_num_threads() // len(self.position_ND))
        inputs = (x, modulation_BM1D, *embedded[1:])
        return torch.cat([self.through(*part) for part in zip(*(each.split(rows) for each in inputs), strict=True)])

    def through(self, x_BCHW: Tensor, modulation_BM1D: Tensor, *image_BND: Tensor) -> Tensor:
        """All layers, of rows whose shifts, scales and gates are given."""
        x_BND = sum(image_BND, self.enter(patches(x_BCHW, self.patch)) + self.position_ND)
        m = modulation_BM1D.unbind(1)
        for k, block in enumerate(self.blocks):
            x_BND = block(x_BND, m[6 * k : 6 * k + 6])
        return unpatched(self.exit(modulated(x_BND, m[-2], m[-1])), self.shape, self.patch)


def patches(x_BCHW: Tensor, size: int) -> Tensor:
    """Square patches (B, N, C size^2), row by row; numbers by channel, row, column."""
    batch, channels, height, breadth = x_BCHW.shape
    grid = x_BCHW.reshape(batch, channels, height // size, size, breadth // size, size)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * size**2)


def unpatched(x_BNF: Tensor, shape: tuple[int, int, int], size: int) -> Tensor:
    """The picture (B, C, H, W) of its patches."""
    channels, height, breadth = shape
    grid = x_BNF.reshape(-1, height // size, breadth // size, channels, size, size)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, *shape)


def sine_positions(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines (N, D) of columns, then of rows, a quarter of D each (as in He et al. 2022)."""
    row_N, column_N = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    frequency_F = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = [place.flatten()[:, None] * frequency_F for place in (column_N, row_N)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)
