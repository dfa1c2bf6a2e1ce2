"""Epochs: windows of continuous signals, cut when asked for, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from synapse_diffusion.errors import SettingsError, StoreError
from synapse_diffusion.store.files import SignalStore, store_name
from synapse_diffusion.store.signals import columns_of, signals_of


@dataclass(frozen=True)
class Montage:
    """Sensors (D) that signals are brought to: weights of a recording's own (C), and positions in m."""

    channels: tuple[str, ...]
    position_D3: NDArray[np.float64]
    weight_DC: NDArray[np.float64]


class Epochs:
    """All trials of several recordings as windows of their continuous signals.

    `trials` is the recordings' trial tables end to end, with the columns `store` (index into `stores`), `start` (first
    sample of the window), `read_start` (of all that is read for it, baseline included) and `usable` (that stretch lies
    inside one piece of the recording and touches nothing bad; no trial of a copy is). Raises `StoreError` where rates
    differ or no channel is common to all, `SettingsError` for a window that ends before it begins.
    """

    def __init__(
        self,
        stores: Sequence[SignalStore],
        start_s: float,
        stop_s: float,
        baseline: tuple[float, float] | None = None,
        channels: Sequence[str] = (),
        device: torch.device | str = "cpu",
        montage: Montage | None = None,
    ) -> None:
        if not stores:
            raise StoreError("no store is given; `find_stores` finds a data set's")
        if stop_s <= start_s:
            raise SettingsError(f"a window from {start_s:g} to {stop_s:g} s ends before it begins")
        rates = sorted({store.sfreq for store in stores})
        if len(rates) != 1:
            raise StoreError(f"{stores[0].folder.parents[2]}: stores of different rates {rates} Hz; convert them again")
        self.stores, self.sfreq = tuple(stores), rates[0]
        self.channels = _common_channels(stores, channels)
        self.position_C3 = positions_of(stores, self.channels)
        """Positions in m, the mean over recordings, NaN where none knows."""
        self.n_times = max(1, round((stop_s - start_s) * self.sfreq))
        self.times = start_s + np.arange(self.n_times) / self.sfreq
        offset = round(start_s * self.sfreq)
        self._baseline = None if baseline is None else _interval(baseline, self.sfreq)
        # what is read: the window and, where asked for, the baseline before or after it
        low, high = offset, offset + self.n_times
        if self._baseline is not None:
            low, high = min(low, self._baseline[0]), max(high, self._baseline[1])
        self._reach = (offset - low, high - offset)
        self.n_read = sum(self._reach)
        """Samples that an epoch's reading spans, baseline included."""
        self.copies = copies_among(stores)
        """Stores whose signal is that of an earlier one: index of the copy, and of the first."""
        tables = []
        for k, store in enumerate(stores):
            start = store.trials["onset_sample"].to_numpy() + offset
            usable, first, last = _usable(store, start - self._reach[0], start + self._reach[1])
            usable &= k not in self.copies
            tables.append(
                store.trials.assign(
                    store=k, start=start, read_start=start - self._reach[0], usable=usable, first=first, last=last
                )
            )
        self.trials: pd.DataFrame = pd.concat(tables, ignore_index=True)
        self._start = self.trials["start"].to_numpy()
        self._limits = self.trials[["first", "last"]].to_numpy()
        self._store = self.trials["store"].to_numpy()
        self.device = torch.device(device)
        self._signals = signals_of(stores, self.channels, self.device)
        self._weight_CD: torch.Tensor | None = None
        if montage is not None:
            self.channels, self.position_C3 = montage.channels, montage.position_D3
            self._weight_CD = torch.from_numpy(montage.weight_DC.T.astype(np.float32)).to(self.device)

    def copies_said(self) -> list[str]:
        """One line for each store whose trials are left out as copies."""
        return [
            f"{store_name(self.stores[k].folder)}: the same signal as {store_name(self.stores[first].folder)}, bit for "
            f"bit; its {len(self.stores[k].trials)} trials are left out, since they would be on two sides of a split"
            for k, first in self.copies.items()
        ]

    def read(self, rows: NDArray[np.int64], shift: NDArray[np.int64] | None = None) -> torch.Tensor:
        """Epochs (B, C, T) float32 of these rows of `trials`, in the recording's unit, baseline taken off.

        `shift` (B,) in samples moves the windows, never past the recording's pieces.
        """
        start = self._start[rows]
        if shift is not None:
            lowest, highest = self._limits[rows, 0] + self._reach[0], self._limits[rows, 1] - self._reach[1]
            start = np.clip(start + shift, lowest, highest)
        which = self._store[rows]
        x_BTC = self._signals.cut(which, start, self.n_times)
        if self._baseline is not None:
            a, b = self._baseline
            level = self._signals.cut(which, start - round(float(self.times[0]) * self.sfreq) + a, b - a)
            x_BTC = x_BTC - level.mean(1, keepdim=True)
        if x_BTC.device != self.device:  # a GPU without room for the signals; pinned, the copy waits for nothing
            x_BTC = x_BTC.pin_memory().to(self.device, non_blocking=True)
        return (x_BTC if self._weight_CD is None else x_BTC @ self._weight_CD).transpose(1, 2)


