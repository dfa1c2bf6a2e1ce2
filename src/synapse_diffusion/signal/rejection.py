"""Which epochs are too large to be brain."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

FOLDS: Final = 5
N_CANDIDATES: Final = 40
FEWEST: Final = 2 * FOLDS  # epochs below which no threshold can be chosen


def peak_to_peak(x_NCT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest peak-to-peak amplitude of any sensor, (N,), in the epochs' unit."""
    return np.asarray(np.ptp(x_NCT, axis=2).max(axis=1))


def autoreject_limit(x_NCT: NDArray[np.float32]) -> float:
    """The peak-to-peak limit that leaves the mean of the kept epochs nearest to the median of unseen ones.

    The global rule of Jas et al. 2017 (Autoreject, NeuroImage 159, eq. 1-3), over quantiles of the epochs' own
    amplitudes and contiguous folds. Infinite where there are too few epochs.
    """
    n = len(x_NCT)
    if n < FEWEST:
        return float("inf")
    largest = peak_to_peak(x_NCT)
    candidates = np.unique(np.quantile(largest, np.linspace(0.1, 1.0, N_CANDIDATES), method="higher"))
    loss = np.mean([_losses(x_NCT, largest, candidates, held) for held in np.array_split(np.arange(n), FOLDS)], axis=0)
    return float(candidates[int(np.argmin(loss))])


def _losses(
    x_NCT: NDArray[np.float32], largest: NDArray[np.float32], candidates: NDArray[np.float32], held: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Root mean square distance of the held-out median from the mean of what each candidate keeps elsewhere."""
    others = np.setdiff1d(np.arange(len(x_NCT)), held)
    order = others[np.argsort(largest[others], kind="stable")]
    n_kept = np.searchsorted(largest[order], candidates, side="right")
    target = np.median(x_NCT[held], axis=0).astype(np.float64)
    total, done, losses = np.zeros_like(target), 0, []
    for n in n_kept:  # sums grow with the limit
        total += x_NCT[order[done:n]].sum(axis=0, dtype=np.float64)
        done = n
        losses.append(np.sqrt(np.mean((total / n - target) ** 2)) if n else np.inf)
    return np.asarray(losses)
