"""Scores beside their chance, confusion matrices, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from synapse_diffusion.figures.saving import COLOURS, finish, save
from synapse_diffusion.types import Folder


def draw_confusions(
    counts: Sequence[tuple[str, NDArray[np.int64]]], classes: Sequence[str], title: str, path: Folder | None = None
) -> Figure:
    """For each (caption, counts (K, K)) a row of two panels: counts, and shares of each true class with chance."""
    n_classes = len(classes)
    side = max(2.6, 0.32 * n_classes)  # inches of a matrix: twelve classes are as wide as a screen at letters of 12 px
    figure = Figure(figsize=(2 * side + 3.1, (side + 1.9) * len(counts) + 0.4), layout="constrained")
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
        bar.ax.text(1.15, 1 / n_classes, "chance", transform=bar.ax.get_yaxis_transform(), va="center", fontsize=8)
        bar.ax.tick_params(labelsize=8, pad=42)
        row[1].set_yticks([])  # the left panel's
        row[1].set_ylabel("")
    return save(figure, path)


def _matrix(
    axes: mpl.axes.Axes, values: NDArray[np.int64] | NDArray[np.float64], classes: Sequence[str], form: str,
    title: str, top: float | None = None,
) -> mpl.image.AxesImage:  # fmt: skip
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top)
    limit = (top if top is not None else float(values.max())) * 0.6
    size = 10 if len(classes) <= 6 else 8
    for i, j in np.argwhere(values):  # a nought says no more than its empty cell
        colour = "white" if values[i, j] > limit else "black"
        text = axes.text(j, i, format(values[i, j], form), ha="center", va="center", color=colour, fontsize=size)
        text.set_in_layout(False)  # half of the time otherwise
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(classes)), classes, fontsize=9)
    axes.set_xlabel("decoded")
    axes.set_ylabel("seen")
    axes.set_title(title, fontsize=10)
    return image


def draw_curve(curve: pd.DataFrame, path: Folder | None = None) -> Figure:
    """Training and validation loss and validation score over steps, one line a fold, model and member."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for k, (_, part) in enumerate(curve.groupby(["fold", "model", "member"])):
        labels = ("training", "validation") if k == 0 else (None, None)
        loss.plot(part["step"], part["train_loss"], color="tab:gray", label=labels[0], alpha=0.8)
        loss.plot(part["step"], part["validation_loss"], color="tab:blue", label=labels[1], alpha=0.8)
        accuracy.plot(part["step"], part["validation_score"], color="tab:blue", alpha=0.8)
    loss.set(xlabel="step", ylabel="loss (nats; validation: calibrated)")
    loss.legend(frameon=False)
    accuracy.set(xlabel="step", ylabel="validation score")
    return save(figure, path)


def draw_time_course(
    times_s: NDArray[np.float64], value_T: NDArray[np.float64], chance: float, limit: float, ylabel: str, title: str,
    path: Folder | None = None,
) -> Figure:  # fmt: skip
    """A line, chance, and in grey what chance stays under in 95 % of permutations, anywhere; NaN: no permutations."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axis = figure.subplots()
    ms = times_s * 1000
    axis.plot(ms, value_T, color=COLOURS[0], linewidth=1.6)
    known = np.isfinite(limit)
    if known:
        axis.axhspan(chance - (limit - chance), limit, color="0.88", linewidth=0, zorder=0)
    _chance_line(axis, chance, "h")
    if ms[0] < 0 < ms[-1]:
        axis.axvline(0, color="0.4", linewidth=0.8)
    half = float(ms[1] - ms[0]) / 2 if len(ms) > 1 else 0.5
    axis.set_xlim(ms[0] - half, ms[-1] + half)
    band = "; grey: chance, in 95 % of permutations, at any time" if known else ""
    axis.set(xlabel=f"ms after onset{band}", ylabel=ylabel)
    return finish(figure, axis, title, path, legend=False)


def draw_generalisation(
    times_s: NDArray[np.float64], value_TT: NDArray[np.float64], chance: float, title: str, path: Folder | None = None
) -> Figure:
    """Area under the ROC curve of decoders trained at one time (up) and tested at another (right), chance in white."""
    figure = Figure(figsize=(5.2, 4.3), layout="constrained")
    axis = figure.subplots()
    ms = times_s * 1000
    half = float(ms[1] - ms[0]) / 2 if len(ms) > 1 else 0.5
    limits = (ms[0] - half, ms[-1] + half)
    spread = max(float(np.abs(value_TT - chance).max()), 0.02)
    image = axis.imshow(
        value_TT, origin="lower", extent=(*limits, *limits), cmap="RdBu_r", vmin=chance - spread, vmax=chance + spread
    )
    axis.plot(limits, limits, color="0.3", linewidth=0.8, linestyle=":")
    if limits[0] < 0 < limits[1]:
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.axhline(0, color="0.3", linewidth=0.8)
    axis.set(xlabel="tested at, ms after onset", ylabel="trained at, ms after onset")
    bar = figure.colorbar(image, ax=axis, shrink=0.85)
    bar.set_label(f"area under the ROC curve, chance {chance:g}", fontsize=9)
    return finish(figure, axis, title, path, legend=False)


def draw_retrieval(
    curves: Mapping[str, Sequence[tuple[int, float, float, float]]],
    chance: float,
    title: str,
    path: Folder | None = None,
) -> Figure:
    """For each model a line through its (repeats averaged, top-1, low, high), with the intervals as bands."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axis = figure.subplots()
    repeats = sorted({row[0] for rows in curves.values() for row in rows})
    for k, (name, rows) in enumerate(curves.items()):
        repeat, value, low, high = np.array(sorted(rows), dtype=float).reshape(-1, 4).T
        colour = COLOURS[k % len(COLOURS)]
        axis.plot(repeat, 100 * value, "o-", color=colour, markersize=4, linewidth=1.6, label=name)
        axis.fill_between(repeat, 100 * low, 100 * high, color=colour, alpha=0.18, linewidth=0)
    axis.set_xscale("log")
    axis.set_xticks(repeats, [str(k) for k in repeats])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    _chance_line(axis, 100 * chance, "h", unit=" %")
    axis.set(xlabel="repeats averaged", ylabel="top-1, %; bands: 95 % intervals")
    return finish(figure, axis, title, path, legend=True)