def copies_among(stores: Sequence[SignalStore]) -> dict[int, int]:
    """Index of each store whose signal an earlier one holds, and of that one.

    Published data sets do hold recordings twice, under another session's name.
    """
    first_with = {store.signal_digest: k for k, store in reversed(list(enumerate(stores)))}
    first = [first_with[store.signal_digest] for store in stores]
    return {k: at for k, at in enumerate(first) if at != k}


def _common_channels(stores: Sequence[SignalStore], wanted: Sequence[str]) -> tuple[str, ...]:
    shared = set.intersection(*(set(store.sensors.names) for store in stores))
    for name in wanted:
        if name not in shared:
            lacking = next(store for store in stores if name not in store.sensors.names)
            raise StoreError(
                f"{lacking.folder}: no channel {name!r} (view.channels); it has {', '.join(lacking.sensors.names)}"
            )
    if not shared:
        raise StoreError(f"{stores[0].folder.parents[2]}: the recordings have no channel in common")
    return tuple(wanted) or tuple(name for name in stores[0].sensors.names if name in shared)


def positions_of(stores: Sequence[SignalStore], channels: tuple[str, ...]) -> NDArray[np.float64]:
    """Positions (C, 3) in m: the mean over recordings, NaN where none knows."""
    every_SC3 = np.stack([store.sensors.position_C3[columns_of(store, channels) or slice(None)] for store in stores])
    known_SC1 = ~np.isnan(every_SC3).any(2, keepdims=True)
    total_C3 = np.where(known_SC1, every_SC3, 0.0).sum(0)
    return np.where(known_SC1.any(0), total_C3 / np.maximum(known_SC1.sum(0), 1), np.nan)


def _interval(baseline: tuple[float, float], sfreq: float) -> tuple[int, int]:
    first = round(baseline[0] * sfreq)
    return first, max(first + 1, round(baseline[1] * sfreq))


def _usable(
    store: SignalStore, first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Is [first, last) inside one piece and free of bad stretches; and the piece's own limits."""
    cuts = np.array(sorted({0, len(store.signal_TC), *(s.start for s in store.segments if s.kind == "boundary")}))
    onset = store.trials["onset_sample"].to_numpy()
    piece = np.clip(np.searchsorted(cuts, onset, side="right") - 1, 0, len(cuts) - 2)
    usable = (first >= cuts[piece]) & (last <= cuts[piece + 1])
    for segment in store.segments:
        if segment.kind != "boundary":
            usable &= (last <= segment.start) | (first >= segment.stop)
    return usable, cuts[piece], cuts[piece + 1]
