"""What all figures share."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from synapse_diffusion.store.files import whole
from synapse_diffusion.types import Folder

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")  # Okabe and Ito


def finish(figure: Figure, axis: mpl.axes.Axes, title: str, path: Folder | None, *, legend: bool) -> Figure:
    """Title, plain axes and a legend below; then `save`."""
    figure.suptitle(title, fontsize=11)
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    if legend:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return save(figure, path)


def save(figure: Figure, path: Folder | None) -> Figure:
    """As a PNG, whole or not at all, where `path` says."""
    if path is not None:
        with whole(Path(path)) as part:
            figure.savefig(part, format="png", dpi=130)
    return figure
