"""Are the pictures where the event table says: distances between onsets, and a trigger channel's edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PAUSE: Final = 2.0  # times the median distance: longer is a pause, where no sequences are named
TOLERANCE: Final = 0.25  # of the median distance, where the design's own limits are not given
REACH_S: Final = 0.1  # an edge this far from an onset is another event's
DRIFT: Final = 0.02  # of the recording's median distance: a sequence this far from it runs at another pace


@dataclass(frozen=True)
class Timing:
    """Onset distances of a recording, pauses left out."""

    median_s: float
    n_distances: int
    n_outside: int
    notes: tuple[str, ...]


def check_distances(
    onset_N: NDArray[np.int64],
    sequence_N: NDArray[np.int64],
    sfreq: float,
    allowed_s: tuple[float, float] | None,
) -> Timing:
    """Compare distances of successive onsets (in samples) with `allowed_s`, and each sequence's pace with the others'.

    Distances between different sequences, or where there is one sequence those of more than twice the median, are
    pauses. A recording of one onset has none.
    """
    order = np.argsort(onset_N, kind="stable")
    distance = np.diff(onset_N[order]) / sfreq
    sequence = sequence_N[order]
    inside = sequence[1:] == sequence[:-1]
    if len(np.unique(sequence)) == 1 and distance.size:
        inside &= distance <= PAUSE * np.median(distance)
    if not inside.any():
        return Timing(float("nan"), 0, 0, ())
    median = float(np.median(distance[inside]))
    low, high = allowed_s or ((1 - TOLERANCE) * median, (1 + TOLERANCE) * median)
    slack = 0.5 / sfreq
    outside = inside & ((distance < low - slack) | (distance > high + slack))
    notes = []
    paces = {int(s): float(np.median(distance[inside & (sequence[1:] == s)])) for s in np.unique(sequence[1:][inside])}
    odd = {s: pace for s, pace in paces.items() if abs(pace - median) > max(DRIFT * median, 1.5 / sfreq)}
    if odd and len(paces) > 1:
        some = ", ".join(f"{s} ({1000 * pace:.1f} ms)" for s, pace in list(odd.items())[:6])
        notes.append(
            f"{len(odd)} of {len(paces)} sequences run at another pace than the median of {1000 * median:.1f} ms: "
            + some
        )
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        notes.append(
            f"{int(outside.sum())} of {int(inside.sum())} onset distances lie outside {1000 * low:.1f}.."
            f"{1000 * high:.1f} ms ({1000 * distance[outside].min():.1f}..{1000 * distance[outside].max():.1f} ms), "
            f"the first at {onset_N[order][first] / sfreq:.3f} s"
        )
    return Timing(median, int(inside.sum()), int(outside.sum()), tuple(notes))


def check_trigger(trigger_T: NDArray[np.float64], onset_N: NDArray[np.int64], sfreq: float) -> str:
    """One sentence: how far the rising edges of a trigger or photodiode channel lie from the onsets (in samples)."""
    low, high = np.percentile(trigger_T, [0.5, 99.5])
    if high <= low:
        return "the trigger channel is constant: no edge to compare onsets with"
    above = trigger_T > (low + high) / 2
    edges = np.flatnonzero(above[1:] & ~above[:-1]) + 1
    if edges.size == 0:
        return "the trigger channel has no rising edge to compare onsets with"
    at = np.clip(np.searchsorted(edges, onset_N), 1, max(len(edges) - 1, 1))
    near = edges[np.minimum(at, len(edges) - 1)]
    before = edges[at - 1]
    delay = np.where(np.abs(near - onset_N) < np.abs(before - onset_N), near - onset_N, before - onset_N) / sfreq
    found = np.abs(delay) <= REACH_S
    if not found.any():
        return f"none of {len(onset_N)} onsets has a trigger edge within {1000 * REACH_S:g} ms"
    return (
        f"trigger edges follow the onsets by {1000 * np.median(delay[found]):.1f} ms (median; standard deviation "
        f"{1000 * delay[found].std():.2f} ms), {int((~found).sum())} of {len(onset_N)} onsets have none"
    )
