"""Continuous signals of several recordings, to cut windows from: memory-mapped, or end to end in a GPU's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.store.files import SignalStore

SHARE: Final = 0.6  # of a GPU's free memory that signals may take; models and batches need the rest


class Signals(Protocol):
    """Where windows come from."""

    def cut(self, store_B: NDArray[np.int64], first_B: NDArray[np.int64], n_times: int) -> torch.Tensor:
        """Windows (B, T, C) float32 of `n_times` samples, each from its store and first sample."""


class Mapped:
    """Read from disk when asked for (and kept by the system's cache); windows are on the CPU."""

    def __init__(self, stores: Sequence[SignalStore], channels: tuple[str, ...]) -> None:
        self._n_channels = len(channels)
        self._signals = [_mapped(store) for store in stores]
        self._columns = [columns_of(store, channels) for store in stores]

    def cut(self, store_B: NDArray[np.int64], first_B: NDArray[np.int64], n_times: int) -> torch.Tensor:
        """Windows (B, T, C) float32."""
        out_BTC = torch.empty(len(store_B), n_times, self._n_channels)
        for k in np.unique(store_B):
            at, columns = np.flatnonzero(store_B == k), self._columns[int(k)]
            index = (first_B[at, None] + np.arange(n_times)).reshape(-1)
            x = self._signals[int(k)].index_select(0, torch.from_numpy(index))
            if columns is not None:
                x = x[:, columns]
            out_BTC[torch.from_numpy(at)] = x.reshape(len(at), n_times, -1)
        return out_BTC


class Joined:
    """All of them end to end on a device, so that a batch is one reading, however many recordings it is from."""

    def __init__(self, stores: Sequence[SignalStore], channels: tuple[str, ...], device: torch.device) -> None:
        lengths = [len(store.signal_TC) for store in stores]
        self._begin = np.concatenate([[0], np.cumsum(lengths)])
        self._signal_TC = torch.empty(int(self._begin[-1]), len(channels), device=device)
        for store, begin, length in zip(stores, self._begin[:-1], lengths, strict=True):
            columns, signal_TC = columns_of(store, channels), _mapped(store).to(device)
            self._signal_TC[begin : begin + length] = signal_TC if columns is None else signal_TC[:, columns]

    def cut(self, store_B: NDArray[np.int64], first_B: NDArray[np.int64], n_times: int) -> torch.Tensor:
        """Windows (B, T, C) float32, on the device."""
        device = self._signal_TC.device
        first = torch.from_numpy(self._begin[store_B] + first_B).to(device)
        index = (first[:, None] + torch.arange(n_times, device=device)).reshape(-1)
        return self._signal_TC.index_select(0, index).reshape(len(store_B), n_times, -1)


def signals_of(stores: Sequence[SignalStore], channels: tuple[str, ...], device: torch.device) -> Signals:
    """On a GPU's memory where it has room, else memory-mapped: batches are then copied as they are asked for."""
    if device.type == "cpu" or (device.type == "cuda" and not fits(stores, channels, device)):
        return Mapped(stores, channels)
    return Joined(stores, channels, device)


def fits(stores: Sequence[SignalStore], channels: tuple[str, ...], device: torch.device) -> bool:
    """Do these signals leave a GPU's free memory enough for training?"""
    needed = 4 * len(channels) * sum(len(store.signal_TC) for store in stores)
    return needed <= SHARE * torch.cuda.mem_get_info(device)[0]


def columns_of(store: SignalStore, channels: tuple[str, ...]) -> list[int] | None:
    """Columns of the channels; None where they are all columns in order."""
    return None if store.sensors.names == channels else [store.sensors.names.index(name) for name in channels]


def _mapped(store: SignalStore) -> torch.Tensor:
    """The memory-mapped signal itself, never written to."""
    return torch.from_numpy(np.load(store.folder / "signal.npy", mmap_mode="c", allow_pickle=False))
