"""The brain module of Defossez et al. 2023 (Nat. Mach. Intell. 5; Benchetrit et al. 2024, ICLR, for images).

Attention from sensor positions merges any montage into virtual sensors; a 1 x 1 convolution; a layer of each person's
own; dilated residual convolutions with gates; a learned sum over time (Benchetrit's); a head. Departures: positions are
laid flat by their direction from the head's centre on a fixed scale, not on each layout's own, so that montages agree;
a person's layer begins as the identity; normalisation is the trial's (`models.base`).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from synapse_diffusion.models.base import Decoder, Dropout, PersonLayer, Shape, make_head

HARMONICS: Final = 32  # a dimension: 2,048 features of a position
MARGIN: Final = 0.2  # the features' period is the unit square and this on each side
CENTRE_M: Final = (0.0, 0.0, 0.04)  # of the sphere that fits a head, MNE's default
WIDEST_RAD: Final = 0.75 * math.pi  # from the vertex to the square's edge; the lowest sensors are at some 2/3 pi


class SensorAttention(nn.Module):
    """Signals (B, C, T) to `n_merged` weighted means over sensors (B, J, T).

    Weights are a softmax over sensors of a Fourier series in the position; where that is unknown, of a learned number.
    In training all sensors within `dropout` (of the unit square's side) of a random place are left out.
    """

    unknown_C: Tensor
    place_C2: Tensor
    series_CK: Tensor

    def __init__(self, position_C3: Tensor, n_merged: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        n_unknown = int(position_C3.isnan().any(1).sum())
        self.weight_JK = nn.Parameter(torch.randn(n_merged, 2 * HARMONICS**2) / math.sqrt(2 * HARMONICS**2))
        self.default_JU = nn.Parameter(torch.randn(n_merged, n_unknown)) if n_unknown else None
        self.set_positions(position_C3)

    def set_positions(self, position_C3: Tensor) -> None:
        """Take another montage: positions in m, NaN where unknown (for as many sensors as before).

        Raises `ValueError` where more or fewer are unknown than have learned weights.
        """
        unknown_C = position_C3.isnan().any(1)
        known = 0 if self.default_JU is None else self.default_JU.shape[1]
        if int(unknown_C.sum()) != known:
            raise ValueError(f"{int(unknown_C.sum())} sensors without position, but weights for {known} such sensors")
        place_C2 = flatten(torch.where(unknown_C[:, None], 1.0, position_C3))
        device = self.weight_JK.device
        # not in the weights' file: they fit any montage
        self.register_buffer("unknown_C", unknown_C.to(device), persistent=False)
        self.register_buffer("place_C2", place_C2.to(device), persistent=False)
        self.register_buffer("series_CK", fourier(place_C2).to(device), persistent=False)

    def weights(self) -> Tensor:
        """Weights (J, C) of the sensors, summing to one."""
        score_JC = self.weight_JK @ self.series_CK.T
        if self.default_JU is not None:
            default_JU = self.default_JU.to(score_JC.dtype)  # half precision under autocast
            score_JC = score_JC.masked_scatter(self.unknown_C.expand_as(score_JC), default_JU)
        if self.training and self.dropout:
            centre = torch.rand(2, device=score_JC.device)
            out_C = ((self.place_C2 - centre).norm(dim=1) < self.dropout) & ~self.unknown_C
            score_JC = score_JC.masked_fill(out_C & ~out_C.all(), -torch.inf)
        return torch.softmax(score_JC, 1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Virtual sensors (B, J, T)."""
        return self.weights() @ x_BCT


def flatten(position_C3: Tensor) -> Tensor:
    """Places (C, 2) in the unit square: azimuthal equidistant projection about the head's centre, nose up."""
    direction_C3 = functional.normalize(position_C3 - position_C3.new_tensor(CENTRE_M), dim=1)
    angle = direction_C3[:, 2].clamp(-1, 1).arccos()
    flat_C2 = functional.normalize(direction_C3[:, :2], dim=1)
    return 0.5 + 0.5 * flat_C2 * (angle / WIDEST_RAD)[:, None]


def fourier(place_C2: Tensor) -> Tensor:
    """Cosines and sines (C, 2 * 32 * 32) of all pairs of frequencies 0 .. 31."""
    frequency = 2 * math.pi * torch.arange(HARMONICS, device=place_C2.device) / (1 + 2 * MARGIN)
    phase_CDK = (place_C2 + MARGIN)[:, :, None] * frequency
    phase_CK = (phase_CDK[:, 0, :, None] + phase_CDK[:, 1, None, :]).flatten(1)
    return torch.cat([phase_CK.cos(), phase_CK.sin()], 1)


class ConvolutionBlock(nn.Module):
    """Two dilated convolutions over time with skips, and one that gates (B, H, T)."""

    def __init__(self, n_in: int, width: int, number: int) -> None:
        super().__init__()
        dilations = [2 ** ((2 * number + k) % 5) for k in range(2)]
        self.dilated = nn.ModuleList(
            nn.Conv1d(n, width, 3, padding=d, dilation=d) for n, d in zip((n_in, width), dilations, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in dilations)
        self.gate = nn.Conv1d(width, 2 * width, 3, padding=1)

    def forward(self, x_BHT: Tensor) -> Tensor:
        """Signals (B, `width`, T); no skip where the number of channels changes."""
        for convolution, norm in zip(self.dilated, self.norms, strict=True):
            new = functional.gelu(norm(convolution(x_BHT)))
            x_BHT = x_BHT + new if x_BHT.shape == new.shape else new
        return functional.glu(self.gate(x_BHT), dim=1)


class BrainModule(Decoder):
    """`components` virtual sensors, `layers` blocks of `width` channels; published: 270, 5, 320."""

    def __init__(
        self,
        shape: Shape,
        *,
        components: int = 270,
        width: int = 320,
        layers: int = 5,
        dropout: float = 0.0,
        sensor_dropout: float = 0.2,
        projector: str = "linear",
    ) -> None:
        super().__init__(shape)
        self.merge = SensorAttention(shape.position_tensor(), components, sensor_dropout)
        self.mix = nn.Conv1d(components, components, 1)
        self.person = PersonLayer(shape.n_people, components)
        self.blocks = nn.Sequential(
            *(ConvolutionBlock(width if k else components, width, k) for k in range(layers)),
            nn.Conv1d(width, 2 * width, 1),
            nn.GELU(),
        )
        self.over_time = nn.Linear(shape.n_times, 1)
        self.dropout = Dropout(dropout)
        self.head = make_head(projector, 2 * width, shape.n_outputs, dropout)

    def set_positions(self, position_C3: Tensor) -> None:
        """Take another montage, (C, 3) in m; its signals may have another number of sensors."""
        self.merge.set_positions(position_C3)

    def person_tensors(self) -> dict[str, str]:
        """Each person's layer."""
        return {} if self.person.own_PCC is None else {"person.own_PCC": "zero"}

    def forward(self, x_BCT: Tensor, person_B: Tensor, fold_B: Tensor | None = None) -> Tensor:
        """Outputs (B, D)."""
        hidden_BHT = self.blocks(self.person(self.mix(self.merge(x_BCT)), person_B))
        result: Tensor = self.head(self.dropout(self.over_time(hidden_BHT)[..., 0]))
        return result
