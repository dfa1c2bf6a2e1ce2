"""Band-pass and resample a long recording in blocks, with the numbers of the whole-array computation.

The work is that of `mne.filter.filter_data` followed by `scipy.signal.resample_poly`: a zero-phase
FIR of up to 33 s, then polyphase resampling. Both are linear, so they are regrouped:

* the *short* part (low-pass and the resampler's own anti-alias filter) runs at the input rate as one
  banded matrix product per block, which computes only the samples that are kept;
* the *long* part (high-pass, notch) runs at the output rate by overlap-save FFT (Oppenheim & Schafer,
  Discrete-Time Signal Processing, section 8.7.3): `y = x - slow * x`, where `slow` holds no energy near
  the output's Nyquist frequency and so may be sampled there.

Only the first and last few output samples feel the resampler's own padding of the filtered signal;
those are computed the plain way from the recording's two ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy import signal as scipy_signal

ReadBlock = Callable[[int, int], NDArray[np.float32]]
"""`read(start, stop)` -> (T, C) float32 samples of the recording, 0 <= start <= stop <= n_samples."""

BLOCK: Final = 16384  # output samples a block...
BLOCK_BYTES: Final = 20e6  # ... or fewer, so that many channels at a high rate stay under 50 MB
RESAMPLER_HALF: Final = 10  # zero crossings on each side: scipy.signal.resample_poly's own design
EDGE_ROWS: Final = 32  # outputs a product: 32 x 33 s of taps at 1200 Hz are 10 MB
RESAMPLER_WINDOW: Final = ("kaiser", 5.0)  # likewise


@dataclass(frozen=True)
class FirPlan:
    """A zero-phase FIR and a rational resampling, split for block-wise work.

    `full` (odd length, input rate) is the filter as a whole, `short` (odd length, input rate) its part
    without the high-pass; the remainder `short - full` must be slow: nothing near the output's Nyquist
    frequency. `notch` (odd length, output rate) is applied after resampling. `up / down` is the ratio of
    output to input rate.
    """

    full: NDArray[np.float64]
    short: NDArray[np.float64]
    up: int
    down: int
    notch: NDArray[np.float64] | None = None

    def n_out(self, n_samples: int) -> int:
        """Output samples of a recording of `n_samples`."""
        return -(-n_samples * self.up // self.down)

    @cached_property
    def anti_alias(self) -> NDArray[np.float64]:
        """The resampler's taps at `up` times the input rate, gain `up` (`resample_poly`'s design)."""
        if self.up == self.down:
            return np.ones(1)
        rate = max(self.up, self.down)
        taps = scipy_signal.firwin(2 * RESAMPLER_HALF * rate + 1, 1.0 / rate, window=RESAMPLER_WINDOW)
        return np.asarray(taps * self.up)

    @cached_property
    def banded(self) -> tuple[NDArray[np.float32], int, int]:
        """Matrix (L, S) from S input samples to L outputs, its lead before the block, input step of a block."""
        stuffed = np.zeros((len(self.short) - 1) * self.up + 1)
        stuffed[:: self.up] = self.short
        taps = np.convolve(stuffed, self.anti_alias)
        half = len(taps) // 2
        n_rows = self.up * max(1, round(64 / self.up))
        lead = half // self.up
        span = lead + ((n_rows - 1) * self.down + half) // self.up + 1
        index = np.arange(n_rows)[:, None] * self.down - (np.arange(span)[None] - lead) * self.up + half
        inside = (index >= 0) & (index < len(taps))
        matrix = np.where(inside, taps[np.clip(index, 0, len(taps) - 1)], 0.0)
        return matrix.astype(np.float32), lead, n_rows * self.down // self.up

    @cached_property
    def slow(self) -> NDArray[np.float64] | None:
        """What the long stage takes away, as taps at the output rate (odd length); None for nothing."""
        if len(self.full) == len(self.short) and np.array_equal(self.full, self.short):
            removed = np.zeros(1)
        else:
            half_in = len(self.full) // 2
            rest = -self.full
            rest[half_in - len(self.short) // 2 : half_in + len(self.short) // 2 + 1] += self.short
            half = half_in * self.up // self.down
            at = np.arange(-half, half + 1) * (self.down / self.up)
            removed = np.interp(at, np.arange(-half_in, half_in + 1), rest)
            removed *= rest.sum() / removed.sum()  # the same gain at 0 Hz, where the drift is
        if self.notch is not None:
            kept = -removed
            kept[len(kept) // 2] += 1.0
            removed = -np.convolve(kept, self.notch)
            removed[len(removed) // 2] += 1.0
        return removed if np.any(removed) else None

    @property
    def n_edge(self) -> int:
        """Outputs at each end that feel the resampler's padding."""
        return 0 if self.up == self.down else RESAMPLER_HALF * max(self.up, self.down) // self.down + 2


