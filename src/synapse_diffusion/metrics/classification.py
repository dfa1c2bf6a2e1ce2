"""Scores of classifications, their chance, p and interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from synapse_diffusion.metrics.draws import CrossedDraws, percentiles

Array = NDArray[np.float64]
METRICS: Final = ("balanced_accuracy", "accuracy", "macro_f1", "auc")
AT_ONCE: Final = 50  # permutations: 2,400 trials of 46 people are 44 MB
MOST_CELLS: Final = 1000  # whose pairs are counted: 8 MB a class


@dataclass(frozen=True)
class Score:
    """One figure: value, chance level, 95 % interval, permutation p, number of decisions; interval over people."""

    metric: str
    value: float
    chance: float
    low: float
    high: float
    p: float
    n: int
    low_people: float = float("nan")
    high_people: float = float("nan")


def scores_of(
    names: Sequence[str], value_M: Array, chance_M: Array, interval: tuple[Array, Array], p_M: Array, n: int,
    over_people: tuple[Array, Array],
) -> list[Score]:  # fmt: skip
    """One figure a metric."""
    columns = np.stack([value_M, chance_M, *interval, p_M, *over_people], axis=1).tolist()
    return [
        Score(name, value, chance, low, high, p, n, low_people, high_people)
        for name, (value, chance, low, high, p, low_people, high_people) in zip(names, columns, strict=True)
    ]


def confusion(label_N: NDArray[np.int64], predicted_N: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Counts (K true, K predicted)."""
    return np.bincount(label_N * n_classes + predicted_N, minlength=n_classes**2).reshape(n_classes, n_classes)


