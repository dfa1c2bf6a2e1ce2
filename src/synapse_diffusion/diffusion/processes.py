"""Ways from x_0, a picture, to noise: x_t = alpha_t x_0 + sigma_t eps, with what a network predicts on the way."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor


class Process(ABC):
    """x_t = alpha_t x_0 + sigma_t eps for 0 <= t <= 1; alpha_0 = 1 and sigma_0 = 0."""

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of times in any shape."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What the network is to predict; alpha and sigma must broadcast against x_0."""

    @abstractmethod
    def estimate(self, x: Tensor, prediction: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        """x_0 and eps that follow from x_t and a prediction."""

    def path(self, times: Sequence[float]) -> tuple[list[float], list[float]]:
        """alpha and sigma of each of a sampler's times, in double precision."""
        alpha, sigma = self.coefficients(torch.tensor(times, dtype=torch.float64))
        return alpha.tolist(), sigma.tolist()


class VariancePreserving(Process):
    """alpha^2 + sigma^2 = 1, and the network predicts v = alpha eps - sigma x_0 (Salimans & Ho 2022, section 4)."""

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The velocity v."""
        return alpha * noise - sigma * x0

    def estimate(self, x: Tensor, prediction: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        """x_0 = alpha x_t - sigma v, eps = sigma x_t + alpha v."""
        return alpha * x - sigma * prediction, sigma * x + alpha * prediction


@dataclass(frozen=True)
class Cosine(VariancePreserving):
    """alpha_bar_t = f(t) / f(0), f(t) = cos^2(pi/2 (t + s) / (1 + s)) (Nichol & Dhariwal 2021, equation 17).

    In continuous time and to the end, where nothing of x_0 is left; the paper's betas stop just before it.
    """

    s: float = 0.008

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = cos a / cos a_0; sigma^2 = sin(a - a_0) sin(a + a_0) / cos^2 a_0, which does not cancel at t = 0."""
        first = math.pi / 2 * self.s / (1 + self.s)
        step = math.pi / 2 * t / (1 + self.s)
        alpha = torch.cos(first + step) / math.cos(first)
        sigma = (torch.sin(step) * torch.sin(2 * first + step)).clamp_min(0).sqrt() / math.cos(first)
        return alpha.clamp_min(0), sigma.clamp_max(1)  # rounding at t = 1


@dataclass(frozen=True)
class Betas(VariancePreserving):
    """alpha_bar_k = product of (1 - beta_j), j = 1..k, of T steps (Ho et al. 2020, equation 4), t = k / T.

    Log-linear between steps (Lu et al. 2022, appendix D.4 of DPM-Solver). The default is Stable Diffusion's, whose
    square roots of beta are evenly spaced (`scaled`; `linear`: the betas are).
    """

    start: float = 0.00085
    end: float = 0.012
    steps: int = 1000
    spacing: Literal["linear", "scaled"] = "scaled"

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar)."""
        table = _log_alpha_bar(self).to(t)
        k = (t * self.steps).clamp(0, self.steps)
        below = k.long().clamp_max(self.steps - 1)
        log_alpha_bar = torch.lerp(table[below], table[below + 1], k - below)
        return (log_alpha_bar / 2).exp(), (-torch.expm1(log_alpha_bar)).sqrt()


@lru_cache
def _log_alpha_bar(betas: Betas) -> Tensor:
    root = 2 if betas.spacing == "scaled" else 1
    beta = np.linspace(betas.start ** (1 / root), betas.end ** (1 / root), betas.steps) ** root
    return torch.from_numpy(np.concatenate([[0.0], np.cumsum(np.log1p(-beta))]))


@dataclass(frozen=True)
class RectifiedFlow(Process):
    """Straight lines, x_t = (1 - t) x_0 + t eps, and the network predicts their velocity u = eps - x_0.

    Liu et al. 2023, equation 1; Lipman et al. 2023, equation 22 with sigma_min = 0.
    """

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = 1 - t, sigma = t."""
        return 1 - t, t

    def target(self, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The velocity u."""
        return noise - x0

    def estimate(self, x: Tensor, prediction: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        """x_0 = x_t - t u, eps = x_t + (1 - t) u."""
        return x - sigma * prediction, x + alpha * prediction
