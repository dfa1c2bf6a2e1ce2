"""From noise to pictures: each function is one published algorithm.

`denoise(x, t)` is the network's prediction at a time that all rows share; `times` descend from noise (1) to the
picture (0). The result follows from `x` alone, which holds standard normal numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from synapse_diffusion.diffusion.processes import Process

Denoise = Callable[[Tensor, float], Tensor]


def even_times(steps: int, shift: float = 1.0, last: float = 0.0) -> list[float]:
    """`steps` + 1 times from 1 to 0, evenly spaced; those of a flow may be shifted towards noise.

    t' = shift t / (1 + (shift - 1) t) (Esser et al. 2024, equation 23); what varies over large parts of a picture is
    decided near t = 1. From `last` (before the shift) one step goes to 0: the expectation of x_0 there, without the
    finest detail. Raises `ValueError` for less than one step.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    even = [1 - k / steps for k in range(steps + 1)]
    if last:
        even = [1 - (1 - last) * k / max(1, steps - 1) for k in range(steps)] + [0.0]
    return [shift * t / (1 + (shift - 1) * t) for t in even]


def ddim(denoise: Denoise, x: Tensor, times: Sequence[float], process: Process) -> Tensor:
    """DDIM without noise (Song et al. 2021, equation 12 with sigma_t = 0)."""
    alpha, sigma = process.path(times)
    for i in range(1, len(times)):
        x0, noise = process.estimate(x, denoise(x, times[i - 1]), alpha[i - 1], sigma[i - 1])
        x = alpha[i] * x0 + sigma[i] * noise
    return x


def dpm_solver_pp_2m(denoise: Denoise, x: Tensor, times: Sequence[float], process: Process) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2), data prediction, two steps' predictions, one evaluation a step.

    The first step is of first order, having no predecessor, and so is a last one to t = 0, where h is infinite.
    """
    alpha, sigma = process.path(times)
    half_log_snr = [_log(a) - _log(s) for a, s in zip(alpha, sigma, strict=True)]
    before = x
    for i in range(1, len(times)):
        x0, _ = process.estimate(x, denoise(x, times[i - 1]), alpha[i - 1], sigma[i - 1])
        h, D = half_log_snr[i] - half_log_snr[i - 1], x0
        if i > 1 and math.isfinite(h):
            r = (half_log_snr[i - 1] - half_log_snr[i - 2]) / h
            D = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * before
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * math.expm1(-h) * D
        before = x0
    return x


def euler_flow(denoise: Denoise, x: Tensor, times: Sequence[float]) -> Tensor:
    """Euler's method along dx/dt = u (Liu et al. 2023, Algorithm 1)."""
    for now, then in pairwise(times):
        x = x + (then - now) * denoise(x, now)
    return x


def heun_flow(denoise: Denoise, x: Tensor, times: Sequence[float]) -> Tensor:
    """Heun's method along dx/dt = u, two evaluations a step; a last one to t = 0 is Euler's.

    After Karras et al. 2022, Algorithm 1.
    """
    for now, then in pairwise(times):
        velocity = denoise(x, now)
        ahead = x + (then - now) * velocity
        x = x + (then - now) / 2 * (velocity + denoise(ahead, then)) if then > 0 else ahead
    return x


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
