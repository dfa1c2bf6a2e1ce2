"""People and units (images, concepts, stretches of trials) drawn again together: how a score would vary over both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
BLOCK: Final = 2_000_000  # weights at once, 16 MB


@dataclass(frozen=True)
class CrossedDraws:
    """Bootstrap weights of decisions: those of their unit times those of their people.

    The pigeonhole bootstrap (Owen 2007, Ann. Appl. Stat. 1(2), section 3). People see the same images, so that to
    draw images for each person apart would average away what all people make of one image; drawn once for all, they
    keep it. Somewhat too wide rather than too narrow. Every iteration gives the same draws.
    """

    cell_N: Index
    """Which combination of unit and people each decision is."""
    level_FC: Index
    """Of each combination: the unit, and the person (of a fusion one of each modality)."""
    n_draws: int
    seed: int

    @classmethod
    def of(cls, unit_N: Index, people: Sequence[Index], n_draws: int, rng: np.random.Generator) -> Self:
        """Draws over units and one person (N,) or several of each decision."""
        factors = [np.unique(factor, return_inverse=True)[1] for factor in (unit_N, *people)]
        level_FC, cell_N = np.unique(np.stack(factors), axis=1, return_inverse=True)
        own = rng.spawn(1)[0]  # takes nothing from the other draws
        return cls(cell_N.reshape(-1), level_FC, n_draws, int(own.integers(2**63)))

    def __iter__(self) -> Iterator[Array]:
        """Weights (draws, C), some draws at a time."""
        rng = np.random.default_rng(self.seed)
        step = max(1, BLOCK // self.level_FC.shape[1])
        for start in range(0, self.n_draws, step):
            n = min(step, self.n_draws - start)
            weight_DC = np.ones((n, self.level_FC.shape[1]))
            for level_C in self.level_FC:
                n_levels = int(level_C.max()) + 1
                weight_DC *= rng.multinomial(n_levels, np.full(n_levels, 1 / n_levels), size=n)[:, level_C]
            yield weight_DC[weight_DC.any(1)]  # a draw of people who saw none of the images drawn says nothing

    def means(self, value_MN: Array) -> Array:
        """Weighted means (draws, M) of values of decisions."""
        n_cells = self.level_FC.shape[1]
        sum_MC = np.stack([np.bincount(self.cell_N, weights=value_N, minlength=n_cells) for value_N in value_MN])
        count_C = np.bincount(self.cell_N, minlength=n_cells).astype(float)
        found = [weight_DC @ sum_MC.T / (weight_DC @ count_C)[:, None] for weight_DC in self]
        return np.concatenate(found) if found else np.empty((0, len(value_MN)))


def percentiles(drawn_DM: Array) -> tuple[Array, Array]:
    """95 % interval (M,), (M,); NaN without draws."""
    if not len(drawn_DM):
        return np.full(drawn_DM.shape[1], np.nan), np.full(drawn_DM.shape[1], np.nan)
    low, high = np.percentile(drawn_DM, [2.5, 97.5], axis=0)
    return low, high
