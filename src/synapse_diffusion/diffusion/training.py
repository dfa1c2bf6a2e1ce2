"""What a denoising network is trained by; noise and times are the caller's, drawn for the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from synapse_diffusion.diffusion.processes import Process

C = TypeVar("C")


def logit_normal_times(normal_B: Tensor, mean: float = 0.0, deviation: float = 1.0) -> Tensor:
    """Times from standard normal numbers, dense in the middle (Esser et al. 2024, equation 19)."""
    return torch.sigmoid(mean + deviation * normal_B)


def spread_times(uniform_B: Tensor) -> Tensor:
    """Times of which each B-th part of 0..1 holds one, each uniform there.

    The loss of a batch varies less than with independent times (the aim of Kingma et al. 2021, appendix I.1). They
    ascend: the batch's rows must be in random order.
    """
    n = len(uniform_B)
    return (torch.arange(n, device=uniform_B.device) + uniform_B) / n


def noised(process: Process, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
    """x_t of the rows' times."""
    alpha, sigma = _coefficients(process, x0, t_B)
    return alpha * x0 + sigma * noise


def denoising_loss(
    model: Callable[[Tensor, Tensor, C], Tensor],
    process: Process,
    x0: Tensor,
    condition: C,
    noise: Tensor,
    t_B: Tensor,
    gamma: float | None = None,
    scaled: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda error, alpha, sigma: error,
) -> Tensor:
    """Squared error of what `model(x_t, t, condition)` predicts, mean over numbers, then over rows.

    `scaled`: of errors, alpha and sigma the numbers that are squared.

    `gamma`: error of x_0 weighted by min(SNR, gamma), SNR = alpha^2 / sigma^2 (min-SNR, Hang et al. 2023, section
    3.4). An error of v or u is one of x_0 times sigma, so the weight is min(alpha^2, gamma sigma^2); the paper writes
    the same for v, min(SNR, gamma) / (SNR + 1). Published gamma: 5. None weights all times alike.
    """
    alpha, sigma = _coefficients(process, x0, t_B)
    difference = model(alpha * x0 + sigma * noise, t_B, condition) - process.target(x0, noise, alpha, sigma)
    error_B = scaled(difference, alpha, sigma).square().flatten(1).mean(1)
    if gamma is not None:
        error_B = error_B * torch.minimum(alpha.square(), gamma * sigma.square()).flatten()
    return error_B.mean()


def _coefficients(process: Process, x0: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, broadcasting against x_0."""
    return process.coefficients(t_B.reshape(-1, *[1] * (x0.ndim - 1)))
