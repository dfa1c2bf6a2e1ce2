"""What every decoder is, and the parts that several of them share.

None normalises over the batch: what a trial decodes to must not depend on its batch mates, nor on the number of
processes. Where a paper has batch normalisation there is group normalisation with one group (Wu & He 2018): mean and
variance of the trial's own features, one gain and one bias a feature, as many parameters as the paper's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from synapse_diffusion.models.starts import Start

LINEAR_RATE_HZ: Final = 32.0
MAX_LINEAR_FEATURES: Final = 2048


@dataclass(frozen=True)
class Shape:
    """What a decoder's weights are shaped by."""

    n_sensors: int
    n_times: int
    n_outputs: int
    n_people: int
    sfreq: float
    positions: tuple[tuple[float | None, ...], ...] = ()
    """(C, 3) in m, head coordinates; None where unknown; empty: all unknown."""
    starts: int = 0
    """People who have a linear solution of their own to begin at; 1: one for all, 0: training begins at none."""

    def position_tensor(self) -> Tensor:
        """The positions (C, 3) as numbers, NaN where unknown."""
        if not self.positions:
            return torch.full((self.n_sensors, 3), torch.nan)
        return torch.tensor([[torch.nan if v is None else v for v in row] for row in self.positions])


class Decoder(nn.Module, ABC):
    """`forward(x_BCT, person_B) -> (B, D)`, and what the training loop asks beside that.

    `x_BCT` are scaled signals, `person_B` indices of the people whose weights apply. In training `fold_B` names the
    fold of each trial's concept: a linear path answers by a start that was fitted without it (`models.starts`).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.sfreq = shape.sfreq

    @abstractmethod
    def forward(self, x_BCT: Tensor, person_B: Tensor, fold_B: Tensor | None = None) -> Tensor:
        """Outputs (B, D)."""

    def fit_statistics(self, x_NCT: Tensor, label_N: Tensor, person_N: Tensor) -> None:
        """Set what is estimated rather than learned from scaled training trials, once, before training; most: nothing.

        `label_N` is a class, or anything else within which the signals' means are equal, such as the concept.
        """

    def linear_penalty(self) -> Tensor:
        """Minus the log prior of weights that have one; the loop scales it by one over the training trials."""
        return torch.zeros(())

    def linear_parameters(self) -> list[nn.Parameter]:
        """Those that `linear_penalty` holds, which need no weight decay beside it."""
        return []

    def linear_features(self, x_BCT: Tensor, person_B: Tensor) -> Tensor:
        """Features (B, F) from which closed-form solutions are fitted: here the signals, averaged over 30 ms."""
        _, n_sensors, n_times = x_BCT.shape
        return functional.avg_pool1d(x_BCT, bin_width(n_sensors, n_times, self.sfreq)).flatten(1)

    def begin_at(self, start: Start) -> None:
        """Start from a linear solution on those features, once, after `fit_statistics`; for decoders that have one."""

    def fit_person(self, x_NCT: Tensor, person: int) -> None:
        """Set what is estimated of one person from their scaled trials, whatever those show; most: nothing."""

    def person_tensors(self) -> dict[str, str]:
        """Names of tensors with a row for each person, and how a new person's row begins: `zero` or `mean`."""
        return {}


def bin_width(n_sensors: int, n_times: int, sfreq: float) -> int:
    """Samples that are averaged into one feature of each sensor."""
    width = max(1, round(sfreq / LINEAR_RATE_HZ))
    while n_sensors * (n_times // width) > MAX_LINEAR_FEATURES and width < n_times:
        width += 1
    return min(width, n_times)


class Dropout(nn.Module):
    """Dropout whose mask is drawn for the whole batch, of which this process holds share `rank` of `size`.

    Several processes with equal seeds then leave out what one would. Set `share` before training.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.share = (0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape; rows are trials."""
        if not self.training or not self.p:
            return x
        rank, size = self.share
        drawn = torch.rand(len(x) * size, *x.shape[1:], device=x.device)
        return x * (drawn[rank * len(x) : (rank + 1) * len(x)] >= self.p) / (1 - self.p)


class PersonLayer(nn.Module):
    """`x + M[person] x` over channels; M begins at zero, and weight decay holds it there where data are few.

    The subject layer of Defossez et al. 2023, as a departure from what all people share.
    """

    def __init__(self, n_people: int, n_channels: int) -> None:
        super().__init__()
        self.own_PCC = nn.Parameter(torch.zeros(n_people, n_channels, n_channels)) if n_people > 1 else None

    def forward(self, x_BCT: Tensor, person_B: Tensor) -> Tensor:
        """Signals (B, C, T) as the shared part is to see them."""
        return x_BCT if self.own_PCC is None else x_BCT + torch.bmm(self.own_PCC[person_B], x_BCT)


class TrialNorm(nn.Module):
    """Group normalisation with one group, features in the last place: (B, ..., F), mean and variance of the trial."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(n_features))
        self.bias = nn.Parameter(torch.zeros(n_features))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        shape = x.shape[1:]
        return functional.layer_norm(x, shape, self.gain.expand(shape), self.bias.expand(shape))


class ResidualProjector(nn.Module):
    """Linear, a residual GELU layer, LayerNorm: how NICE and ATM go from features to an image embedding."""

    def __init__(self, n_features: int, n_outputs: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(n_features, n_outputs)
        self.residual = nn.Sequential(nn.GELU(), nn.Linear(n_outputs, n_outputs), Dropout(dropout))
        self.norm = nn.LayerNorm(n_outputs)

    def forward(self, feature_BF: Tensor) -> Tensor:
        """Outputs (B, D)."""
        hidden = self.enter(feature_BF)
        result: Tensor = self.norm(hidden + self.residual(hidden))
        return result


def make_head(projector: str, n_features: int, n_outputs: int, dropout: float) -> nn.Module:
    """From features (B, F) to outputs (B, D): `linear` (classes), or `residual` (embeddings)."""
    if projector == "residual":
        return ResidualProjector(n_features, n_outputs, dropout)
    return nn.Linear(n_features, n_outputs)
