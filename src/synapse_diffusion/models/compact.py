"""The compact decoder: a whitened linear path and a convolutional path, summed.

Both paths see signals whitened in time with statistics of the training trials. The linear path sees them
whitened jointly over sensors and time, and both heads start at zero: its first gradient is then
proportional to the class means in whitened space, which is shrinkage LDA (Ledoit & Wolf 2004), and training
begins where the linear baseline ends. For vectors the linear path begins at a closed-form solution (`models.starts`),
ridge regression or an encoding model's shared space, and its prior is centred there. The convolutional path (spatial,
then temporal convolution, then pooling, after Lawhern et al. 2018 and Song et al. 2024) adds what a linear map cannot
do: it is insensitive to a response's latency. Each person departs from the shared weights by weights of their own
(Defossez 2023).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from synapse_diffusion.models.base import Decoder, Dropout, Shape, bin_width
from synapse_diffusion.models.fourier import convolve, transform_length
from synapse_diffusion.models.starts import FOLDS, Start

KERNEL_S: Final = 0.12
POOL_S: Final = 0.064
TEMPORAL_SHRINKAGE: Final = 0.3
CLIP: Final = 6.0  # standard deviations
CHUNK: Final = 512  # trials whitened at a time


class CompactDecoder(Decoder):
    """`components` spatial and `width` temporal filters beside the linear path; needs `fit_statistics`."""

    mean_PCT: Tensor
    whiten_TT: Tensor
    whiten_FF: Tensor
    start: Tensor
    start_bias: Tensor
    unit_1: Tensor
    output_1: Tensor

    def __init__(self, shape: Shape, *, components: int = 16, width: int = 32, dropout: float = 0.7) -> None:
        super().__init__(shape)
        n_sensors, n_times, n_people, sfreq = shape.n_sensors, shape.n_times, shape.n_people, shape.sfreq
        self.n_outputs = n_outputs = shape.n_outputs
        self.bin = bin_width(n_sensors, n_times, sfreq)
        self.pool = min(n_times, max(1, round(POOL_S * sfreq)))
        kernel = 2 * max(1, round(KERNEL_S * sfreq / 2)) + 1
        n_features = n_sensors * (n_times // self.bin)
        self.register_buffer("mean_PCT", torch.zeros(n_people, n_sensors, n_times))
        self.register_buffer("whiten_TT", torch.eye(n_times))
        self.register_buffer("whiten_FF", torch.eye(n_features))
        own = n_people if n_people > 1 else 0
        self.linear = nn.Parameter(torch.zeros(1 + own, n_outputs, n_features))
        # by person; without each fold, and last the mean of those
        starts = (shape.starts, FOLDS + 1, n_outputs)
        self.register_buffer("start", torch.zeros(*starts, n_features))
        self.register_buffer("start_bias", torch.zeros(*starts))
        self.register_buffer("unit_1", torch.ones(1))
        self.register_buffer("output_1", torch.ones(1))
        self.gain = nn.Parameter(torch.zeros(n_outputs)) if shape.starts else None
        self.bias = nn.Parameter(torch.zeros(n_outputs))
        self.spatial = nn.Parameter(torch.randn(components, n_sensors) / math.sqrt(n_sensors))
        self.spatial_own = nn.Parameter(torch.zeros(own, components, n_sensors)) if own else None
        self.temporal = nn.Conv1d(components, width, kernel, padding=kernel // 2)
        self.transform = transform_length(n_times, kernel)
        self.dropout = Dropout(dropout)
        self.head = nn.Parameter(torch.zeros(n_outputs, width * (n_times // self.pool)))

    def forward(self, x_BCT: Tensor, person_B: Tensor, fold_B: Tensor | None = None) -> Tensor:
        """Outputs (B, D) for scaled signals (B, C, T) of the people `person_B` (B,)."""
        x_BCT = self.whiten(x_BCT, person_B)
        out_BD = self._linear_path(x_BCT, person_B, fold_B)
        spatial = self.spatial if self.spatial_own is None else self.spatial + self.spatial_own[person_B]
        hidden = functional.gelu(self._filtered(spatial @ x_BCT))
        pooled = functional.avg_pool1d(hidden, self.pool).flatten(1)
        result: Tensor = out_BD + self.output_1 * (self.bias + self.dropout(pooled) @ self.head.T)
        return result

    def _filtered(self, x_BCT: Tensor) -> Tensor:
        """The temporal filters' outputs (B, width, T)."""
        if x_BCT.device.type != "cpu":
            found: Tensor = self.temporal(x_BCT)
            return found
        assert self.temporal.bias is not None
        return convolve(x_BCT, self.temporal.weight, self.transform) + self.temporal.bias[:, None]

    def _linear_path(self, x_BCT: Tensor, person_B: Tensor, fold_B: Tensor | None) -> Tensor:
        features = self._binned(x_BCT) @ self.whiten_FF
        weight = self.unit_1 * self.linear
        every: Tensor = (features @ weight.flatten(0, 1).T).reshape(len(features), -1, self.n_outputs)
        shared = every[:, 0]
        if self.gain is not None:
            shared = shared + self.gain.exp() * self._started(features, person_B, fold_B)
        if self.linear.shape[0] == 1:
            return shared
        rows = torch.arange(len(person_B), device=person_B.device)
        return shared + every[rows, 1 + person_B]

    def _started(self, feature_BF: Tensor, person_B: Tensor, fold_B: Tensor | None) -> Tensor:
        """What the linear solution says (B, D), in training the one that was fitted without the trial's concept."""
        person = person_B if len(self.start) > 1 else torch.zeros_like(person_B)
        row_B = person * (FOLDS + 1) + (FOLDS if fold_B is None else fold_B)
        start_JDF, bias_JD = self.start.flatten(0, 1), self.start_bias.flatten(0, 1)
        out_BD = bias_JD[row_B]
        for row in torch.unique(row_B).tolist():
            mine = torch.nonzero(row_B == row)[:, 0]
            out_BD.index_add_(0, mine, (feature_BF[mine] @ start_JDF[row].T).to(out_BD.dtype))
        return out_BD

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
        starts = {"start": "mean", "start_bias": "mean"} if len(self.start) > 1 else {}
        return {"mean_PCT": "mean", **own, **starts}

    def linear_features(self, x_BCT: Tensor, person_B: Tensor) -> Tensor:
        """What the linear path sees (B, F)."""
        return self._binned(self.whiten(x_BCT, person_B)) @ self.whiten_FF

    @torch.no_grad()
    def begin_at(self, start: Start) -> None:
        """Let the linear path start from a closed-form solution.

        What is learned is a gain of each output, and the departure from the start in units of its weights' root mean
        square: a step of the optimizer then changes them by a small share, whatever the targets' scale. The other path
        is in units of the start's outputs: its features are white, so that these have the weights' length.
        """
        for held, found in ((self.start, start.weight_PJDF), (self.start_bias, start.bias_PJD)):
            held[:, :FOLDS] = found
            held[:, FOLDS] = found.mean(1)
        self.unit_1.copy_(self.start.square().mean().sqrt().clamp_min(1e-12))
        self.output_1.copy_(self.start.square().sum(-1).mean().sqrt().clamp_min(1e-12))

    def linear_parameters(self) -> list[nn.Parameter]:
        """Those that `linear_penalty` holds, which need no weight decay beside it."""
        return [self.linear, self.bias, *([] if self.gain is None else [self.gain])]

    @torch.no_grad()
    def fit_person(self, x_NCT: Tensor, person: int) -> None:
        """Set the person's mean course."""
        self.mean_PCT[person] = x_NCT.mean(0)

    @torch.no_grad()
    def fit_statistics(self, x_NCT: Tensor, label_N: Tensor, person_N: Tensor) -> None:
        """Set means and whitening from scaled training trials (N, C, T) of known class and person.

        Noise is what differs from the mean of the person's trials of that class; from the person's mean, where there
        is but one trial. Variances are per degree of freedom, for of concepts there may be few trials each.
        """
        for p in sorted(set(person_N.tolist())):
            self.mean_PCT[p] = x_NCT[person_N == p].mean(0)
        cells = _cells(label_N, person_N)
        n_free = sum(max(1, len(members) - 1) for members in cells)
        total_TT = torch.zeros_like(self.whiten_TT, dtype=torch.float64)
        for members in cells:  # one at a time: the trials may be gigabytes
            mean = x_NCT[members].mean(0) if len(members) > 1 else self.mean_PCT[person_N[members]]
            residual = (x_NCT[members] - mean).flatten(0, 1)
            total_TT += (residual.T @ residual).double()
        self.whiten_TT.copy_(_inverse_root(total_TT / (n_free * x_NCT.shape[1]), TEMPORAL_SHRINKAGE))
        pieces = [slice(k, k + CHUNK) for k in range(0, len(x_NCT), CHUNK)]
        features = torch.cat([self._binned(self.whiten(x_NCT[at], person_N[at])) for at in pieces])
        for members in cells:
            if len(members) > 1:  # one alone in its cell is already measured from its person's mean
                features[members] -= features[members].mean(0)
        features *= math.sqrt(len(features) / n_free)
        covariance = (features.T @ features).double() / len(features)
        self.whiten_FF.copy_(_inverse_root(covariance, _ledoit_wolf(features, covariance)))


def _cells(label_N: Tensor, person_N: Tensor) -> list[Tensor]:
    """Indices of the trials of each (person, class) cell."""
    cell_N = person_N * (label_N.max() + 1) + label_N
    ends = torch.unique(cell_N, return_counts=True)[1].cumsum(0)
    return list(torch.argsort(cell_N, stable=True).tensor_split(ends[:-1].cpu()))


def _inverse_root(covariance: Tensor, shrinkage: float) -> Tensor:
    """Symmetric inverse root of the covariance shrunk towards a multiple of the identity; itself, of no variance."""
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    if not covariance.any():  # of one trial alone nothing is known to be noise
        return identity.float()
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
