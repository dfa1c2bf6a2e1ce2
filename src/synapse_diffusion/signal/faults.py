"""Dropouts before filtering, bad channels after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.signal.fir import ReadBlock

SCAN_BLOCK: Final = 65536  # samples a read
N_PROBES: Final = 10  # channels looked at first: a dropout holds all channels still at once
MAX_STILL: Final = 0.1
STILL: Final = 0.15  # of the usual step, mean over channels: electronics add some noise, a sensor may live on
STEP_SAMPLES: Final = 2000
N_PLACES: Final = 5
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
    """Stretches of at least `min_samples` in which the live channels stand still together, or are not numbers.

    Still: their steps from sample to sample are small beside what they usually are, so that what electronics add to a
    lost signal does not hide it. Where more than `MAX_STILL` of a recording stands still, that is its nature
    (counts, a test file) and only NaN make a dropout.
    """
    usual_C = _usual_step(read, n_samples)
    nan_C = np.zeros(len(usual_C))
    still, missing = [np.zeros(1, bool)], []
    for start in range(0, n_samples, SCAN_BLOCK):
        x_TC = read(max(start - 1, 0), min(start + SCAN_BLOCK, n_samples))
        finite = bool(np.isfinite(x_TC.sum(dtype=np.float64)))
        still.append(_still(x_TC, usual_C))
        nan_TC = np.isnan(x_TC[1 if start else 0 :]) if not finite else np.zeros((1, 1), bool)
        missing.append(nan_TC.all(1) if not finite else np.zeros(len(x_TC) - (start > 0), bool))
        nan_C += nan_TC.sum(0)
    step = np.concatenate(still)
    runs = _runs(step | np.append(step[1:], False), min_samples)  # a still step makes both its samples still
    if sum(stop - start for start, stop in runs) > MAX_STILL * n_samples:
        runs = _runs(np.concatenate(missing), min_samples)
    return Scan(tuple(runs), nan_C / n_samples)


def _usual_step(read: ReadBlock, n_samples: int) -> NDArray[np.float32]:
    """Each channel's median step from sample to sample, (C,), from a few places of the recording."""
    n = min(STEP_SAMPLES, n_samples)
    places = [round(k) for k in np.linspace(0, n_samples - n, N_PLACES)]
    with np.errstate(invalid="ignore"):
        steps = [np.abs(np.diff(read(start, start + n), axis=0)) for start in places]
        return np.asarray(np.median(np.nan_to_num(np.concatenate(steps)), axis=0), dtype=np.float32)


def _runs(flag_T: NDArray[np.bool_], min_samples: int) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.r_[False, flag_T, False].astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= min_samples]


def _still(x_TC: NDArray[np.float32], usual_C: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Per step from one sample to the next: are the live channels' steps tiny beside what they usually are?"""
    live = np.flatnonzero(usual_C > 0) if np.any(usual_C > 0) else np.arange(len(usual_C))
    probes = live[:: max(1, len(live) // N_PROBES)]
    still = _movement(x_TC[:, probes], usual_C[probes]) < 2 * STILL
    if still.any():
        at = np.flatnonzero(still)
        pair = np.stack([x_TC[at][:, live], x_TC[at + 1][:, live]])
        still[at] = _movement(pair, usual_C[live])[0] < STILL
    return np.asarray(still)


def _movement(x_TC: NDArray[np.float32], usual_C: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over channels (last axis) of each step relative to the usual one, at most 1; back from NaN is 1."""
    step_TC = np.abs(np.diff(x_TC, axis=0))
    with np.errstate(invalid="ignore"):
        relative = np.minimum(step_TC / usual_C, 1.0) if np.all(usual_C > 0) else (step_TC > 0).astype(np.float32)
    if np.isnan(relative.sum()):
        back = np.isnan(x_TC[:-1]) & ~np.isnan(x_TC[1:])
        relative = np.where(back, 1.0, np.nan_to_num(relative))
    return np.asarray(relative.mean(-1))


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
