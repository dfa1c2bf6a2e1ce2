"""Drawing: each function returns its figure, and keeps it as a PNG where `path` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure, FigureBase
from numpy.typing import NDArray
from scipy.signal import find_peaks

from synapse_diffusion.store.files import whole

SHOWN_UNITS: Final = {"V": ("µV", 1e6), "T": ("fT", 1e15), "T/m": ("fT/cm", 1e13)}
MIN_TOPOGRAPHY: Final = 8  # sensors; fewer leave the map to the interpolation
PEAKS: Final = 3
PEAK_DISTANCE_S: Final = 0.05  # between two that are shown: P1 and N170 lie 60 ms apart
PEAK_PROMINENCE: Final = 0.1  # of the global field power's range; what is lower is noise
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")  # Okabe and Ito
PLANAR_PAIR_M: Final = 1e-3  # sensors closer than this are two directions of one place


@dataclass(frozen=True)
class Evoked:
    """A mean response (C, T) in `unit` (V, T, T/m) of sensors of one kind, bad ones left out."""

    caption: str
    unit: str
    times_s: NDArray[np.float64]
    mean_CT: NDArray[np.float64]
    position_C3: NDArray[np.float64]
    """In m, head coordinates; NaN where unknown."""

    @property
    def n_known(self) -> int:
        """Sensors whose position is known."""
        return int(np.isfinite(self.position_C3).all(1).sum())


@dataclass(frozen=True)
class Axis:
    """One setting of a search: each trial's place on it, from 0 to 1, and what is written at some places."""

    name: str
    place_N: NDArray[np.float64]
    marks: Mapping[float, str]


def draw_search(axes: Sequence[Axis], losses: Sequence[tuple[float, bool]], path: Path | None = None) -> Figure:
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
    return _save(figure, path)


def draw_confusions(
    counts: Sequence[tuple[str, NDArray[np.int64]]], classes: Sequence[str], title: str, path: Path | None = None
) -> Figure:
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
    return _save(figure, path)


def _matrix(
    axes: mpl.axes.Axes, values: NDArray[np.int64] | NDArray[np.float64], classes: Sequence[str], form: str,
    title: str, top: float | None = None,
) -> mpl.image.AxesImage:  # fmt: skip
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top)
    limit = (top if top is not None else float(values.max())) * 0.6
    size = 10 if len(classes) <= 6 else 7
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


def draw_curve(curve: pd.DataFrame, path: Path | None = None) -> Figure:
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
    accuracy.set(xlabel="step", ylabel="score, validation")
    return _save(figure, path)


