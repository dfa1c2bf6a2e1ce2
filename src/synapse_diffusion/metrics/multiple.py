"""Many tests at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def holm(p_M: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjusted p (M,) of M tests, whatever their dependence: below a level where Holm's steps reject at that level.

    Holm 1979, Scand. J. Stat. 6: the k-th smallest of M is multiplied by M - k + 1, and never falls below the one
    before it. Raises `ValueError` for a p outside 0 .. 1.
    """
    if not ((p_M >= 0) & (p_M <= 1)).all():
        raise ValueError(f"p must lie in 0 .. 1, got {p_M.tolist()}")
    order_M = np.argsort(p_M, kind="stable")
    adjusted_M = np.empty(len(p_M))
    adjusted_M[order_M] = np.minimum(np.maximum.accumulate(np.arange(len(p_M), 0, -1) * p_M[order_M]), 1.0)
    return adjusted_M
