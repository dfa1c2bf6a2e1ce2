"""TSConv, the temporal-spatial convolution of NICE (Song et al. 2024, ICLR), with a layer of each person's own.

Published: 40 temporal filters of 25 samples at 250 Hz, average pooling of 51 by 5, normalisation, ELU, 40 filters over
all sensors and all of these, normalisation, ELU, dropout, a 1 x 1 convolution. Convolution and pooling are both linear:
together they are one convolution of 75 taps, computed at every fifth sample only. The weights are the published 25
taps; the result differs by rounding. Normalisation is the trial's (`models.base`).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from synapse_diffusion.models.base import Decoder, Dropout, PersonLayer, Shape, TrialNorm, make_head

KERNEL_S: Final = 25 / 250
POOL_S: Final = 51 / 250
STRIDE_S: Final = 5 / 250


class TemporalSpatial(nn.Module):
    """Signals (B, C, T) to features (B, W * components), W windows: the published form without its projector."""

    def __init__(self, n_sensors: int, n_times: int, sfreq: float, components: int, width: int, dropout: float) -> None:
        super().__init__()
        kernel = min(max(1, round(KERNEL_S * sfreq)), n_times)
        self.pool = min(max(1, round(POOL_S * sfreq)), n_times - kernel + 1)
        self.stride = max(1, round(STRIDE_S * sfreq))
        self.n_features = components * ((n_times - kernel - self.pool + 1) // self.stride + 1)
        self.temporal_FL = nn.Parameter((torch.rand(width, kernel) * 2 - 1) / math.sqrt(kernel))
        self.temporal_bias = nn.Parameter((torch.rand(width) * 2 - 1) / math.sqrt(kernel))
        self.norm = TrialNorm(width)
        self.spatial = nn.Linear(n_sensors * width, components)
        self.spatial_norm = TrialNorm(components)
        self.dropout = Dropout(dropout)
        self.mix = nn.Linear(components, components)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Features (B, W * components), window by window."""
        mean = torch.full((1, 1, self.pool), 1 / self.pool, dtype=x_BCT.dtype, device=x_BCT.device)
        taps_FL = functional.conv1d(self.temporal_FL[:, None], mean, padding=self.pool - 1)[:, 0]
        window_BWCL = x_BCT.unfold(2, taps_FL.shape[1], self.stride).transpose(1, 2)
        filtered_BWCF = functional.linear(window_BWCL.contiguous(), taps_FL, self.temporal_bias)
        hidden_BWCF = functional.elu(self.norm(filtered_BWCF))
        hidden_BWG = functional.elu(self.spatial_norm(self.spatial(hidden_BWCF.flatten(2))))
        mixed: Tensor = self.mix(self.dropout(hidden_BWG))
        return mixed.flatten(1)


class TSConv(Decoder):
    """NICE's encoder: `width` temporal and `components` spatial filters, lengths in s as published."""

    def __init__(
        self,
        shape: Shape,
        *,
        components: int = 40,
        width: int = 40,
        dropout: float = 0.5,
        projector: str = "linear",
    ) -> None:
        super().__init__(shape)
        self.person = PersonLayer(shape.n_people, shape.n_sensors)
        self.features = TemporalSpatial(shape.n_sensors, shape.n_times, shape.sfreq, components, width, dropout)
        self.head = make_head(projector, self.features.n_features, shape.n_outputs, dropout)

    def person_tensors(self) -> dict[str, str]:
        """Each person's layer."""
        return {} if self.person.own_PCC is None else {"person.own_PCC": "zero"}

    def forward(self, x_BCT: Tensor, person_B: Tensor, fold_B: Tensor | None = None) -> Tensor:
        """Outputs (B, D)."""
        result: Tensor = self.head(self.features(self.person(x_BCT, person_B)))
        return result
