"""EEGNet (Lawhern et al. 2018, J. Neural Eng. 15, table 2), with spatial weights of each person's own.

Its first normalisation is kept as what batch normalisation is after training, a gain and a shift a filter. All up to
the spatial filters is then linear, so they go first, and the temporal filters run over 16 signals rather than over
every sensor: the published function in a fraction of the time. The second and third are normalisations of the trial
(`models.base`). The paper's limits on weight norms are left to weight decay.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from synapse_diffusion.models.base import Decoder, Dropout, Shape
from synapse_diffusion.models.fourier import convolve_each, transform_length

POOLED_HZ: Final = 32.0  # the paper's rate after the first pooling: 128 Hz / 4
SEPARABLE: Final = 16  # taps: 0.5 s at that rate
POOL: Final = 8


class EEGNet(Decoder):
    """EEGNet-`width`,`components`: temporal filters, and spatial filters of each; published: 8, 2.

    The temporal kernel is half a second, as published, at any rate.
    """

    def __init__(self, shape: Shape, *, components: int = 2, width: int = 8, dropout: float = 0.5) -> None:
        super().__init__(shape)
        self.kernel = max(1, min(round(shape.sfreq / 2), shape.n_times))
        self.pool = max(1, round(shape.sfreq / POOLED_HZ))
        pooled = max(1, shape.n_times // self.pool)
        self.pool, self.last_pool = min(self.pool, shape.n_times), min(POOL, pooled)
        self.transform = transform_length(shape.n_times, self.kernel)
        self.last_transform = transform_length(pooled, SEPARABLE)
        self.components, n_filters = components, width * components
        self.temporal = nn.Parameter(_uniform(width, self.kernel))
        self.gain = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.spatial = nn.Parameter(_uniform(n_filters, shape.n_sensors))
        own = torch.zeros(shape.n_people, n_filters, shape.n_sensors)
        self.spatial_own = nn.Parameter(own) if shape.n_people > 1 else None
        self.norm = nn.GroupNorm(1, n_filters)
        self.separable = nn.Parameter(_uniform(n_filters, SEPARABLE))
        self.pointwise = nn.Conv1d(n_filters, n_filters, 1, bias=False)
        self.last_norm = nn.GroupNorm(1, n_filters)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(n_filters * (pooled // self.last_pool), shape.n_outputs)

    def forward(self, x_BCT: Tensor, person_B: Tensor, fold_B: Tensor | None = None) -> Tensor:
        """Outputs (B, D)."""
        hidden = self.norm(self.filter(x_BCT, person_B))
        hidden = self.dropout(functional.avg_pool1d(functional.elu(hidden), self.pool))
        hidden = self.last_norm(self.pointwise(convolve_each(hidden, self.separable, self.last_transform)))
        hidden = self.dropout(functional.avg_pool1d(functional.elu(hidden), self.last_pool))
        result: Tensor = self.head(hidden.flatten(1))
        return result

    def person_tensors(self) -> dict[str, str]:
        """Each person's departure from the shared spatial filters."""
        return {} if self.spatial_own is None else {"spatial_own": "zero"}

    def filter(self, x_BCT: Tensor, person_B: Tensor) -> Tensor:
        """The temporal, then the spatial filters' outputs (B, filters, T), computed in the other order."""
        spatial = self.spatial if self.spatial_own is None else self.spatial + self.spatial_own[person_B]
        each = [p.repeat_interleave(self.components, 0) for p in (self.temporal, self.gain, self.shift)]
        filtered = convolve_each(spatial @ x_BCT, each[0], self.transform)
        return filtered * each[1][:, None] + (spatial.sum(-1) * each[2])[..., None]


def _uniform(n: int, fan_in: int) -> Tensor:
    """PyTorch's start of a convolution."""
    return (torch.rand(n, fan_in) * 2 - 1) / math.sqrt(fan_in)
