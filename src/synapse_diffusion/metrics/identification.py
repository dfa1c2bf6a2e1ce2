"""Is a reconstruction nearer to its own picture than to others: by features (K, D) of any network, or by its class.

A table (K, K) holds how good reconstruction k would be if it belonged to picture j; the diagonal is the result. Several
samples of each reconstruction, (K, S, D), give the mean of their tables. Rows of a two-way table have mean one half
whatever the features are: a reconstruction that knows nothing of its picture is at one half by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, rankdata

from synapse_diffusion.metrics.classification import Score
from synapse_diffusion.metrics.retrieval import bootstrap_interval

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
Index = NDArray[np.int64]
FLAT: Final = 1e-6  # spread beside size under which float32 numbers are all one number


def standardised(x_KD: Floats) -> Array:
    """Rows centred and of length one, so that inner products are correlations; zeros where all is one value."""
    x_KD = np.asarray(x_KD, dtype=np.float64)
    centred_KD = x_KD - x_KD.mean(1, keepdims=True)
    length_K1 = np.linalg.norm(centred_KD, axis=1, keepdims=True)
    flat_K1 = length_K1 <= FLAT * np.linalg.norm(x_KD, axis=1, keepdims=True)
    return np.asarray(np.where(flat_K1, 0.0, centred_KD / np.where(flat_K1, 1.0, length_K1)))


def samples_of(x: Floats) -> list[Floats]:
    """The samples (K, D) of features (K, D) or (K, S, D)."""
    if x.ndim not in (2, 3):
        raise ValueError(f"features are (K, D) or samples (K, S, D), got {x.shape}")
    return [x] if x.ndim == 2 else [x[:, s] for s in range(x.shape[1])]


def correlations(recon_KD: Floats, true_JD: Floats) -> Array:
    """Pearson correlation (K, J) of feature vectors; 0 with a vector whose numbers are all one."""
    if not (np.isfinite(recon_KD).all() and np.isfinite(true_JD).all()):
        raise ValueError("a feature is not finite")
    return np.asarray(standardised(recon_KD) @ standardised(true_JD).T)


def feature_distance(recon: Floats, true_KD: Floats) -> Array:
    """1 - correlation (K,) of features with the true picture's, lower is better: the field's "SwAV" and "EffNet".

    Ozcelik & VanRullen 2023 (`scipy.spatial.distance.correlation`), of average-pooled features.
    """
    true = standardised(true_KD)
    return np.asarray(np.mean([1 - (standardised(sample) * true).sum(1) for sample in samples_of(recon)], axis=0))


def distance_table(recon: Floats, true_KD: Floats) -> Array:
    """1 - correlation (K, K) of every reconstruction with every true picture."""
    return np.asarray(np.mean([1 - correlations(sample, true_KD) for sample in samples_of(recon)], axis=0))


def squared_table(recon: Floats, true_KD: Floats) -> Array:
    """Squared distance (K, K) of every reconstruction from every true picture; of LPIPS' features it is LPIPS."""
    tables = []
    for sample in samples_of(recon):
        a, b = np.asarray(sample, dtype=np.float64), np.asarray(true_KD, dtype=np.float64)
        tables.append(np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T)
    return np.asarray(np.maximum(np.mean(tables, axis=0), 0))


def two_way_table(recon: Floats, true_KD: Floats) -> Array:
    """Two-way identification (K, K): the share of the other true pictures that correlate less with a reconstruction.

    Ozcelik & VanRullen 2023, Scotti et al. 2023 (MindEye): `r = corrcoef(true, recon)`, and of each reconstruction the
    count of `r < r_own` over K - 1. Here ties count half, so that chance is one half exactly; it is
    1 - `mean_rank` of `retrieval_scores`.
    """
    if len(true_KD) < 2:
        raise ValueError("two-way identification needs two pictures or more")
    shares = [_lower(correlations(sample, true_KD)) for sample in samples_of(recon)]
    return np.asarray(np.mean(shares, axis=0))


