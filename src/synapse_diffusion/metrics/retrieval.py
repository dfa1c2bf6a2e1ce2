"""Retrieval: which picture of a gallery was seen. Score matrices (N decisions, K gallery columns), higher is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import logsumexp
from scipy.stats import rankdata

from synapse_diffusion.metrics.classification import Score, scores_of
from synapse_diffusion.metrics.draws import CrossedDraws, percentiles

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
TEMPERATURE_RANGE: Final = 1e4  # of the scores' spread, either way


@dataclass(frozen=True)
class _Places:
    """Of each column in its row: columns that are better, and columns of equal score, itself among them."""

    better_NK: Array
    equal_NK: Array

    @property
    def rank(self) -> Array:
        return self.better_NK + (self.equal_NK - 1) / 2

    def hit(self, k: int) -> Array:
        return np.asarray(np.clip((k - self.better_NK) / self.equal_NK, 0.0, 1.0))


def _places(score_NK: Floats, column_J: NDArray[np.int64]) -> _Places:
    if np.isnan(score_NK).any():
        raise ValueError("a score is NaN")
    first_NK, last_NK = (rankdata(-score_NK, method=method, axis=1)[:, column_J] for method in ("min", "max"))
    return _Places(first_NK - 1.0, last_NK - first_NK + 1.0)


def _true_place(score_NK: Floats, truth_N: NDArray[np.int64]) -> _Places:
    if np.isnan(score_NK).any():
        raise ValueError("a score is NaN")
    true_N1 = np.take_along_axis(score_NK, truth_N[:, None], axis=1)
    return _Places((score_NK > true_N1).sum(1).astype(float), (score_NK == true_N1).sum(1).astype(float))


def ranks(score_NK: Floats, truth_N: NDArray[np.int64]) -> Array:
    """Rank (N,) of the true column, 0 for the best; a column of equal score counts half. `ValueError` for NaN."""
    return _true_place(score_NK, truth_N).rank


def hits(score_NK: Floats, truth_N: NDArray[np.int64], k: int) -> Array:
    """Whether (N,) the true column is among the best `k`; with ties, the share of their orders in which it is."""
    return _true_place(score_NK, truth_N).hit(k)


def retrieval_scores(
    score_NK: Floats,
    truth_N: NDArray[np.int64],
    unit_N: NDArray[np.int64],
    *,
    top: Sequence[int] = (1, 5),
    permutations: int,
    bootstrap: int,
    rng: np.random.Generator,
    people: Sequence[NDArray[np.int64]] = (),
) -> list[Score]:
    """`top1`, `top5`, ... and `mean_rank` (0 best, 1 worst, its p from the low side), means over decisions.

    A permutation exchanges images: those that occur as truth are dealt anew, all decisions of one image together, so
    that a column which is near to everything stays so. Its mean over permutations may differ from the chance
    given (k / K, and 0.5) where some columns are never true. The interval draws units (images) with replacement;
    the gallery stays; for the second interval the `people` (N,) whose decisions these are likewise.
    """
    n, n_columns = score_NK.shape
    image_J, image_N = np.unique(truth_N, return_inverse=True)
    places = _places(score_NK, image_J)
    table_MNJ = np.stack([*(places.hit(k) for k in top), places.rank / max(n_columns - 1, 1)])
    found_MN = table_MNJ[:, np.arange(n), image_N]
    observed_M = found_MN.mean(1)
    sign_M = np.array([*[1.0] * len(top), -1.0])
    null_PM = _dealt_means(table_MNJ, image_N, permutations, rng)
    as_good_M = (sign_M * (null_PM - observed_M) >= -1e-12).sum(0)
    p = (1 + as_good_M) / (1 + permutations) if permutations else np.full(len(sign_M), np.nan)
    interval = bootstrap_interval(found_MN, unit_N, bootstrap, rng)
    wide = people_interval(found_MN, unit_N, people, bootstrap, rng)
    names = [*(f"top{k}" for k in top), "mean_rank"]
    chance_M = np.array([*(min(k / n_columns, 1.0) for k in top), 0.5])
    return scores_of(names, observed_M, chance_M, interval, p, n, wide)


def _dealt_means(table_MNJ: Array, image_N: NDArray[np.int64], permutations: int, rng: np.random.Generator) -> Array:
    """Means (permutations, M) with the images dealt anew: means are sums over images, each an index away."""
    n_images = table_MNJ.shape[2]
    order_N = np.argsort(image_N, kind="stable")
    start_J = np.searchsorted(image_N[order_N], np.arange(n_images))
    sum_MJJ = np.add.reduceat(table_MNJ[:, order_N], start_J, axis=1)
    dealt_PJ = rng.permuted(np.tile(np.arange(n_images), (permutations, 1)), axis=1)
    return np.stack([sum_JJ[np.arange(n_images), dealt_PJ].sum(1) for sum_JJ in sum_MJJ], axis=1) / len(image_N)


def bootstrap_interval(
    value_MN: Array, unit_N: NDArray[np.int64], n_draws: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """95 % interval (M,), (M,) of means over decisions, units drawn with replacement; NaN without draws."""
    if not n_draws:
        return np.full(len(value_MN), np.nan), np.full(len(value_MN), np.nan)
    units, unit_index = np.unique(unit_N, return_inverse=True)
    sum_MU = np.stack([np.bincount(unit_index, weights=value_N) for value_N in value_MN])
    weight_DU = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=n_draws).astype(float)
    drawn_DM = weight_DU @ sum_MU.T / (weight_DU @ np.bincount(unit_index))[:, None]
    low, high = np.percentile(drawn_DM, [2.5, 97.5], axis=0)
    return low, high


def people_interval(
    value_MN: Array, unit_N: NDArray[np.int64], people: Sequence[NDArray[np.int64]], n_draws: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:  # fmt: skip
    """95 % interval (M,), (M,) of means over decisions, units and people drawn with replacement; NaN without people."""
    return percentiles(CrossedDraws.of(unit_N, people, n_draws if people else 0, rng).means(value_MN))


def paired_difference(
    hit_a_N: Array, hit_b_N: Array, unit_N: NDArray[np.int64], n_draws: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Mean of a - b over the same decisions and its 95 % interval, units (images) drawn with replacement."""
    difference_N = np.asarray(hit_a_N, float) - np.asarray(hit_b_N, float)
    low, high = bootstrap_interval(difference_N[None], unit_N, n_draws, rng)
    return float(difference_N.mean()), float(low[0]), float(high[0])


