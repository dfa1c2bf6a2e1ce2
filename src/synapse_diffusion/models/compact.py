"""The compact decoder: a whitened linear path and a convolutional path, summed.

Both paths see signals whitened in time with statistics of the training trials. The linear path sees them
whitened jointly over sensors and time, and both heads start at zero: its first gradient is then
proportional to the class means in whitened space, which is shrinkage LDA (Ledoit & Wolf 2004), and training
begins where the linear baseline ends. For vectors the linear path begins as ridge regression on these features, and its
prior is centred there. The convolutional path (spatial, then temporal convolution, then
pooling, after Lawhern et al. 2018 and Song et al. 2024) adds what a linear map cannot do: it is insensitive
to a response's latency. Each person departs from the shared weights by weights of their own (Defossez 2023).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from synapse_diffusion.models.base import Decoder, Dropout, Shape
from synapse_diffusion.models.ridge import PENALTIES, solve_ridge

KERNEL_S: Final = 0.12
POOL_S: Final = 0.064
LINEAR_RATE_HZ: Final = 32.0
MAX_LINEAR_FEATURES: Final = 2048
TEMPORAL_SHRINKAGE: Final = 0.3
CLIP: Final = 6.0  # standard deviations


class CompactDecoder(Decoder):
    """`components` spatial and `width` temporal filters beside the linear path; needs `fit_statistics`."""

    mean_PCT: Tensor
    whiten_TT: Tensor
    whiten_FF: Tensor
    start: Tensor
    unit_1: Tensor

    def __init__(self, shape: Shape, *, components: int = 16, width: int = 32, dropout: float = 0.7) -> None:
        super().__init__()
        n_sensors, n_times, n_people, sfreq = shape.n_sensors, shape.n_times, shape.n_people, shape.sfreq
        self.n_outputs = n_outputs = shape.n_outputs
        self.bin = _bin_width(n_sensors, n_times, sfreq)
        self.pool = min(n_times, max(1, round(POOL_S * sfreq)))
        kernel = 2 * max(1, round(KERNEL_S * sfreq / 2)) + 1
        n_features = n_sensors * (n_times // self.bin)
        self.register_buffer("mean_PCT", torch.zeros(n_people, n_sensors, n_times))
        self.register_buffer("whiten_TT", torch.eye(n_times))
        self.register_buffer("whiten_FF", torch.eye(n_features))
        own = n_people if n_people > 1 else 0
        self.linear = nn.Parameter(torch.zeros(1 + own, n_outputs, n_features))
        self.register_buffer("start", torch.zeros(n_outputs, n_features))
        self.register_buffer("unit_1", torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(n_outputs))
        self.spatial = nn.Parameter(torch.randn(components, n_sensors) / math.sqrt(n_sensors))
        self.spatial_own = nn.Parameter(torch.zeros(own, components, n_sensors)) if own else None
        self.temporal = nn.Conv1d(components, width, kernel, padding=kernel // 2)
        self.dropout = Dropout(dropout)
        self.head = nn.Parameter(torch.zeros(n_outputs, width * (n_times // self.pool)))

    def forward(self, x_BCT: Tensor, person_B: Tensor) -> Tensor:
        """Outputs (B, D) for scaled signals (B, C, T) of the people `person_B` (B,)."""
        x_BCT = self.whiten(x_BCT, person_B)
        out_BD = self.bias + self._linear_path(x_BCT, person_B)
        spatial = self.spatial if self.spatial_own is None else self.spatial + self.spatial_own[person_B]
        hidden = functional.gelu(self.temporal(spatial @ x_BCT))
        pooled = functional.avg_pool1d(hidden, self.pool).flatten(1)
        result: Tensor = out_BD + self.dropout(pooled) @ self.head.T
        return result

    def _linear_path(self, x_BCT: Tensor, person_B: Tensor) -> Tensor:
        features = self._binned(x_BCT) @ self.whiten_FF
        weight = self.unit_1 * self.linear
        every: Tensor = (features @ weight.flatten(0, 1).T).reshape(len(features), -1, self.n_outputs)
        shared = every[:, 0] + features @ self.start.T
        if self.linear.shape[0] == 1:
            return shared
        rows = torch.arange(len(person_B), device=person_B.device)
        return shared + every[rows, 1 + person_B]

    def whiten(self, x_BCT: Tensor, person_B: Tensor) -> Tensor:
        """Less the person's mean course, whitened in time, clipped."""
        whitened: Tensor = ((x_BCT - self.mean_PCT[person_B]) @ self.whiten_TT).clamp(-CLIP, CLIP)
        return whitened

    def _binned(self, x_BCT: Tensor) -> Tensor:
        return functional.avg_pool1d(x_BCT, self.bin).flatten(1)

    def linear_penalty(self) -> Tensor:
        """Minus the log prior of the linear weights: normal around where they began, with variance 1 / features."""
        return 0.5 * self.linear.shape[2] * (self.unit_1 * self.linear).square().sum()

    def person_tensors(self) -> dict[str, str]:
        """Each person's mean course, and departures from the shared weights."""
        own = {"linear": "zero", "spatial_own": "zero"} if self.spatial_own is not None else {}
        return {"mean_PCT": "mean", **own}

    def linear_features(self, x_BCT: Tensor, person_B: Tensor) -> Tensor:
        """What the linear path sees (B, F)."""
        return self._binned(self.whiten(x_BCT, person_B)) @ self.whiten_FF

    @torch.no_grad()
    def begin_at(self, feature_NF: Tensor, target_ND: Tensor) -> None:
        """Let the linear path start from ridge regression, the penalty chosen by leave-one-out.

        What is learned is the departure from it, in units of its weights' root mean square: a step of the optimizer
        then changes them by a small share, whatever the targets' scale.
        """
        feature, target = feature_NF.double().cpu().numpy(), target_ND.double().cpu().numpy()
        fit = solve_ridge(feature, target, np.ones(len(feature)), PENALTIES)
        self.start.copy_(torch.from_numpy(fit.weight_FD.T))
        self.unit_1.copy_(self.start.square().mean().sqrt().clamp_min(1e-12))
        self.bias.copy_(torch.from_numpy(fit.bias_D))

    def linear_parameters(self) -> list[nn.Parameter]:
        """Those that `linear_penalty` holds, which need no weight decay beside it."""
        return [self.linear, self.bias]

    @torch.no_grad()
    def fit_person(self, x_NCT: Tensor, person: int) -> None:
        """Set the person's mean course."""
        self.mean_PCT[person] = x_NCT.mean(0)

    @torch.no_grad()
    def fit_statistics(self, x_NCT: Tensor, label_N: Tensor, person_N: Tensor) -> None:
        """Set means and whitening from scaled training trials (N, C, T) of known class and person."""
        for p in sorted(set(person_N.tolist())):
            self.mean_PCT[p] = x_NCT[person_N == p].mean(0)
        residual = _within_cells(x_NCT, label_N, person_N)
        covariance = torch.einsum("nct,ncs->ts", residual, residual).double() / (residual.shape[0] * residual.shape[1])
        self.whiten_TT.copy_(_inverse_root(covariance, TEMPORAL_SHRINKAGE))
        features = _within_cells(self._binned(self.whiten(x_NCT, person_N)), label_N, person_N)
        covariance = (features.T @ features).double() / len(features)
        self.whiten_FF.copy_(_inverse_root(covariance, _ledoit_wolf(features, covariance)))


