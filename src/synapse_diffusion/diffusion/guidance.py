"""Classifier-free guidance: a network and its conditions become a function of x and t alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from synapse_diffusion.diffusion.samplers import Denoise

Embedded = tuple[Tensor, ...]
"""Conditions as a network's `embed` makes them: the rows of each tensor are the batch's."""
Model = Callable[[Tensor, Tensor, Embedded], Tensor]
"""`model(x, t_1, embedded)`: a prediction, at one time for all rows."""


def guided(
    model: Model,
    condition: Embedded,
    null: Embedded,
    scale: float,
    *,
    interval: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
) -> Denoise:
    """null + scale (condition - null) (Ho & Salimans 2022, equation 6, whose w is scale - 1), both in one batch of 2B.

    At scale 1, at scale 0 and outside the `interval` of times (Kynkäänniemi et al. 2024) there is one prediction, of a
    batch of B. `rescale`, 0..1: how far each row's deviation is put back to that of its conditional prediction (Lin et
    al. 2024, equations 15 and 16).
    """
    if scale in (0.0, 1.0):
        only = condition if scale else null
        return lambda x, t: model(x, x.new_full((1,), t), only)
    both = tuple(torch.cat(pair) for pair in zip(condition, null, strict=True))

    def denoise(x: Tensor, t: float) -> Tensor:
        t_1 = x.new_full((1,), t)
        if not interval[0] <= t <= interval[1]:
            return model(x, t_1, condition)
        with_it, without = model(torch.cat([x, x]), t_1, both).chunk(2)
        return _rescaled(torch.lerp(without, with_it, scale), with_it, rescale)

    return denoise


def _rescaled(guided: Tensor, conditional: Tensor, rescale: float) -> Tensor:
    if not rescale:
        return guided
    axes = tuple(range(1, guided.ndim))
    ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return guided * (rescale * ratio + (1 - rescale))