def by_concept(score_NK: Floats, concept_K: NDArray[Any]) -> tuple[Array, NDArray[Any]]:
    """Scores (N, J) of the gallery's concepts, sorted, and the concepts (J,).

    The mean over a concept's images: for inner products the score of their mean vector, and no concept gains by having
    more images, as it would with the largest score.
    """
    concepts = np.unique(concept_K)
    return np.stack([score_NK[:, concept_K == concept].mean(1) for concept in concepts], axis=1), concepts


def csls(score_NK: Floats, k: int = 10) -> Array:
    """Transductive: cross-domain similarity local scaling of cosines (Conneau et al. 2018, section 2.3).

    `2 cos(x, y) - r(x) - r(y)`, r the mean cosine with the `k` nearest of the other side. Uses all decisions of the
    batch at once: report it apart from figures that judge each decision alone.
    """
    n, n_columns = score_NK.shape
    of_row_N1 = np.sort(score_NK, axis=1)[:, -min(k, n_columns) :].mean(1, keepdims=True)
    of_column_1K = np.sort(score_NK, axis=0)[-min(k, n) :].mean(0, keepdims=True)
    return np.asarray(2 * score_NK - of_row_N1 - of_column_1K, dtype=np.float64)


def sinkhorn(score_NK: Floats, temperature: float, iterations: int) -> Array:
    """Transductive: log shares (N, K), rows of sum 1, of the entropic transport plan (Cuturi 2013).

    Presumes that each column is true equally often in the batch, which is knowledge of the design: report it apart
    from figures that judge each decision alone. `temperature` is in units of the scores.
    """
    log_NK = np.asarray(score_NK, dtype=np.float64) / temperature
    for _ in range(iterations):
        log_NK = log_NK - logsumexp(log_NK, axis=0, keepdims=True)
        log_NK = log_NK - logsumexp(log_NK, axis=1, keepdims=True)
    return np.asarray(log_NK)


def log_softmax(score_NK: Floats, temperature: float = 1.0) -> Array:
    """Log probabilities (N, K) of the columns at a temperature."""
    return np.asarray(scipy_log_softmax(np.asarray(score_NK, dtype=np.float64) / temperature, axis=1))


def calibrate(scores: Sequence[Floats], truth_N: NDArray[np.int64]) -> Array:
    """Temperatures (M,) of M decoders' scores (N, K), each alone: smallest mean cross-entropy, on validation.

    Scores without information end at the upper limit, `TEMPERATURE_RANGE` times their spread: all columns alike.
    """
    rows = np.arange(len(truth_N))

    def best(score_NK: Floats) -> float:
        spread = float(np.std(score_NK - score_NK.mean(1, keepdims=True)))
        if spread == 0.0:
            return 1.0

        def loss(log_temperature: float) -> float:
            return -float(log_softmax(score_NK, float(np.exp(log_temperature)))[rows, truth_N].mean())

        limits = np.log(spread) + np.array([-1.0, 1.0]) * np.log(TEMPERATURE_RANGE)
        return float(np.exp(minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-4}).x))

    return np.array([best(score_NK) for score_NK in scores])


def fuse(scores: Sequence[Floats], temperatures: Array) -> Array:
    """Sum (N, K) of calibrated log-likelihoods: all there is to know if the decoders' noise is independent.

    Log-softmax is log-likelihood up to a constant of each row, which moves no rank; columns are equally likely.
    """
    logs = [log_softmax(score_NK, float(t)) for score_NK, t in zip(scores, temperatures, strict=True)]
    return np.asarray(np.sum(logs, axis=0))
