"""Trials of a search over settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from synapse_diffusion.figures.saving import COLOURS, save
from synapse_diffusion.types import Folder


@dataclass(frozen=True)
class Axis:
    """One setting of a search: each trial's place on it, from 0 to 1, and what is written at some places."""

    name: str
    place_N: NDArray[np.float64]
    marks: Mapping[float, str]


def draw_search(axes: Sequence[Axis], losses: Sequence[tuple[float, bool]], path: Folder | None = None) -> Figure:
    """Parallel coordinates: one line a trial over all settings to its loss, the best one thick; those that were ended
    early dashed. `losses`: loss (NaN: none) and whether the trial finished."""
    figure = Figure(figsize=(1.8 * len(axes) + 2.4, 4.2), layout="constrained")
    axis = figure.subplots()
    loss_N = np.array([loss for loss, _ in losses])
    low, high = np.nanmin(loss_N), np.nanmax(loss_N)
    span = max(float(high - low), 1e-12)
    best = min((k for k, (_, finished) in enumerate(losses) if finished), key=lambda k: loss_N[k])
    for k in np.argsort(-loss_N):  # the best on top
        if np.isnan(loss_N[k]):
            continue
        place, finished = float((loss_N[k] - low) / span), losses[k][1]
        colour = COLOURS[1] if k == best else mpl.colormaps["viridis"](0.92 * place)
        axis.plot(
            range(len(axes) + 1), [*(a.place_N[k] for a in axes), place], color=colour,
            linestyle="-" if finished else "--", linewidth=3 if k == best else 1.2, alpha=1.0 if finished else 0.6,
        )  # fmt: skip
    loss_axis = Axis("validation loss", loss_N, {0.0: f"{low:.4g}", 1.0: f"{high:.4g}"})
    for at, one in enumerate([*axes, loss_axis]):
        axis.axvline(at, color="0.3", linewidth=0.8, zorder=0)
        for place, text in one.marks.items():
            axis.text(at + 0.04, place, text, fontsize=8, va="center", bbox={"color": "white", "alpha": 0.7, "pad": 1})
    axis.set_xticks(range(len(axes) + 1), [a.name for a in axes] + [loss_axis.name], fontsize=8)
    axis.set_yticks([])
    axis.set_xlim(-0.2, len(axes) + 0.5)
    axis.spines[:].set_visible(False)
    axis.set_title("thick: the best of those that finished; dashed: ended early", fontsize=9)
    return save(figure, path)
