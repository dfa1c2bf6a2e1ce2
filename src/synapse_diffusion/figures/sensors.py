"""Responses and contributions of sensors: over time, and as maps of the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure, FigureBase
from numpy.typing import NDArray
from scipy.signal import find_peaks

from synapse_diffusion.figures.saving import COLOURS, save
from synapse_diffusion.types import Folder

SHOWN_UNITS: Final = {"V": ("µV", 1e6), "T": ("fT", 1e15), "T/m": ("fT/cm", 1e13)}
MIN_TOPOGRAPHY: Final = 8  # sensors; fewer leave the map to the interpolation
PEAKS: Final = 3
PEAK_DISTANCE_S: Final = 0.05  # between two that are shown: P1 and N170 lie 60 ms apart
PEAK_PROMINENCE: Final = 0.1  # of the global field power's range; what is lower is noise
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


def draw_evoked(evoked: Sequence[Evoked], title: str, path: Folder | None = None) -> Figure:
    """A row each: all sensors over time with the global field power, the sensors' places, maps at its largest peaks."""
    figure = Figure(figsize=(10.8, 2.7 * len(evoked) + 0.5), layout="constrained")
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
    return save(figure, path)


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
    path: Folder | None = None,
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
    return save(figure, path)


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
