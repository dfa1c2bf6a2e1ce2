"""Pictures beside each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from synapse_diffusion.figures.saving import save
from synapse_diffusion.types import Folder


def draw_pictures(columns: Mapping[str, NDArray[np.uint8]], path: Folder | None = None) -> Figure:
    """A grid: each column's pictures (N, 3, H, W) below its name, one row an image; drawn without interpolation."""
    size = next(iter(columns.values())).shape
    scale = max(1, 64 // size[2])
    figure = Figure(figsize=(1.0 * len(columns), 1.0 * size[0] + 0.6))
    top = 1 - 0.6 / (1.0 * size[0] + 0.6)
    for k, (name, pictures_N3HW) in enumerate(columns.items()):
        axis = figure.add_axes((k / len(columns), 0.0, 1 / len(columns), top))
        padded = np.pad(pictures_N3HW, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
        strip = padded.transpose(0, 2, 3, 1).reshape(-1, size[3] + 2, 3)
        axis.imshow(strip.repeat(scale, 0).repeat(scale, 1), interpolation="nearest", aspect="auto")
        axis.axis("off")
        figure.text((k + 0.5) / len(columns), top + 0.01 * (1 - top), name, ha="center", va="bottom", fontsize=8)
    return save(figure, path)