def filter_resample(read: ReadBlock, n_samples: int, plan: FirPlan) -> Iterator[NDArray[np.float32]]:
    """Yield the filtered, resampled recording block after block, (T_block, C) float32.

    The recording's ends are padded by odd reflection for the filter (MNE's `reflect_limited`) and by even
    reflection for the resampler. The mean of the first block is taken off before float32 arithmetic and
    its filtered value (0 under a high-pass) put back, so that large electrode offsets cost no precision.
    """
    padded = _Padded(read, n_samples)
    n_out = plan.n_out(n_samples)
    offset_out = (padded.offset_C * float(plan.full.sum())).astype(np.float32)
    head, tail = _edge(padded, plan, at_end=False), _edge(padded, plan, at_end=True)
    n_head, n_tail = min(plan.n_edge, n_out), min(plan.n_edge, n_out)
    start = 0
    for block_TC in _long_stage(padded, plan, n_out):
        stop = start + len(block_TC)
        if start < n_head:
            block_TC[: n_head - start] = head[start:n_head]
        if stop > n_out - n_tail:
            first = max(n_out - n_tail, start)
            block_TC[first - start :] = tail[n_tail - (n_out - first) : n_tail - (n_out - stop) or None]
        yield np.add(block_TC, offset_out, out=block_TC)
        start = stop


def _long_stage(padded: _Padded, plan: FirPlan, n_out: int) -> Iterator[NDArray[np.float32]]:
    """The short stage's output less its slow part, by overlap-save; the next block is made meanwhile."""
    slow = plan.slow
    half = 0 if slow is None else len(slow) // 2
    bytes_out = 4 * len(padded.offset_C) * plan.down / plan.up  # of input that an output sample stands for
    block = max(min(BLOCK, int(BLOCK_BYTES / bytes_out)), 2 * half)
    n_fft = fft.next_fast_len(block + 2 * half, real=True)
    spectrum = None if slow is None else fft.rfft(slow.astype(np.float32), n_fft).astype(np.complex64)
    spans = [(start, min(start + block, n_out)) for start in range(0, n_out, block)]
    # two threads, as each stage takes about half the time; both release the interpreter
    with ThreadPoolExecutor(1) as ahead:
        history_TC = _short_stage(padded, plan, -half, half)
        waiting = ahead.submit(_short_stage, padded, plan, spans[0][0] + half, spans[0][1] + half)
        for k, (start, stop) in enumerate(spans):
            x_TC = np.concatenate([history_TC, waiting.result()])
            if k + 1 < len(spans):
                waiting = ahead.submit(_short_stage, padded, plan, *(edge + half for edge in spans[k + 1]))
            kept_TC = x_TC[half : half + stop - start]
            if spectrum is None:
                yield kept_TC
            else:
                yield kept_TC - _convolve_columns(x_TC, spectrum, n_fft)[2 * half : 2 * half + stop - start]
            history_TC = x_TC[stop - start :]


def _convolve_columns(x_TC: NDArray[np.float32], spectrum: NDArray[np.complex64], n_fft: int) -> NDArray[np.float32]:
    """Circular convolution of each column, through contiguous rows: four times the speed of strided FFTs."""
    x_CT = np.ascontiguousarray(x_TC.T)
    y_CT = fft.irfft(fft.rfft(x_CT, n_fft) * spectrum, n_fft, overwrite_x=True)
    return np.asarray(y_CT.T)


