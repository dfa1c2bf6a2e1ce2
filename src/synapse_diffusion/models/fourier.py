"""Convolutions in time by Fourier transforms: on a CPU a fraction of the time of PyTorch's own, forward and backward.

The numbers are those of a direct convolution to float32's rounding. `benchmarks/speed.py` compares.
"""

from __future__ import annotations

from typing import Final

import torch
from scipy.fft import next_fast_len
from torch import Tensor

BLOCK: Final = 16  # lengths of transforms are multiples of it; odd ones are slow


def transform_length(n_times: int, kernel: int) -> int:
    """A length that transforms fast and holds a whole convolution."""
    return BLOCK * int(next_fast_len(-(-(n_times + kernel - 1) // BLOCK), real=True))


def convolve(x_BCT: Tensor, kernel_FCL: Tensor, n: int) -> Tensor:
    """Sums over the channels, each under a filter's kernel for it (B, F, T): `functional.conv1d`, as long as `x_BCT`.

    `n`: `transform_length`. Of a kernel of even length, one zero more is behind the signal than before it.
    """
    spectrum_FCK = _spectrum(kernel_FCL.flip(2), n)
    mixed: Tensor = torch.einsum("bck,fck->bfk", _spectrum(x_BCT, n), spectrum_FCK)
    return _back(mixed, x_BCT, kernel_FCL, n)


def convolve_each(x_BFT: Tensor, kernel_FL: Tensor, n: int) -> Tensor:
    """Each channel under a kernel of its own: `convolve` with as many groups as channels."""
    return _back(_spectrum(x_BFT, n) * _spectrum(kernel_FL.flip(1), n), x_BFT, kernel_FL, n)


def _spectrum(x: Tensor, n: int) -> Tensor:
    exact = x.to(torch.promote_types(x.dtype, torch.float32))  # bfloat16 has no transforms
    found: Tensor = torch.fft.rfft(exact, n)
    return found


def _back(spectrum: Tensor, x: Tensor, kernel: Tensor, n: int) -> Tensor:
    first = kernel.shape[-1] // 2
    whole: Tensor = torch.fft.irfft(spectrum, n)
    return whole[..., first : first + x.shape[-1]]
