"""Attention over sensors, then TSConv, in the manner of ATM (Li et al. 2024, NeurIPS).

Each sensor's whole course is one token (as in iTransformer, Liu et al. 2024), the person another: attention mixes
sensors by what they measured, and a convolution reads the mixed courses. Ours drops the person's token after attention
and keeps every sensor's; the authors' code keeps the first C of C + 1 tokens. A sensor is known by a learned vector, so
the model is bound to its montage.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from synapse_diffusion.models.base import Decoder, Dropout, Shape, make_head
from synapse_diffusion.models.tsconv import TemporalSpatial

HEADS: Final = 4
FEED_FORWARD: Final = 256
TOKEN_DROPOUT: Final = 0.5  # of `dropout`: the published 0.25 in attention where 0.5 follows it


class AttentionBlock(nn.Module):
    """Attention among tokens (B, N, T) and a feed-forward layer, each normalised after its sum."""

    def __init__(self, n_times: int, dropout: float) -> None:
        super().__init__()
        inner = HEADS * max(1, n_times // HEADS)
        self.query_key_value = nn.Linear(n_times, 3 * inner)
        self.out = nn.Linear(inner, n_times)
        self.norm = nn.LayerNorm(n_times)
        self.feed = nn.Sequential(
            nn.Linear(n_times, FEED_FORWARD), nn.GELU(), Dropout(dropout), nn.Linear(FEED_FORWARD, n_times)
        )
        self.feed_norm = nn.LayerNorm(n_times)
        self.dropout = Dropout(dropout)

    def forward(self, x_BNT: Tensor) -> Tensor:
        """Same shape."""
        split = self.query_key_value(x_BNT).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split[0], split[1], split[2]
        weight_BHNN = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(query.shape[3]), 3)
        mixed = self.dropout(weight_BHNN) @ value
        x_BNT = self.norm(x_BNT + self.dropout(self.out(mixed.transpose(1, 2).flatten(2))))
        result: Tensor = self.feed_norm(x_BNT + self.dropout(self.feed(x_BNT)))
        return result


class ATM(Decoder):
    """`layers` of attention, then `width` temporal and `components` spatial filters."""

    def __init__(
        self,
        shape: Shape,
        *,
        components: int = 40,
        width: int = 40,
        layers: int = 1,
        dropout: float = 0.5,
        projector: str = "linear",
    ) -> None:
        super().__init__(shape)
        n_times = shape.n_times
        self.embed = nn.Linear(n_times, n_times)
        self.sensor_CT = nn.Parameter(0.02 * torch.randn(shape.n_sensors, n_times))
        self.person_PT = nn.Parameter(torch.randn(shape.n_people, n_times))
        self.blocks = nn.Sequential(*(AttentionBlock(n_times, TOKEN_DROPOUT * dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(n_times)
        self.dropout = Dropout(TOKEN_DROPOUT * dropout)
        self.features = TemporalSpatial(shape.n_sensors, n_times, shape.sfreq, components, width, dropout)
        self.head = make_head(projector, self.features.n_features, shape.n_outputs, dropout)

    def person_tensors(self) -> dict[str, str]:
        """The people's tokens."""
        return {"person_PT": "mean"}

    def forward(self, x_BCT: Tensor, person_B: Tensor, fold_B: Tensor | None = None) -> Tensor:
        """Outputs (B, D)."""
        token_BNT = torch.cat([self.person_PT[person_B][:, None], self.embed(x_BCT) + self.sensor_CT], 1)
        mixed_BCT = self.norm(self.blocks(self.dropout(token_BNT)))[:, 1:]
        result: Tensor = self.head(self.features(mixed_BCT))
        return result