def _short_stage(padded: _Padded, plan: FirPlan, start: int, stop: int) -> NDArray[np.float32]:
    """Low-passed, resampled samples [start, stop) of the output grid, which runs past both ends."""
    matrix, lead, step = plan.banded
    n_rows, span = matrix.shape
    if start == stop:
        return np.empty((0, len(padded.offset_C)), np.float32)
    first = start // n_rows
    n_blocks = -(-stop // n_rows) - first
    x_TC = padded.read(first * step - lead, (first + n_blocks - 1) * step - lead + span)
    out = np.empty((n_blocks, n_rows, x_TC.shape[1]), np.float32)
    for k in range(n_blocks):
        np.dot(matrix, x_TC[k * step : k * step + span], out=out[k])
    return out.reshape(n_blocks * n_rows, -1)[start - first * n_rows : stop - first * n_rows]


def _edge(padded: _Padded, plan: FirPlan, *, at_end: bool) -> NDArray[np.float32]:
    """The first (last) `n_edge` outputs, by the whole filter and then scipy's resampler with its padding."""
    if plan.n_edge == 0:
        return np.empty((0, 1), np.float32)
    n_out = plan.n_out(padded.n_samples)
    reach = -(-2 * plan.n_edge * plan.down // plan.up)
    n_in = min(padded.n_samples, reach + (RESAMPLER_HALF + 1) * max(plan.up, plan.down) // plan.up + 1)
    start = (padded.n_samples - n_in) // plan.down * plan.down if at_end else 0
    stop = padded.n_samples if at_end else n_in
    half = len(plan.full) // 2
    x_TC = padded.read(start - half, stop + half).astype(np.float64)
    y_TC = _convolve_valid(x_TC, plan.full)
    y_TC = scipy_signal.resample_poly(y_TC, plan.up, plan.down, axis=0, window=RESAMPLER_WINDOW, padtype="reflect")
    if plan.notch is not None:  # the notch of the ends, by the same odd reflection
        y_TC = _convolve_same(y_TC, plan.notch)
    n = min(plan.n_edge, n_out)
    return np.asarray(y_TC[-n:] if at_end else y_TC[:n], dtype=np.float32)


def _convolve_valid(x_TC: NDArray[np.float64], taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The few outputs of a long filter, as products with shifted taps: a seventh of an FFT's time."""
    n_out, n_taps = len(x_TC) - len(taps) + 1, len(taps)
    out = np.empty((n_out, x_TC.shape[1]))
    for start in range(0, n_out, EDGE_ROWS):
        rows = min(EDGE_ROWS, n_out - start)
        shifted = np.zeros((rows, n_taps + rows - 1))
        for row in range(rows):
            shifted[row, row : row + n_taps] = taps[::-1]
        np.dot(shifted, x_TC[start : start + n_taps + rows - 1], out=out[start : start + rows])
    return out


def _convolve_same(y_TC: NDArray[np.float64], taps: NDArray[np.float64]) -> NDArray[np.float64]:
    half = len(taps) // 2
    return np.asarray(scipy_signal.oaconvolve(odd_reflect(y_TC, half, half), taps[:, None], mode="valid", axes=0))


def odd_reflect(x_TC: NDArray[np.float64], before: int, after: int) -> NDArray[np.float64]:
    """Extend by point reflection about the end samples; zeros where the signal is too short for it."""
    n = len(x_TC)
    left, right = min(before, n - 1), min(after, n - 1)
    parts = [
        np.zeros((before - left, x_TC.shape[1])),
        2 * x_TC[:1] - x_TC[left:0:-1],
        x_TC,
        2 * x_TC[-1:] - x_TC[-2 : -2 - right : -1],
        np.zeros((after - right, x_TC.shape[1])),
    ]
    return np.concatenate(parts)


class _Padded:
    """A recording that can be read past its ends, by odd reflection, less a constant a channel."""

    def __init__(self, read: ReadBlock, n_samples: int) -> None:
        self._read = read
        self.n_samples = n_samples
        first = read(0, min(n_samples, BLOCK))
        self.offset_C = first.mean(0, dtype=np.float64)
        self._offset = self.offset_C.astype(np.float32)
        self._ends = (first[:1] - self._offset, read(n_samples - 1, n_samples) - self._offset)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples [start, stop), (T, C)."""
        n = self.n_samples
        middle = self._inside(max(start, 0), min(stop, n)) if start < n and stop > 0 else None
        if middle is not None and len(middle) == stop - start:
            return middle
        out = np.tile(-self._offset, (stop - start, 1))  # beyond the mirror image: zero, as MNE pads
        if middle is not None:
            out[max(start, 0) - start : max(start, 0) - start + len(middle)] = middle
        if start < 0:  # x[-k] = 2 x[0] - x[k]
            low, high = max(1, 1 - min(stop, 0)), min(-start, n - 1) + 1
            if stop <= 0:
                low = 1 - stop
            if low < high:
                mirrored = 2 * self._ends[0] - self._inside(low, high)[::-1]
                out[-high + 1 - start : -low + 1 - start] = mirrored
        if stop > n:  # x[n - 1 + k] = 2 x[n - 1] - x[n - 1 - k]
            low, high = max(1, start - n + 1), min(stop - n, n - 1) + 1
            if low < high:
                mirrored = 2 * self._ends[1] - self._inside(n - high, n - low)[::-1]
                out[n - 1 + low - start : n - 1 + high - start] = mirrored
        return out

    def _inside(self, start: int, stop: int) -> NDArray[np.float32]:
        return np.asarray(np.subtract(self._read(start, stop), self._offset, dtype=np.float32))