def draw_evoked(evoked: Sequence[Evoked], title: str, path: Path | None = None) -> Figure:
    """A row each: all sensors over time with the global field power, the sensors' places, maps at its largest peaks."""
    figure = Figure(figsize=(12, 2.7 * len(evoked) + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=11)
    peaks = [_peaks(one.mean_CT.std(0), one.times_s) for one in evoked]
    mapped = [at if one.n_known >= MIN_TOPOGRAPHY else [] for one, at in zip(evoked, peaks, strict=True)]
    n_maps = max(len(at) for at in mapped)
    axes = figure.subplots(len(evoked), 2 + n_maps, squeeze=False, width_ratios=[4.2, *[1.3] * (1 + n_maps)])
    for row, one, at in zip(axes, evoked, peaks, strict=True):
        unit, scale = SHOWN_UNITS.get(one.unit, (one.unit, 1.0))
        mean_CT = one.mean_CT * scale
        colours = _draw_places(row[1], one)
        _draw_butterfly(row[0], one.times_s, mean_CT, at, colours)
        row[0].set_title(one.caption, fontsize=9, loc="left")
        row[0].set_ylabel(unit, fontsize=9)
        for axis in row[2:]:
            axis.set_axis_off()
        if one.n_known >= MIN_TOPOGRAPHY:
            _draw_maps(figure, row[2:], one, mean_CT, at, unit)
    for axis in axes[:-1, 0]:
        axis.set_xlabel("")
    return _save(figure, path)


def _peaks(power_T: NDArray[np.float64], times_s: NDArray[np.float64]) -> list[int]:
    """Samples of the largest peaks after onset, in time order; the largest value where there is no peak."""
    after = np.where(times_s > 0, power_T, power_T.min()) if (times_s > 0).any() else power_T
    step = float(times_s[1] - times_s[0]) if len(times_s) > 1 else 1.0
    clear = PEAK_PROMINENCE * float(np.ptp(after))
    found, _ = find_peaks(after, distance=max(1, round(PEAK_DISTANCE_S / step)), prominence=clear)
    return sorted(found[np.argsort(-after[found])][:PEAKS].tolist()) or [int(after.argmax())]


def _draw_places(axis: mpl.axes.Axes, one: Evoked) -> list[str]:
    """The sensors seen from above, coloured from back to front; each sensor's colour (grey where unknown)."""
    position_C3 = one.position_C3
    known = np.isfinite(position_C3).all(1)
    axis.set_axis_off()
    few = "" if one.n_known >= MIN_TOPOGRAPHY else "\ntoo few for a topography"
    colours = ["0.6"] * len(position_C3)
    if not known.any():
        axis.set_title("no sensor's position is\nknown: no topography", fontsize=8, y=0.5)
        return colours
    y = position_C3[known, 1]
    share = (y - y.min()) / max(float(np.ptp(y)), 1e-9)
    for k, value in zip(np.flatnonzero(known), share, strict=True):
        colours[k] = mpl.colors.to_hex(mpl.colormaps["viridis"](0.92 * value))  # the last yellow is pale on white
    x, y = position_C3[known, 0], position_C3[known, 1]
    axis.scatter(x, y, c=[colours[k] for k in np.flatnonzero(known)], s=14)
    axis.set_aspect("equal")
    axis.margins(0.15)
    axis.set_title(f"sensors, nose up{few}", fontsize=8)
    return colours


def _draw_butterfly(
    axis: mpl.axes.Axes, times_s: NDArray[np.float64], mean_CT: NDArray[np.float64], at: Sequence[int],
    colours: Sequence[str],
) -> None:  # fmt: skip
    ms, power_T = times_s * 1000, mean_CT.std(0)
    for line_T, colour in zip(mean_CT, colours, strict=True):
        axis.plot(ms, line_T, color=colour, linewidth=0.8)
    axis.plot(ms, power_T, color="black", linewidth=1.8, label="global field power")
    for k in at:
        axis.axvline(ms[k], color="0.4", linewidth=0.8, linestyle=":")
    if ms[0] < 0 < ms[-1]:
        axis.axvline(0, color="0.4", linewidth=0.8)
    low, high = float(min(mean_CT.min(), 0.0)), float(max(mean_CT.max(), power_T.max()))
    axis.set_ylim(low - 0.05 * (high - low), high + 0.25 * (high - low))  # room for the legend
    axis.set_xlim(ms[0], ms[-1])
    axis.legend(facecolor="white", edgecolor="none", framealpha=1, fontsize=8, loc="upper right")
    axis.set_xlabel("ms after onset", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_maps(
    figure: Figure, axes: Sequence[mpl.axes.Axes], one: Evoked, mean_CT: NDArray[np.float64], at: Sequence[int],
    unit: str,
) -> None:  # fmt: skip
    """Topographies at samples `at` on one colour scale; planar gradiometers of one place as their magnitude."""
    known = np.isfinite(one.position_C3).all(1)
    position, values = _places(one.position_C3[known], mean_CT[known][:, list(at)])
    magnitude = len(position) < one.n_known
    largest = float(np.abs(values).max()) or 1.0
    limits, label = (0 if magnitude else -largest, largest), f"{unit}, magnitude" if magnitude else unit
    titles = [f"{one.times_s[k] * 1000:.0f} ms" for k in at]
    _topographies(figure, axes, position, values, titles, limits, "viridis" if magnitude else "RdBu_r", label)


def _topographies(
    figure: FigureBase, axes: Sequence[mpl.axes.Axes], position_C3: NDArray[np.float64], values_CK: NDArray[np.float64],
    titles: Sequence[str], limits: tuple[float, float], colours: str, label: str,
) -> None:  # fmt: skip
    """One map a column of values, on one colour scale."""
    import mne  # takes a second, which the other drawings do not need

    info = mne.create_info([str(k) for k in range(len(position_C3))], 1.0, "eeg", verbose="error")
    montage = mne.channels.make_dig_montage(dict(zip(info["ch_names"], position_C3, strict=True)), coord_frame="head")
    info.set_montage(montage)
    for axis, value_C, title in zip(axes, values_CK.T, titles, strict=False):
        image, _ = mne.viz.plot_topomap(
            value_C, info, axes=axis, show=False, contours=np.linspace(*limits, 7)[1:-1], extrapolate="local",
            sphere=_sphere(position_C3), cmap=colours, vlim=limits,
        )  # fmt: skip
        axis.set_title(title, fontsize=9)
    bar = figure.colorbar(image, ax=list(axes), shrink=0.7, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, fontsize=8)


def draw_contributions(
    times_s: NDArray[np.float64], total_CT: NDArray[np.float64], windows_s: Sequence[tuple[float, float]],
    share_CW: NDArray[np.float64], position_C3: NDArray[np.float64], title: str,
    path: Path | None = None,
) -> Figure:  # fmt: skip
    """What each latency contributes to the fall of the loss, all sensors together, and a map of the sensors for each
    window; a matrix where fewer than 8 positions are known."""
    n = len(windows_s)
    figure = Figure(figsize=(max(7.5, 1.25 * n + 1.0), 5.2), layout="constrained")
    figure.suptitle(f"{title}\ncontributions to the fall of the loss by {total_CT.sum():.3f} nats", fontsize=11)
    grid = figure.add_gridspec(2, 1, height_ratios=[1.2, 1.0])
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axis = above.subplots()
    ms = 1000 * times_s
    axis.fill_between(ms, total_CT.sum(0), color=COLOURS[0])
    axis.axhline(0.0, color="0.35", linewidth=1)
    if ms[0] < 0 < ms[-1]:
        axis.axvline(0, color="0.4", linewidth=0.8)
    axis.set(xlim=(ms[0], ms[-1]), xlabel="ms after onset", ylabel="nats a sample")
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    largest = max(float(np.abs(share_CW).max()), 1e-12)
    limits, label = (-largest, largest), "nats, by sensor"
    known = np.isfinite(position_C3).all(1)
    if int(known.sum()) >= MIN_TOPOGRAPHY:
        titles = [f"{1000 * start:.0f}-{1000 * stop:.0f} ms" for start, stop in windows_s]
        axes = below.subplots(1, n, squeeze=False)[0]
        place_P3, of_place_C = np.unique(np.round(position_C3[known], 4), axis=0, return_inverse=True)
        value_PW = np.zeros((len(place_P3), n))
        np.add.at(value_PW, of_place_C.reshape(-1), share_CW[known])  # sensors of one place together
        _topographies(below, axes, place_P3, value_PW, titles, limits, "RdBu_r", label)
    else:
        axis = below.subplots()
        edges = (1000 * windows_s[0][0], 1000 * windows_s[-1][1])
        image = axis.imshow(
            share_CW, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto", extent=(*edges, len(share_CW), 0)
        )
        axis.set(xlabel="ms after onset", ylabel="sensor")
        below.colorbar(image, ax=axis).set_label(label, fontsize=8)
    return _save(figure, path)


def _places(
    position_C3: NDArray[np.float64], values_CK: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values by place: sensors that share one (the two gradiometers of a triplet) as the length of their vector."""
    _, first, place = np.unique(np.round(position_C3 / PLANAR_PAIR_M), axis=0, return_index=True, return_inverse=True)
    if len(first) == len(position_C3):
        return position_C3, values_CK
    square = np.zeros((len(first), values_CK.shape[1]))
    np.add.at(square, place.reshape(-1), values_CK**2)
    return position_C3[first], np.sqrt(square)


def _sphere(position_C3: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Centre and radius in m of the sphere nearest to all sensors (linear least squares)."""
    system = np.column_stack([2 * position_C3, np.ones(len(position_C3))])
    x, y, z, rest = np.linalg.lstsq(system, (position_C3**2).sum(1))[0]
    return float(x), float(y), float(z), float(np.sqrt(rest + x * x + y * y + z * z))


def draw_time_course(
    times_s: NDArray[np.float64],
    curves: Sequence[tuple[str, NDArray[np.float64], NDArray[np.bool_] | None]],
    chance: float,
    ylabel: str,
    title: str,
    path: Path | None = None,
) -> Figure:
    """For each (name, values (T,), significant (T,) or None) a line; a bar of its colour where it is significant."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axis = figure.subplots()
    ms = times_s * 1000
    for k, (name, value_T, _) in enumerate(curves):
        axis.plot(ms, value_T, color=COLOURS[k % len(COLOURS)], linewidth=1.6, label=name)
    marked = [(k, at_T) for k, (_, _, at_T) in enumerate(curves) if at_T is not None]
    bottom, top = axis.get_ylim()
    bottom, top = min(bottom, chance), max(top, chance)
    row = 0.04 * (top - bottom)
    step = float(ms[1] - ms[0]) if len(ms) > 1 else 1.0
    for place, (k, at_T) in enumerate(marked):
        y = bottom - (place + 0.5) * row
        axis.broken_barh(
            [(start - step / 2, step) for start in ms[at_T]],
            (y - 0.3 * row, 0.6 * row),
            color=COLOURS[k % len(COLOURS)],
        )
    axis.set_ylim(bottom - (len(marked) + 0.3) * row, top)
    _chance_line(axis, chance, "h")
    if ms[0] < 0 < ms[-1]:
        axis.axvline(0, color="0.4", linewidth=0.8)
    axis.set_xlim(ms[0] - step / 2, ms[-1] + step / 2)
    below = "; bars: significant" if marked else ""
    axis.set(xlabel=f"ms after onset{below}", ylabel=ylabel)
    return _finish(figure, axis, title, path, legend=True)


def draw_generalisation(
    times_s: NDArray[np.float64], value_TT: NDArray[np.float64], chance: float, title: str, path: Path | None = None
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
    return _finish(figure, axis, title, path, legend=False)


def draw_retrieval(
    curves: Mapping[str, Sequence[tuple[int, float, float, float]]], chance: float, title: str, path: Path | None = None
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
    return _finish(figure, axis, title, path, legend=True)


def draw_learning(
    panels: Sequence[tuple[str, Mapping[str, Sequence[tuple[int, float, float, float]]], Mapping[str, float]]],
    chance: float,
    ylabel: str,
    title: str,
    path: Path | None = None,
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
    return _finish(figure, axes[0], title, path, legend=True)


def draw_bars(
    rows: Sequence[tuple[str, float, float, float]], chance: float, title: str, path: Path | None = None
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
    return _finish(figure, axis, title, path, legend=False)


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


def _finish(figure: Figure, axis: mpl.axes.Axes, title: str, path: Path | None, *, legend: bool) -> Figure:
    figure.suptitle(title, fontsize=11)
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    if legend:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return _save(figure, path)


def _save(figure: Figure, path: Path | None) -> Figure:
    if path is not None:
        with whole(path) as part:
            figure.savefig(part, format="png", dpi=130)
    return figure


def draw_pictures(columns: Mapping[str, NDArray[np.uint8]], path: Path | None = None) -> Figure:
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
    return _save(figure, path)