def from_confusion(counts_KK: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Accuracy, balanced accuracy (mean recall of the classes that occur) and macro-F1; leading axes kept."""
    hit = np.diagonal(counts_KK, axis1=-2, axis2=-1)
    true, predicted = counts_KK.sum(-1), counts_KK.sum(-2)
    occurs = true > 0
    recall = np.where(occurs, hit / np.maximum(true, 1e-12), 0.0)
    f1 = 2 * hit / np.maximum(true + predicted, 1e-12)
    n_occurring = np.maximum(occurs.sum(-1), 1)
    return {
        "accuracy": hit.sum(-1) / np.maximum(true.sum(-1), 1e-12),
        "balanced_accuracy": recall.sum(-1) / n_occurring,
        "macro_f1": np.where(occurs, f1, 0.0).sum(-1) / n_occurring,
    }


def auc(score_NK: NDArray[np.float64], label_N: NDArray[np.int64]) -> float:
    """Area under the ROC curve, one class against the rest, mean over classes that occur (ties count half)."""
    return float(_auc_of_ranks(rankdata(score_NK, axis=0), label_N[None])[0])


def _auc_of_ranks(rank_NK: NDArray[np.float64], label_PN: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mann-Whitney form, for each row of labels."""
    is_KPN = [label_PN == k for k in range(rank_NK.shape[1])]
    positive_PK = np.stack([is_PN.sum(1) for is_PN in is_KPN], axis=1).astype(float)
    rank_sum_PK = np.stack([is_PN @ rank_N for is_PN, rank_N in zip(is_KPN, rank_NK.T, strict=True)], axis=1)
    pairs_PK = positive_PK * (label_PN.shape[1] - positive_PK)
    return _mean_area(rank_sum_PK - positive_PK * (positive_PK + 1) / 2, pairs_PK)


def classification_scores(
    probability_NK: NDArray[np.float64],
    label_N: NDArray[np.int64],
    unit_N: NDArray[np.int64],
    permute: Callable[[np.random.Generator], NDArray[np.int64]],
    *,
    permutations: int,
    bootstrap: int,
    rng: np.random.Generator,
    people: Sequence[NDArray[np.int64]] = (),
) -> list[Score]:
    """All scores of one set of decisions.

    `unit_N` names what is drawn again for the interval (concepts, or stretches of trials); `people` whose trials
    these are, who are drawn again too for the second interval. `permute` deals the labels (N,) anew in a way that
    the design makes exchangeable. p is (1 + number of permutations at least as good) / (1 + permutations).
    """
    n, n_classes = probability_NK.shape
    predicted_N = probability_NK.argmax(1)
    rank_NK = rankdata(probability_NK, axis=0)

    def all_scores(label_PN: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = from_confusion(np.stack([confusion(l_N, predicted_N, n_classes) for l_N in label_PN]).astype(float))
        return np.column_stack([*(counts[m] for m in METRICS[:3]), _auc_of_ranks(rank_NK, label_PN)])

    observed = all_scores(label_N[None])[0]
    null = np.empty((permutations, len(METRICS)))
    for start in range(0, permutations, AT_ONCE):
        stop = min(permutations, start + AT_ONCE)
        null[start:stop] = all_scores(np.stack([permute(rng) for _ in range(start, stop)]))
    p = (1 + (null >= observed - 1e-12).sum(0)) / (1 + permutations) if permutations else np.full(len(METRICS), np.nan)
    dealt = null[:, 1:3].mean(0) if permutations else np.full(2, np.nan)
    chance = np.array([1.0 / n_classes, *dealt, 0.5])
    units, unit_index = np.unique(unit_N, return_inverse=True)
    draws = (rng.integers(0, len(units), len(units)) for _ in range(bootstrap))
    weight_DU = np.array([np.bincount(draw, minlength=len(units)) for draw in draws], dtype=float)
    interval = percentiles(_bootstrap(probability_NK, label_N, unit_index, [weight_DU] if bootstrap else ()))
    crossed = CrossedDraws.of(unit_N, people, bootstrap if people else 0, rng)
    wide = percentiles(_bootstrap(probability_NK, label_N, crossed.cell_N, crossed))
    return scores_of(METRICS, observed, chance, interval, p, n, wide)


def _bootstrap(
    probability_NK: NDArray[np.float64], label_N: NDArray[np.int64], cell_N: NDArray[np.int64],
    blocks: Iterable[NDArray[np.float64]],
) -> NDArray[np.float64]:  # fmt: skip
    """Scores (draws, metrics) of trials with the weights (draws, C) of their cells.

    Classes of which no unit is drawn drop out of that draw's means; drawing inside classes would give a class
    with one concept no spread at all.
    """
    n_classes, n_cells = probability_NK.shape[1], int(cell_N.max()) + 1
    outcome_N = label_N * n_classes + probability_NK.argmax(1)
    count_CO = np.bincount(cell_N * n_classes**2 + outcome_N, minlength=n_cells * n_classes**2)
    count_CKK = count_CO.reshape(n_cells, n_classes, n_classes).astype(float)
    areas = _areas_by_cells if n_cells <= MOST_CELLS else _areas_by_trials
    area_of = areas(probability_NK, label_N, cell_N, n_cells)
    out = [np.empty((0, len(METRICS)))]
    for weight_DC in blocks:
        scores = from_confusion(np.tensordot(weight_DC, count_CKK, 1))
        out.append(np.column_stack([*(scores[m] for m in METRICS[:3]), area_of(weight_DC)]))
    return np.concatenate(out)


def _areas_by_cells(
    probability_NK: Array, label_N: NDArray[np.int64], cell_N: NDArray[np.int64], n_cells: int
) -> Callable[[Array], Array]:
    """Mean area under the curve (draws,) of cells' weights: it is a sum over pairs of cells, counted here once."""
    n_classes = probability_NK.shape[1]
    one_NC = np.eye(n_cells)[cell_N]
    won_KCC, positive_CK = np.empty((n_classes, n_cells, n_cells)), np.empty((n_cells, n_classes))
    for k in range(n_classes):
        _, place_N = np.unique(probability_NK[:, k], return_inverse=True)  # equal scores, equal place
        is_k = label_N == k
        negative_GC = np.zeros((place_N.max() + 1, n_cells))
        np.add.at(negative_GC, place_N[~is_k], one_NC[~is_k])
        below_GC = np.cumsum(negative_GC, axis=0) - negative_GC / 2  # ties count half
        won_KCC[k] = one_NC[is_k].T @ below_GC[place_N[is_k]]
        positive_CK[:, k] = one_NC[is_k].sum(0)

    def area_of(weight_DC: Array) -> Array:
        positive_DK = weight_DC @ positive_CK
        pairs_DK = positive_DK * (positive_DK.sum(1, keepdims=True) - positive_DK)
        won_DK = np.stack([np.einsum("dc,dc->d", weight_DC @ won_CC, weight_DC) for won_CC in won_KCC], axis=1)
        return _mean_area(won_DK, pairs_DK)

    return area_of


def _areas_by_trials(
    probability_NK: Array, label_N: NDArray[np.int64], cell_N: NDArray[np.int64], n_cells: int
) -> Callable[[Array], Array]:
    """The same where pairs of cells are too many: a draw and a class at a time, over sorted trials."""
    order_NK = np.argsort(probability_NK, axis=0, kind="stable")
    step_NK = np.diff(np.take_along_axis(probability_NK, order_NK, 0), axis=0, prepend=-np.inf) > 0
    first_K = [np.flatnonzero(step_N) for step_N in step_NK.T]  # of each run of equal scores

    def won_and_pairs(weight_N: Array, k: int) -> tuple[float, float]:
        order_N = order_NK[:, k]
        is_k, sorted_N = label_N[order_N] == k, weight_N[order_N]
        positive_G = np.add.reduceat(np.where(is_k, sorted_N, 0.0), first_K[k])
        negative_G = np.add.reduceat(np.where(is_k, 0.0, sorted_N), first_K[k])
        won = (positive_G * (np.cumsum(negative_G) - negative_G / 2)).sum()
        return float(won), float(positive_G.sum() * negative_G.sum())

    def area_of(weight_DC: Array) -> Array:
        found_DK2 = np.array([
            [won_and_pairs(weight_C[cell_N], k) for k in range(probability_NK.shape[1])] for weight_C in weight_DC
        ])  # fmt: skip
        return _mean_area(found_DK2[..., 0], found_DK2[..., 1])

    return area_of


def _mean_area(won_DK: Array, pairs_DK: Array) -> Array:
    """Over classes that occur beside others; one half where none does."""
    occurs_DK = pairs_DK > 0
    area_DK = np.where(occurs_DK, won_DK / np.where(occurs_DK, pairs_DK, 1.0), 0.0)
    n_D = occurs_DK.sum(1)
    return np.where(n_D > 0, area_DK.sum(1) / np.maximum(n_D, 1), 0.5)


def permute_units(
    label_N: NDArray[np.int64], unit_N: NDArray[np.int64]
) -> Callable[[np.random.Generator], NDArray[np.int64]]:
    """Exchange whole units (concepts, of one class each): new labels for all trials of a unit together."""
    units, first, index = np.unique(unit_N, return_index=True, return_inverse=True)
    of_unit = label_N[first]
    if np.any(of_unit[index] != label_N):
        raise ValueError(f"a unit of {len(units)} holds trials of several classes")
    return lambda rng: of_unit[rng.permutation(len(units))][index]


def permute_blocks(
    label_N: NDArray[np.int64], block_N: NDArray[np.int64]
) -> Callable[[np.random.Generator], NDArray[np.int64]]:
    """Exchange blocks of a continuous design: the blocks' label sequences are reordered and each is rotated.

    What follows what inside a block stays as it was, so slow drifts cannot pass for a class difference.
    `block_N` must be in recording order.
    """
    sequences = [label_N[block_N == block] for block in dict.fromkeys(block_N.tolist())]
    position = np.concatenate([np.flatnonzero(block_N == block) for block in dict.fromkeys(block_N.tolist())])

    def permute(rng: np.random.Generator) -> NDArray[np.int64]:
        parts = [np.roll(sequences[k], rng.integers(len(sequences[k]))) for k in rng.permutation(len(sequences))]
        dealt = np.empty_like(label_N)
        dealt[position] = np.concatenate(parts)
        return dealt

    return permute
