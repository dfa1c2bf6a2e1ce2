"""How alike two pictures are, pixel by pixel: K pictures (K, 3, H, W) in 0..1, one of each beside its reconstruction.

`..._table` gives the value of every reconstruction beside every true picture, (K, K): what it would be if the
reconstruction belonged to that picture, which is what permutations need. Several samples of a reconstruction,
(K, S, 3, H, W), give the mean of their values, never the value of their mean, which is a picture that nobody drew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from synapse_diffusion.metrics.identification import standardised

Array = NDArray[np.float64]
Pictures = torch.Tensor | NDArray[np.floating[Any]]
SIZE: Final = 425  # pixels a side of PixCorr and SSIM: the side of the Natural Scenes Dataset's pictures
LUMINANCE: Final = (0.2125, 0.7154, 0.0721)  # of linear CRT colours, ITU-R BT.709 as scikit-image has it
WINDOW: Final = 11
SIGMA: Final = 1.5
K1, K2 = 0.01, 0.03
BLOCK: Final = 32  # pictures in memory at once, at 425 x 425 some 25 MB each


def pixcorr(recon: Pictures, true_K3HW: Pictures, size: int | None = SIZE) -> Array:
    """PixCorr (K,): Pearson correlation of all values of two pictures.

    As Ozcelik & VanRullen 2023 (https://doi.org/10.1038/s41598-023-42891-8): resized to 425 x 425 first; `size` is
    another side, or `None` for as they are. A picture of one value has correlation 0.
    """
    true = _checked(true_K3HW)

    def values(sample: torch.Tensor) -> Array:
        pairs = zip(torch.split(sample, BLOCK), torch.split(true, BLOCK), strict=True)
        return np.concatenate([np.einsum("kd,kd->k", _rows(a, size), _rows(b, size)) for a, b in pairs])

    return _mean_of_samples(recon, true, values)


def pixcorr_table(recon: Pictures, true_K3HW: Pictures, size: int | None = SIZE) -> Array:
    """PixCorr (K, K) of every reconstruction with every true picture."""
    true = _checked(true_K3HW)
    true_KD = np.concatenate([_rows(block, size) for block in torch.split(true, BLOCK)])

    def values(sample: torch.Tensor) -> Array:
        return np.concatenate([_rows(block, size) @ true_KD.T for block in torch.split(sample, BLOCK)])

    return _mean_of_samples(recon, true, values)


def ssim(recon: Pictures, true_K3HW: Pictures, size: int | None = SIZE) -> Array:
    """Structural similarity (K,) of luminance, Wang et al. 2004 (https://doi.org/10.1109/TIP.2003.819861), equation 13.

    Windows of 11 x 11, Gaussian of standard deviation 1.5, population covariance, K1 = 0.01, K2 = 0.03, mean over all
    windows inside the picture; luminance in 0..1, which C1 and C2 are for: with those of 0..255 unrelated
    pictures reach 0.99. Resized to 425 x 425 first. These are the numbers of the field's
    `skimage.metrics.structural_similarity(rgb2gray(a), rgb2gray(b), gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1.0)`.
    """
    true = _checked(true_K3HW)

    def values(sample: torch.Tensor) -> Array:
        pairs = zip(torch.split(sample, BLOCK), torch.split(true, BLOCK), strict=True)
        lights = ((_light(a, size), _light(b, size)) for a, b in pairs)
        return torch.cat([_similarity(a, b, _moments(a), _moments(b)) for a, b in lights]).cpu().numpy()

    return _mean_of_samples(recon, true, values)


def ssim_table(recon: Pictures, true_K3HW: Pictures, size: int | None = SIZE) -> Array:
    """SSIM (K, K) of every reconstruction with every true picture: K^2 pairs, so a GPU or a small `size` is welcome."""
    true = _checked(true_K3HW)
    blocks = [(light, _moments(light)) for light in (_light(block, size) for block in torch.split(true, BLOCK))]

    def values(sample: torch.Tensor) -> Array:
        rows = []
        for picture in torch.split(sample, 1):
            light = _light(picture, size)
            own = _moments(light)
            rows.append(torch.cat([_similarity(light, block, own, theirs) for block, theirs in blocks]))
        return torch.stack(rows).cpu().numpy()

    return _mean_of_samples(recon, true, values)


def mean_colour(pictures: Pictures) -> Array:
    """Mean red, green, blue: (K, 3), of samples (K, S, 3)."""
    return np.asarray(_checked(pictures).double().mean((-2, -1)).cpu().numpy())


def resized(pictures_K3HW: Pictures, size: int | None) -> torch.Tensor:
    """Pictures (K, 3, size, size), float32: bilinear, averaging where they shrink, as Pillow does."""
    images = _checked(pictures_K3HW)
    if size is None or tuple(images.shape[2:]) == (size, size):
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(0, 1)


def luminance(pictures_K3HW: torch.Tensor) -> torch.Tensor:
    """Light (K, H, W) of colours in 0..1."""
    return torch.einsum("kchw,c->khw", pictures_K3HW, torch.tensor(LUMINANCE).to(pictures_K3HW))


def _rows(pictures_K3HW: Pictures, size: int | None) -> Array:
    return standardised(resized(pictures_K3HW, size).flatten(1).cpu().numpy())


def _light(pictures_K3HW: torch.Tensor, size: int | None) -> torch.Tensor:
    """Luminance in float64: variances are differences of nearly equal numbers."""
    return luminance(resized(pictures_K3HW, size)).double()


def _checked(pictures: Pictures) -> torch.Tensor:
    images = torch.as_tensor(pictures).detach().float()
    if images.ndim not in (4, 5) or images.shape[-3] != 3:
        raise ValueError(f"pictures are (K, 3, H, W) or samples (K, S, 3, H, W), got {tuple(images.shape)}")
    low, high = (float(value) for value in images.aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also where they are NaN
        raise ValueError(f"pictures have values in 0..1, got {low:g} to {high:g}")
    return images


def _mean_of_samples(recon: Pictures, true: torch.Tensor, values: Callable[[torch.Tensor], Array]) -> Array:
    images = _checked(recon)
    samples = [images] if images.ndim == 4 else list(images.unbind(1))
    if true.ndim != 4 or len(images) != len(true):
        raise ValueError(f"reconstructions {tuple(images.shape)} are not of pictures {tuple(true.shape)}")
    return np.asarray(np.mean([values(sample) for sample in samples], axis=0))


def _window(x_KHW: torch.Tensor) -> torch.Tensor:
    """Gaussian means over all windows that lie inside: (K, H - 10, W - 10)."""
    at = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weight = torch.exp(-0.5 * (at / SIGMA) ** 2)
    for axis in (1, 2):  # sums of shifted pictures: 13 times as fast as conv2d on a CPU
        length = x_KHW.shape[axis] - WINDOW + 1
        parts = zip(
            (weight / weight.sum()).tolist(), (x_KHW.narrow(axis, k, length) for k in range(WINDOW)), strict=True
        )
        first, part = next(parts)
        total = part * first
        for share, part in parts:
            total.add_(part, alpha=share)
        x_KHW = total
    return x_KHW


def _moments(light_KHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Local means and variances."""
    if min(light_KHW.shape[1:]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of {WINDOW} x {WINDOW} or more, got {tuple(light_KHW.shape[1:])}")
    mean_KHW = _window(light_KHW)
    return mean_KHW, _window(light_KHW**2) - mean_KHW**2


def _similarity(
    a_KHW: torch.Tensor,
    b_KHW: torch.Tensor,
    of_a: tuple[torch.Tensor, torch.Tensor],
    of_b: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Mean (K,) of equation 13 over windows."""
    (mean_a, variance_a), (mean_b, variance_b) = of_a, of_b
    covariance = _window(a_KHW * b_KHW) - mean_a * mean_b
    c1, c2 = K1**2, K2**2  # times the range of the data squared, which is 1
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (light * structure).mean((1, 2))