def _bin_width(n_sensors: int, n_times: int, sfreq: float) -> int:
    width = max(1, round(sfreq / LINEAR_RATE_HZ))
    while n_sensors * (n_times // width) > MAX_LINEAR_FEATURES and width < n_times:
        width += 1
    return min(width, n_times)


def _within_cells(values: Tensor, label_N: Tensor, person_N: Tensor) -> Tensor:
    """Values less the mean of their (person, class) cell."""
    residual = torch.empty_like(values)
    cell_N = person_N * (label_N.max() + 1) + label_N
    for cell in sorted(set(cell_N.tolist())):
        members = cell_N == cell
        residual[members] = values[members] - values[members].mean(0)
    return residual


def _inverse_root(covariance: Tensor, shrinkage: float) -> Tensor:
    """Symmetric inverse root of the covariance shrunk towards a multiple of the identity."""
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    shrunk = (1 - shrinkage) * covariance + shrinkage * covariance.diagonal().mean() * identity
    values, vectors = torch.linalg.eigh(shrunk)
    root: Tensor = (vectors / values.clamp_min(1e-12 * float(values[-1])).sqrt()) @ vectors.T
    return root.float()


def _ledoit_wolf(residual_NF: Tensor, covariance_FF: Tensor) -> float:
    """Shrinkage intensity of Ledoit & Wolf 2004, equation 14, for centred rows."""
    squared = covariance_FF.square().sum()
    distance = squared - len(covariance_FF) * covariance_FF.diagonal().mean().square()
    fourth = residual_NF.double().square().sum(1).square().mean()
    return float(((fourth - squared) / len(residual_NF) / distance.clamp_min(1e-30)).clamp(0.0, 1.0))