def two_way_within(recon: Floats, true_KD: Floats, category_K: NDArray[Any]) -> tuple[Array, NDArray[np.bool_]]:
    """Two-way identification within categories: (J, J) of the J pictures whose category has another, and which (K,).

    What a reconstruction knows beyond the category. Pictures alone in their category are left out. Entries of different
    categories are NaN: permutations deal within categories (`exchange_K` of `table_score`).
    """
    _, of_K, count = np.unique(category_K, return_inverse=True, return_counts=True)
    kept_K = count[of_K] > 1
    of_J = of_K[kept_K]
    table_JJ = np.full((len(of_J), len(of_J)), np.nan)
    for category in np.unique(of_J):
        at = np.flatnonzero(of_J == category)
        table_JJ[np.ix_(at, at)] = two_way_table(recon[kept_K][at], true_KD[kept_K][at])
    return table_JJ, kept_K


def top_table(recon: Floats, true_KD: Floats, top: int = 1) -> Array:
    """Retrieval of the true picture (K, K): is it among the `top` that correlate most with a reconstruction?

    Of equal correlations the share of their orders in which it is, as in `hits`; every row adds up to `top`, so that
    chance is top / K exactly.
    """
    found = []
    for sample in samples_of(recon):
        r_KJ = correlations(sample, true_KD)
        first, last = (rankdata(-r_KJ, method=m, axis=1) for m in ("min", "max"))
        found.append(np.clip((top - first + 1) / (last - first + 1), 0.0, 1.0))
    return np.asarray(np.mean(found, axis=0))


def n_way_table(logits: Floats, class_K: Index, n: int, top: int = 1) -> Array:
    """n-way top-k classification (K, K): the chance that a reconstruction's own class is among the best `top` of `n`.

    Chen et al. 2023 (MinD-Vis, https://arxiv.org/abs/2211.06956, section 4): a classifier's logits (K, C) or (K, S, C)
    of the reconstruction; the class of the true picture (its own largest logit) is compared with n - 1 drawn from the
    other C - 1. They draw 1,000 times; this is the mean of all draws: with b classes ahead, the number of these among
    the n - 1 is hypergeometric, and must be under `top`. Equal logits stand in random order.
    """
    n_classes = logits.shape[-1]
    if not 1 <= top < n <= n_classes:
        raise ValueError(f"need 1 <= top < n <= classes, got top {top}, n {n}, {n_classes} classes")
    chance_C = hypergeom(n_classes - 1, np.arange(n_classes), n - 1).cdf(top - 1)  # by the number of classes ahead
    upto_C = np.concatenate([[0.0], np.cumsum(chance_C)])
    tables = []
    for sample in samples_of(logits):
        if not np.isfinite(sample).all():
            raise ValueError("a logit is not finite")
        ahead, last = (rankdata(-sample, method=m, axis=1)[:, class_K].astype(int) for m in ("min", "max"))
        tables.append((upto_C[last] - upto_C[ahead - 1]) / (last - ahead + 1))
    return np.asarray(np.mean(tables, axis=0))


def classes_of(true_logits_KC: Floats) -> Index:
    """The class (K,) that the classifier gives the true pictures."""
    return np.asarray(true_logits_KC.argmax(1), dtype=np.int64)


def flattened(recon: Floats, true_KD: Floats, unit_K: Index) -> tuple[Array, Index, Index]:
    """What `retrieval_scores` takes: correlations (K S, K), the true column, the unit, one row a sample."""
    parts = samples_of(recon)
    score = np.concatenate([correlations(sample, true_KD) for sample in parts])
    return score, np.tile(np.arange(len(true_KD)), len(parts)), np.tile(unit_K, len(parts))


