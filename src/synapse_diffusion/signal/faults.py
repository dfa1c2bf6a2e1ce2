"""Dropouts before filtering, bad channels after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.signal.fir import ReadBlock

SCAN_BLOCK: Final = 65536  # samples a read
N_PROBES: Final = 6  # channels looked at first: a dropout holds all channels still at once
MAX_STILL: Final = 0.1
NAN_CHANNEL: Final = 0.01  # a channel with more NaN than this share of its samples is bad as a whole
MIN_CHANNELS: Final = 16  # fewer are too far apart for a correlation to say anything
LOG_FLOOR: Final = 0.15  # spread of log deviations below which channels are simply alike
FLAT_RATIO: Final = 1e-3  # of the median channel's standard deviation


@dataclass(frozen=True)
class Scan:
    """What a look at the raw samples found: dropouts (start, stop) of all channels, and channels with NaN."""

    dropouts: tuple[tuple[int, int], ...]
    nan_share_C: NDArray[np.float64]


def scan(read: ReadBlock, n_samples: int, min_samples: int) -> Scan:
    """Stretches of at least `min_samples` in which every live channel stands still or is not a number.

    Where more than `MAX_STILL` of a recording stands still, that is its nature (counts, a test file) and only
    NaN make a dropout.
    """
    nan_C = np.zeros(read(0, 1).shape[1])
    still, missing = [np.zeros(1, bool)], []
    for start in range(0, n_samples, SCAN_BLOCK):
        x_TC = read(max(start - 1, 0), min(start + SCAN_BLOCK, n_samples))
        finite = bool(np.isfinite(x_TC.sum(dtype=np.float64)))
        still.append(_still(x_TC, finite=finite))
        nan_TC = np.isnan(x_TC[1 if start else 0 :]) if not finite else np.zeros((1, 1), bool)
        missing.append(nan_TC.all(1) if not finite else np.zeros(len(x_TC) - (start > 0), bool))
        nan_C += nan_TC.sum(0)
    step = np.concatenate(still)
    runs = _runs(step | np.append(step[1:], False), min_samples)  # a still step makes both its samples still
    if sum(stop - start for start, stop in runs) > MAX_STILL * n_samples:
        runs = _runs(np.concatenate(missing), min_samples)
    return Scan(tuple(runs), nan_C / n_samples)


def _runs(flag_T: NDArray[np.bool_], min_samples: int) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.r_[False, flag_T, False].astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= min_samples]


def _still(x_TC: NDArray[np.float32], *, finite: bool) -> NDArray[np.bool_]:
    """Per step from one sample to the next: did no channel move (of those that ever move in this block)?"""
    step = max(1, x_TC.shape[1] // N_PROBES)
    probe = x_TC[:, ::step]
    same = probe[1:] == probe[:-1]
    if not finite:
        same |= np.isnan(probe[1:])
    still = same.mean(1) >= 0.5
    if still.any():
        at = np.flatnonzero(still)
        now, before = x_TC[at + 1], x_TC[at]
        moved = (now != before) & ~np.isnan(now)
        still[at] = ~moved.any(1)
    return np.asarray(still)


def bridged(read: ReadBlock, n_samples: int, scan_result: Scan) -> ReadBlock:
    """`read` with dropouts replaced by straight lines and remaining NaN by zero.

    A step into and out of a dropout, filtered at 0.1 Hz, would ring for 33 s.
    """
    lines = []
    for start, stop in scan_result.dropouts:
        before = read(start - 1, start)[0] if start > 0 else None
        after = read(stop, stop + 1)[0] if stop < n_samples else None
        left = before if before is not None else after
        right = after if after is not None else before
        if left is None or right is None:
            continue
        lines.append((start, stop, np.nan_to_num(left), np.nan_to_num(right)))
    has_nan = bool(np.any(scan_result.nan_share_C > 0))
    if not lines and not has_nan:
        return read

    def mended(start: int, stop: int) -> NDArray[np.float32]:
        x_TC = np.array(read(start, stop))
        for a, b, left_C, right_C in lines:
            first, last = max(a, start), min(b, stop)
            if first < last:
                weight = ((np.arange(first, last) - a + 1) / (b - a + 1))[:, None].astype(np.float32)
                x_TC[first - start : last - start] = left_C * (1 - weight) + right_C * weight
        return np.nan_to_num(x_TC, copy=False) if has_nan else x_TC

    return mended


class ChannelStatistics:
    """Standard deviation and correlation of channels, gathered block by block (robust by the median block)."""

    def __init__(self, n_sensors: int) -> None:
        self._n = n_sensors
        self._deviations: list[NDArray[np.float64]] = []
        self._correlations: list[NDArray[np.float64]] = []

    def add(self, x_TC: NDArray[np.float32]) -> None:
        """One block of filtered signal."""
        centred = x_TC - x_TC.mean(0)
        covariance = (centred.T @ centred).astype(np.float64) / max(len(x_TC), 1)
        deviation = np.sqrt(np.diag(covariance))
        safe = np.where(deviation > 0, deviation, 1.0)
        correlation = np.abs(covariance / np.outer(safe, safe))
        np.fill_diagonal(correlation, 0.0)
        self._deviations.append(deviation)
        self._correlations.append(correlation.max(0))

    def find_bad(self, noisy_z: float, min_correlation: float) -> dict[int, str]:
        """Bad channels and why: flat, noisy (robust z of the log deviation) or correlated with no other."""
        deviation = np.median(self._deviations, axis=0)
        correlation = np.median(self._correlations, axis=0)
        typical = np.median(deviation[deviation > 0]) if np.any(deviation > 0) else 0.0
        found = {int(k): "flat" for k in np.flatnonzero(deviation <= FLAT_RATIO * typical)}
        live = np.array([k for k in range(self._n) if k not in found], dtype=int)
        if live.size < MIN_CHANNELS:
            return found
        log = np.log(deviation[live])
        related = np.median(correlation[live]) >= 2 * min_correlation  # else no channel speaks for another
        spread = 1.4826 * np.median(np.abs(log - np.median(log))) + LOG_FLOOR
        for k, z, best in zip(live, (log - np.median(log)) / spread, correlation[live], strict=True):
            if z > noisy_z:
                found[int(k)] = "noisy"
            elif related and best < min_correlation:
                found[int(k)] = "uncorrelated"
        return found


def blocks_of(n_samples: int, block: int) -> Iterator[tuple[int, int]]:
    """Start and stop of consecutive blocks."""
    for start in range(0, n_samples, block):
        yield start, min(start + block, n_samples)
