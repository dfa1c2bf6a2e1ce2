"""Drawing, for evaluate and report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray


def draw_confusions(
    counts: Sequence[tuple[str, NDArray[np.int64]]], classes: Sequence[str], title: str, path: Path
) -> None:
    """For each (caption, counts (K, K)) a row of two panels: counts, and shares of each true class with chance."""
    n_classes = len(classes)
    side = max(3.2, 0.42 * n_classes + 2.2)
    figure = Figure(figsize=(2 * side + 0.8, side * len(counts) + 0.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(counts), 2, squeeze=False)
    for row, (caption, counts_KK) in zip(axes, counts, strict=True):
        share_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
        balanced = float(np.diag(share_KK)[counts_KK.sum(1) > 0].mean())
        _matrix(row[0], counts_KK, classes, "d", f"{caption}: counts, {int(counts_KK.sum())} decisions")
        top = max(float(share_KK.max()), 1.5 / n_classes)
        image = _matrix(
            row[1], share_KK, classes, ".2f",
            f"share of each true class\nbalanced accuracy {balanced:.3f}, chance {1 / n_classes:.3f}", top,
        )  # fmt: skip
        bar = figure.colorbar(image, ax=row[1], shrink=0.8)
        bar.ax.axhline(1 / n_classes, color="black", linewidth=1.5)
        bar.ax.text(1.15, 1 / n_classes, "chance", transform=bar.ax.get_yaxis_transform(), va="center", fontsize=7)
        bar.ax.tick_params(labelsize=7, pad=38)
    _save(figure, path)


def _matrix(
    axes: mpl.axes.Axes, values: NDArray[np.int64] | NDArray[np.float64], classes: Sequence[str], form: str,
    title: str, top: float | None = None,
) -> mpl.image.AxesImage:  # fmt: skip
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top)
    limit = (top if top is not None else float(values.max())) * 0.6
    size = 10 if len(classes) <= 6 else 7
    for i, j in np.ndindex(values.shape):
        colour = "white" if values[i, j] > limit else "black"
        axes.text(j, i, format(values[i, j], form), ha="center", va="center", color=colour, fontsize=size)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(classes)), classes, fontsize=9)
    axes.set_xlabel("decoded")
    axes.set_ylabel("seen")
    axes.set_title(title, fontsize=10)
    return image


def draw_curve(curve: pd.DataFrame, path: Path) -> None:
    """Training and validation loss and validation balanced accuracy over steps, one line a fold and member."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for k, (_, part) in enumerate(curve.groupby(["fold", "member"])):
        labels = ("training", "validation") if k == 0 else (None, None)
        loss.plot(part["step"], part["train_loss"], color="tab:gray", label=labels[0], alpha=0.8)
        loss.plot(part["step"], part["validation_loss"], color="tab:blue", label=labels[1], alpha=0.8)
        accuracy.plot(part["step"], part["validation_balanced_accuracy"], color="tab:blue", alpha=0.8)
    loss.set(xlabel="step", ylabel="loss (nats; validation: calibrated)")
    loss.legend(frameon=False)
    accuracy.set(xlabel="step", ylabel="balanced accuracy, validation")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    figure.savefig(part, format="png", dpi=130)
    part.rename(path)
