"""A target without weights: where in the picture there is how much energy at which scale and orientation, and colour.

Oliva & Torralba 2001, with the numbers of their own code (LMgist: `prefilt`, `createGabor`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch.nn import functional

from synapse_diffusion.encoders.pixels import GRID, Preparation, Tower, state_digest

SIZE: Final = 128
BORDER: Final = 32  # mirrored pixels around the picture, taken off after filtering
SCALES: Final = 4
CACHED: Final = 4  # pictures
ORIENTATIONS: Final = 8
PREFILTER_CYCLES: Final = 4.0
LAYERS: Final = ("gist", "colour", "both")
BALANCE: Final = 1.34  # of gist beside colour in `both`: over 508 photos of things they vary by 0.78 and 1.04


def build_gist(device: torch.device) -> Tower:
    """Layers `gist` (512 = 4 scales x 8 orientations x 4 x 4 cells), `colour` (48 = 3 x 4 x 4 cells), `both` (560)."""
    filters_SOHW = gabor_filters(SIZE + 2 * BORDER).to(device)

    def forward(images_B3HW: torch.Tensor, layers: Sequence[str], token: str) -> dict[str, torch.Tensor]:
        gist, colour = oriented_energy(images_B3HW, filters_SOHW), colour_means(images_B3HW)
        found = {"gist": gist, "colour": colour, "both": torch.cat([BALANCE * gist, colour], 1)}
        return {layer: found[layer] for layer in layers}

    preparation = Preparation(SIZE, (SIZE, SIZE))
    digest = state_digest({"filters": filters_SOHW}, "gist 1", BALANCE, preparation)
    return Tower("gist", preparation, LAYERS, LAYERS, digest, forward)


def gabor_filters(n: int) -> torch.Tensor:
    """Transfer functions (scales, orientations, n, n), zero frequency first; the finest scale first."""
    frequency = torch.fft.fftfreq(n, dtype=torch.float64)  # cycles a pixel
    fy, fx = torch.meshgrid(frequency, frequency, indexing="ij")
    radius, angle = torch.hypot(fx, fy), torch.atan2(fy, fx)
    filters = []
    for scale in range(SCALES):
        centre, width = 0.3 / 1.85**scale, 16 * ORIENTATIONS**2 / 32**2
        for k in range(ORIENTATIONS):
            turned = angle + math.pi * k / ORIENTATIONS
            turned = torch.remainder(turned + math.pi, 2 * math.pi) - math.pi
            filters.append(torch.exp(-3.5 * (radius / centre - 1) ** 2 - 2 * width * math.pi * turned**2))
    return torch.stack(filters).reshape(SCALES, ORIENTATIONS, n, n).float()


def oriented_energy(images_B3HW: torch.Tensor, filters_SOHW: torch.Tensor) -> torch.Tensor:
    """(B, 512): mean amplitude of each filter's response to the whitened picture, in each of 4 x 4 cells.

    On a CPU a few pictures at a time, so that the cache holds their responses: twice as fast, the same bits.
    """
    rows = CACHED if images_B3HW.device.type == "cpu" else max(1, len(images_B3HW))
    return torch.cat([_energy(part_B3HW, filters_SOHW) for part_B3HW in torch.split(images_B3HW, rows)])


def _energy(images_B3HW: torch.Tensor, filters_SOHW: torch.Tensor) -> torch.Tensor:
    luminance_B1HW = (255 * images_B3HW.mean(1, keepdim=True) + 1).log()
    padded_BHW = functional.pad(luminance_B1HW, [BORDER] * 4, mode="reflect")[:, 0]
    spectrum_BHW = torch.fft.fft2(_equalised(padded_BHW))
    cells = []
    for filters_OHW in filters_SOHW:
        response = torch.fft.ifft2(spectrum_BHW[:, None] * filters_OHW)
        energy = response[..., BORDER:-BORDER, BORDER:-BORDER].abs()
        cells.append(functional.adaptive_avg_pool2d(energy, GRID).flatten(1))
    return torch.cat(cells, 1)


def colour_means(images_B3HW: torch.Tensor) -> torch.Tensor:
    """(B, 48): mean light (around 0), red - green and blue - yellow in each of 4 x 4 cells."""
    red, green, blue = images_B3HW.unbind(1)
    opponent = torch.stack([(red + green + blue) / 3 - 0.5, red - green, blue - (red + green) / 2], 1)
    return functional.adaptive_avg_pool2d(opponent, GRID).flatten(1)


def _equalised(light_BHW: torch.Tensor) -> torch.Tensor:
    """Without its coarse part, divided by its local standard deviation (LMgist's `prefilt`)."""
    n = light_BHW.shape[-1]
    frequency = torch.fft.fftfreq(n, device=light_BHW.device) * n  # cycles a picture
    squared = frequency[:, None] ** 2 + frequency**2
    low_HW = torch.exp(-squared * math.log(2) / PREFILTER_CYCLES**2)
    fine = light_BHW - torch.fft.ifft2(torch.fft.fft2(light_BHW) * low_HW).real
    local = torch.fft.ifft2(torch.fft.fft2(fine**2) * low_HW).abs().sqrt()
    equal: torch.Tensor = fine / (0.2 + local)
    return equal
