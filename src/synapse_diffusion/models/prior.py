"""From what a brain says to an image embedding, as a distribution: a prior for diffusion or flow in embedding space.

The prior of DALL-E 2 (Ramesh et al. 2022, section 2.2) in a smaller form: residual layers with adaLN (the denoising MLP
of Li et al. 2024, "Autoregressive image generation without vector quantization", section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from synapse_diffusion.models.base import Dropout
from synapse_diffusion.models.conditioning import Condition, Denoiser, Embedded, Time, Vectors, check_names, modulated


class Residual(nn.Module):
    """A feed-forward layer, modulated before and gated after."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.feed_in = nn.Linear(width, width)
        self.feed_out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x_BD: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """Same shape."""
        fed = functional.silu(self.feed_in(modulated(x_BD, shift, scale)))
        return torch.addcmul(x_BD, gate, self.feed_out(self.dropout(fed)))


class EmbeddingPrior(Denoiser):
    """Predicts in the shape of the image embedding (B, `size`), given named vectors such as a brain's embedding."""

    def __init__(
        self, size: int, vectors: Mapping[str, int], *, width: int = 512, depth: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(size, width)
        self.time = Time(width)
        self.vectors = Vectors(vectors, width)
        self.blocks = nn.ModuleList(Residual(width, dropout) for _ in range(depth))
        self.modulation = nn.Linear(width, (3 * depth + 2) * width)
        self.exit = nn.Linear(width, size)
        for layer in (self.modulation, self.exit):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def embed(self, condition: Condition, n_rows: int) -> Embedded:
        """The vectors' sum (B, width)."""
        check_names(condition, self.vectors.null)
        return (self.vectors(condition, n_rows),)

    def denoise(self, x: Tensor, t: Tensor, embedded: Embedded) -> Tensor:
        """Prediction (B, D); times (B,), or (1,) for all rows."""
        m = self.modulation(functional.silu(self.time(t) + embedded[0])).chunk(3 * len(self.blocks) + 2, 1)
        x_BD = self.enter(x)
        for k, block in enumerate(self.blocks):
            x_BD = block(x_BD, *m[3 * k : 3 * k + 3])
        result: Tensor = self.exit(modulated(x_BD, m[-2], m[-1]))
        return result
