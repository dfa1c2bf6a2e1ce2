"""How a denoising network knows the time, and what a picture is drawn from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

FREQUENCIES: Final = 128
TIME_SCALE: Final = 1000.0  # t = 1 is the thousandth step of Ho et al. 2020, for which the frequencies were made
Embedded = tuple[Tensor, ...]


class Condition(NamedTuple):
    """What each row is drawn from: named vectors (B, D), or a low-level image (B, c, h, w) of name `image`.

    Rows that `present` (B,) calls false count as unknown, and may hold anything, NaN too. A name without a mask is
    known in all rows; a name without a value, in none.
    """

    values: Mapping[str, Tensor]
    present: Mapping[str, Tensor]


class Denoiser(nn.Module, ABC):
    """A network with what does not change from step to step taken out of the step.

    `forward` is for training; a sampler calls `embed` once and `denoise` at each step.
    """

    @abstractmethod
    def embed(self, condition: Condition, n_rows: int) -> Embedded:
        """The conditions of `n_rows` rows, as `denoise` takes them. `ValueError` for a name that is not its own."""

    @abstractmethod
    def denoise(self, x: Tensor, t: Tensor, embedded: Embedded) -> Tensor:
        """Prediction in the shape of x; times (B,), or (1,) for all rows."""

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Prediction in the shape of x at times (B,).

        Training gives every value, masked: DDP wants each parameter used in each step.
        """
        return self.denoise(x, t, self.embed(condition, len(x)))


class Vectors(nn.Module):
    """The sum of linear maps of named vectors, each with a learned vector in its place where it is unknown."""

    zero_D: Tensor

    def __init__(self, sizes: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.register_buffer("zero_D", torch.zeros(width), persistent=False)
        self.enter = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})
        self.null = nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(width)) for name in sizes})

    def forward(self, condition: Condition, n_rows: int) -> Tensor:
        """(B, width); no names, zeros."""
        total = self.zero_D.expand(n_rows, -1)
        for name, enter in self.enter.items():
            total = total + known_or(condition, name, enter, self.null[name], n_rows)
        return total


def check_names(condition: Condition, known: Iterable[str]) -> None:
    """Raises `ValueError` for a condition that a network would not hear."""
    unheard = (set(condition.values) | set(condition.present)) - set(known)
    if unheard:
        raise ValueError(f"this network knows the conditions {sorted(known)}, not {sorted(unheard)}")


def known_or(condition: Condition, name: str, enter: Callable[[Tensor], Tensor], null: Tensor, n_rows: int) -> Tensor:
    """`enter(value)` (B, ...) in rows that know it; in the others `null`, which has the shape of one row of that."""
    value, present_B = condition.values.get(name), condition.present.get(name)
    if value is None:
        return null.expand(n_rows, *null.shape)
    if present_B is None:
        return enter(value)
    entered = enter(torch.where(_over(present_B, value), value, torch.zeros_like(value)))
    return torch.where(_over(present_B, entered), entered, null)


def _over(mask_B: Tensor, rows: Tensor) -> Tensor:
    """The mask, broadcasting against tensors of those rows."""
    return mask_B.reshape(-1, *[1] * (rows.ndim - 1))


class Time(nn.Module):
    """Sines and cosines of t (Vaswani et al. 2017, section 3.5), then two layers (Peebles & Xie 2023)."""

    frequency_F: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        exponent_F = torch.arange(FREQUENCIES) / (FREQUENCIES - 1)
        self.register_buffer("frequency_F", TIME_SCALE * torch.exp(-math.log(10_000) * exponent_F), persistent=False)
        self.inner = nn.Linear(2 * FREQUENCIES, width)
        self.outer = nn.Linear(width, width)
        for layer in (self.inner, self.outer):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, t_B: Tensor) -> Tensor:
        """(B, width)."""
        angle_BF = t_B[:, None] * self.frequency_F
        result: Tensor = self.outer(functional.silu(self.inner(torch.cat([angle_BF.cos(), angle_BF.sin()], 1))))
        return result


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer normalisation whose gain (1 + scale) and bias come from the conditions (adaLN, Peebles & Xie 2023)."""
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)