def draw_learning(
    panels: Sequence[tuple[str, Mapping[str, Sequence[tuple[int, float, float, float]]], Mapping[str, float]]],
    chance: float,
    ylabel: str,
    title: str,
    path: Folder | None = None,
) -> Figure:
    """For each (caption, curves, levels) a panel: for each model a line through its (labelled trials, value, low, high)
    with its interval, equal distances between numbers of trials, and a dotted line at each level."""
    figure = Figure(figsize=(4.2 * len(panels) + 1, 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (caption, curves, levels) in zip(axes, panels, strict=True):
        sizes = sorted({row[0] for rows in curves.values() for row in rows})
        of_panel = axis is axes[0]
        for k, (name, rows) in enumerate(curves.items()):
            n, value, low, high = np.array(sorted(rows), dtype=float).reshape(-1, 4).T
            place = np.array([sizes.index(int(size)) for size in n]) + 0.06 * (k - len(curves) / 2)
            colour, label = COLOURS[k % len(COLOURS)], name if of_panel else None
            axis.plot(place, value, "o-", color=colour, markersize=4, linewidth=1.6, label=label)
            axis.vlines(place, low, high, color=colour, linewidth=1, alpha=0.6)
        for k, (name, level) in enumerate(levels.items()):
            colour = COLOURS[(len(curves) + k) % len(COLOURS)]
            axis.axhline(level, color=colour, linewidth=1.3, linestyle=":", label=name if of_panel else None)
        axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axis.set_title(caption, fontsize=10)
        axis.set(xlabel="labelled trials of the new person")
        axis.tick_params(labelsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[:-1]:
        axis.axhline(chance, color="0.35", linewidth=1, linestyle="--")
    _chance_line(axes[-1], chance, "h")
    axes[0].set_ylabel(f"{ylabel}; lines: 95 % intervals")
    return finish(figure, axes[0], title, path, legend=True)


def draw_bars(
    rows: Sequence[tuple[str, float, float, float]], chance: float, title: str, path: Folder | None = None
) -> Figure:
    """For each (name, value, low, high) a bar across with its interval, the first on top; values are written beside.

    A chance of 0 is that of differences, whose bars may go to the left.
    """
    figure = Figure(figsize=(7, 0.42 * len(rows) + 1.3), layout="constrained")
    axis = figure.subplots()
    place = np.arange(len(rows), dtype=float)
    values = np.array([row[1:] for row in rows], dtype=float)
    near, far = np.nanmin(np.append(values, 0)), np.nanmax(np.append(values, chance))
    span = (far - near) or 1.0  # all are nothing: two pictures of one kind
    axis.barh(place, values[:, 0], height=0.62, color=COLOURS[4])
    axis.hlines(place, values[:, 1], values[:, 2], color="black", linewidth=1.3)
    for y, row in zip(place, values, strict=True):
        axis.text(np.nanmax(np.append(row, 0)) + 0.015 * span, y, f"{row[0]:.3g}", va="center", fontsize=9)
    axis.set_yticks(place, [row[0] for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(near - 0.04 * span * (near < 0), far + 0.12 * span)
    _chance_line(axis, chance, "v")
    return finish(figure, axis, title, path, legend=False)


def _chance_line(axis: mpl.axes.Axes, chance: float, direction: str, unit: str = "") -> None:
    """Dashed, its value written outside the axes, where no curve goes."""
    if direction == "h":
        axis.axhline(chance, color="0.35", linewidth=1, linestyle="--")
        axis.text(
            1.01, chance, f"chance\n{chance:.3g}{unit}", transform=axis.get_yaxis_transform(), va="center", fontsize=8
        )
    else:
        axis.axvline(chance, color="0.35", linewidth=1, linestyle="--")
        text = f"chance {chance:.3g}{unit}" if chance else "no difference"
        axis.text(chance, 1.01, text, transform=axis.get_xaxis_transform(), ha="center", va="bottom", fontsize=8)