def table_score(
    metric: str,
    table_KK: Array,
    unit_K: Index,
    *,
    exchange_K: NDArray[Any] | None = None,
    lower_is_better: bool = False,
    permutations: int,
    bootstrap: int,
    rng: np.random.Generator,
) -> Score:
    """Mean of a table's diagonal, beside what exchanging reconstructions gives.

    `chance` is the mean over all ways to deal the reconstructions to the pictures (within equal `exchange_K`, where
    given), which is exact: one half for two-way, and for low-level measures the floor that the pictures' common look
    gives. p: share of random deals that are as good; whole pictures are exchanged, since pairs share pictures and a
    binomial test of pairs would be wrong. The 95 % interval draws units (pictures, or concepts) with replacement; the
    gallery stays. Two conditions are compared by `paired_difference` of their tables' diagonals. Raises `ValueError`
    for NaN, and for a table of no pictures.
    """
    own_K = np.diagonal(table_KK)
    if not len(own_K):
        raise ValueError(f"{metric}: no pictures (is each alone in its category?)")
    group_K = np.zeros(len(own_K), int) if exchange_K is None else np.unique(exchange_K, return_inverse=True)[1]
    groups = [np.flatnonzero(group_K == g) for g in range(group_K.max() + 1)]
    if any(np.isnan(table_KK[np.ix_(at, at)]).any() for at in groups):
        raise ValueError(f"{metric}: a value is NaN; deal a table within categories by exchange_K")
    value = float(own_K.mean())
    chance = float(sum(table_KK[np.ix_(at, at)].mean() * len(at) for at in groups) / len(own_K))
    null_P = _dealt(table_KK, groups, permutations, rng)
    as_good = (null_P <= value + 1e-12) if lower_is_better else (null_P >= value - 1e-12)
    p = float((1 + as_good.sum()) / (1 + permutations)) if permutations else float("nan")
    low, high = bootstrap_interval(own_K[None], unit_K, bootstrap, rng)
    return Score(metric, value, chance, float(low[0]), float(high[0]), p, len(own_K))


def colour_score(
    recon: Floats, true_K3: Floats, unit_K: Index, *, permutations: int, bootstrap: int, rng: np.random.Generator
) -> Score:
    """Mean colour correlation: over pictures, of mean red, green and blue (`mean_colour`), the mean of the three.

    Of samples (K, S, 3) the mean of their correlations. Chance 0; p and interval as in `table_score`.
    """
    samples = samples_of(recon)
    flat_K = np.ones(len(true_K3))

    def value(order_K: Index, weight_K: Array) -> float:
        return float(np.mean([_weighted_correlation(s[order_K], true_K3, weight_K) for s in samples]))

    same_K = np.arange(len(true_K3))
    observed = value(same_K, flat_K)
    null = [value(rng.permutation(len(same_K)), flat_K) for _ in range(permutations)]
    p = (1 + sum(v >= observed - 1e-12 for v in null)) / (1 + permutations) if permutations else float("nan")
    units, of_K = np.unique(unit_K, return_inverse=True)
    weights = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=bootstrap)
    drawn = [value(same_K, weight[of_K].astype(float)) for weight in weights]
    low, high = np.percentile(drawn, [2.5, 97.5]) if bootstrap else (np.nan, np.nan)
    return Score("mean_colour", observed, 0.0, float(low), float(high), p, len(true_K3))


def _lower(r_KJ: Array) -> Array:
    """Share of the other columns of the row that are lower, ties half."""
    return np.asarray((rankdata(r_KJ, axis=1) - 1) / (r_KJ.shape[1] - 1))


def _dealt(table_KK: Array, groups: Sequence[Index], permutations: int, rng: np.random.Generator) -> Array:
    """Means (permutations,) of the table with pictures dealt anew within groups."""
    total_P = np.zeros(permutations)
    for at in groups:
        order_PJ = rng.permuted(np.tile(at, (permutations, 1)), axis=1)
        total_P += table_KK[at, order_PJ].sum(1)
    return total_P / len(table_KK)


def _weighted_correlation(a_K3: Floats, b_K3: Floats, weight_K: Array) -> float:
    """Mean over columns of the correlation over rows; 0 for a column of one value."""
    share_K1 = (weight_K / weight_K.sum())[:, None]
    a, b = (x - (share_K1 * x).sum(0) for x in (np.asarray(a_K3, float), np.asarray(b_K3, float)))
    covariance, va, vb = (share_K1 * a * b).sum(0), (share_K1 * a**2).sum(0), (share_K1 * b**2).sum(0)
    spread = np.sqrt(va * vb)
    return float(np.mean(np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 1e-12)))
