"""Scores of classifications, their chance, p and interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from synapse_diffusion.metrics.draws import CrossedDraws, percentiles

Array = NDArray[np.float64]
METRICS: Final = ("balanced_accuracy", "accuracy", "macro_f1", "auc")


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
    return float(_auc_of_ranks(rankdata(score_NK, axis=0), np.eye(score_NK.shape[1])[label_N]))


def _auc_of_ranks(rank_NK: NDArray[np.float64], onehot_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mann-Whitney form; `onehot` may have leading axes."""
    n = onehot_NK.shape[-2]
    positive = onehot_NK.sum(-2)
    rank_sum = (rank_NK * onehot_NK).sum(-2)
    pairs = positive * (n - positive)
    area = (rank_sum - positive * (positive + 1) / 2) / np.maximum(pairs, 1.0)
    return np.asarray((area * (pairs > 0)).sum(-1) / np.maximum((pairs > 0).sum(-1), 1))


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
    eye = np.eye(n_classes)

    def all_scores(labels: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = from_confusion(confusion(labels, predicted_N, n_classes).astype(float))
        return np.array([*(float(counts[m]) for m in METRICS[:3]), float(_auc_of_ranks(rank_NK, eye[labels]))])

    observed = all_scores(label_N)
    null = np.array([all_scores(permute(rng)) for _ in range(permutations)]).reshape(permutations, len(METRICS))
    p = (1 + (null >= observed - 1e-12).sum(0)) / (1 + permutations) if permutations else np.full(len(METRICS), np.nan)
    dealt = null[:, 1:3].mean(0) if permutations else np.full(2, np.nan)
    chance = np.array([1.0 / n_classes, *dealt, 0.5])
    interval = percentiles(_bootstrap(probability_NK, label_N, _unit_weights(unit_N, bootstrap, rng)))
    crossed = CrossedDraws.of(unit_N, people, bootstrap if people else 0, rng)
    weights = (weight_C[crossed.cell_N] for weight_DC in crossed for weight_C in weight_DC)
    wide = percentiles(_bootstrap(probability_NK, label_N, weights))
    return scores_of(METRICS, observed, chance, interval, p, n, wide)


def _unit_weights(unit_N: NDArray[np.int64], n_draws: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Weights (N,) of draws of units with replacement."""
    units, unit_index = np.unique(unit_N, return_inverse=True)
    for _ in range(n_draws):
        weight_U = np.bincount(rng.integers(0, len(units), len(units)), minlength=len(units)).astype(float)
        yield weight_U[unit_index]


def _bootstrap(
    probability_NK: NDArray[np.float64], label_N: NDArray[np.int64], weights: Iterable[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Scores (draws, metrics) with what is drawn as weights (N,) of trials.

    Classes of which no unit is drawn drop out of that draw's means; drawing inside classes would give a class
    with one concept no spread at all.
    """
    n_classes = probability_NK.shape[1]
    predicted_N = probability_NK.argmax(1)
    cell_N = label_N * n_classes + predicted_N
    order_NK = np.argsort(probability_NK, axis=0, kind="stable")
    step_NK = np.diff(np.take_along_axis(probability_NK, order_NK, 0), axis=0, prepend=-np.inf) > 0
    first_K = [np.flatnonzero(step_N) for step_N in step_NK.T]  # of each run of equal scores
    out = []
    for weight_N in weights:
        counts = np.bincount(cell_N, weights=weight_N, minlength=n_classes**2).astype(float)
        scores = from_confusion(counts.reshape(n_classes, n_classes))
        out.append([*(float(scores[m]) for m in METRICS[:3]), _weighted_auc(order_NK, first_K, label_N, weight_N)])
    return np.array(out).reshape(len(out), len(METRICS))


def _weighted_auc(
    order_NK: NDArray[np.int64], first_K: Sequence[NDArray[np.int64]], label_N: NDArray[np.int64], weight_N: Array
) -> float:
    """As `auc`, of weighted trials."""
    areas = []
    for k in range(order_NK.shape[1]):
        order = order_NK[:, k]
        positive = np.where(label_N[order] == k, weight_N[order], 0.0)
        negative = np.where(label_N[order] == k, 0.0, weight_N[order])
        pairs = positive.sum() * negative.sum()
        if len(first_K[k]) < len(order):  # ties count half
            positive, negative = np.add.reduceat(positive, first_K[k]), np.add.reduceat(negative, first_K[k])
        if pairs > 0:
            areas.append(float((positive * (np.cumsum(negative) - negative / 2)).sum() / pairs))
    return float(np.mean(areas)) if areas else 0.5


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
