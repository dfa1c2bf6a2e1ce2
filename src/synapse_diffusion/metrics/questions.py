"""Yes/no questions about what was seen (27 categories that overlap): area under the ROC curve, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.metrics.classification import Score, scores_of
from synapse_diffusion.metrics.draws import CrossedDraws

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
CHUNK: Final = 2_000_000  # decisions x draws at once, 16 MB an array


def per_question(score_NQ: Floats, answer_NQ: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Area under the ROC curve (Q,) and average precision (Q,); NaN for a question with one answer only."""
    n, n_questions = score_NQ.shape
    found_Q2 = [
        _auc_and_precision(score_NQ[:, q], answer_NQ[None, :, q].astype(float), np.ones((1, n)), np.arange(n))[:, 0]
        for q in range(n_questions)
    ]
    area_Q, precision_Q = np.reshape(found_Q2, (n_questions, 2)).T
    return area_Q, precision_Q


def question_scores(
    score_NQ: Floats,
    answer_NQ: NDArray[np.bool_],
    unit_N: NDArray[np.int64],
    *,
    permutations: int,
    bootstrap: int,
    rng: np.random.Generator,
    people: Sequence[NDArray[np.int64]] = (),
) -> list[Score]:
    """`auc` and `average_precision`: means over the questions that have both answers; NaN if there is none.

    A permutation deals whole rows of answers anew among units (concepts): what goes with what among the questions,
    and among the trials of a concept, stays. Chance of average precision is its mean over permutations (near the
    share of yes). The interval draws units with replacement; a question that is left with one answer drops out of
    that draw's mean. So for the second interval, with the `people` (N,) whose trials these are. Raises `ValueError`
    where trials of a unit have different answers.
    """
    units, first_U, index_N = np.unique(unit_N, return_index=True, return_inverse=True)
    answer_UQ = answer_NQ[first_U]
    if np.any(answer_UQ[index_N] != answer_NQ):
        raise ValueError(f"trials of one of {len(units)} units differ in their answers")
    names, n, nan = ("auc", "average_precision"), len(score_NQ), float("nan")
    asked = np.flatnonzero(answer_UQ.any(0) & ~answer_UQ.all(0))
    if not len(asked):
        return [Score(name, nan, nan, nan, nan, nan, n) for name in names]
    dealt_PU = rng.permuted(np.tile(np.arange(len(units)), (permutations, 1)), axis=1)
    weight_DU = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=bootstrap).astype(float)
    once_1U = np.ones((1, len(units)))
    crossed = CrossedDraws.of(unit_N, people, bootstrap if people else 0, rng)
    observed_QM, null_QMP, drawn_QMD, wide_QMD = [], [], [], []
    for q in asked:
        score_N, answer_U = score_NQ[:, q], answer_UQ[:, q].astype(float)
        observed_QM.append(_auc_and_precision(score_N, answer_U[None], once_1U, index_N)[:, 0])
        null_QMP.append(_auc_and_precision(score_N, answer_U[dealt_PU], once_1U, index_N))
        drawn_QMD.append(_auc_and_precision(score_N, answer_U[None], weight_DU, index_N))
        answer_1C = answer_U[None, crossed.level_FC[0]]
        blocks = [_auc_and_precision(score_N, answer_1C, weight_DC, crossed.cell_N) for weight_DC in crossed]
        wide_QMD.append(np.concatenate([np.empty((2, 0)), *blocks], axis=1))
    observed_M, null_MP = np.mean(observed_QM, axis=0), np.mean(null_QMP, axis=0)
    p_M, chance_M = np.full(2, nan), np.array([0.5, answer_NQ[:, asked].mean()])
    if permutations:
        p_M = (1 + (null_MP >= observed_M[:, None] - 1e-12).sum(1)) / (1 + permutations)
        chance_M[1] = null_MP[1].mean()
    interval, wide = _interval(np.array(drawn_QMD)), _interval(np.array(wide_QMD))
    return scores_of(names, observed_M, chance_M, interval, p_M, n, wide)


def _interval(drawn_QMD: Array) -> tuple[Array, Array]:
    """Of the mean over the questions that a draw leaves with both answers."""
    defined_QMD = np.isfinite(drawn_QMD)
    some_D = defined_QMD[:, 0].any(0)
    if not some_D.any():
        return np.full(2, np.nan), np.full(2, np.nan)
    mean_MD = np.where(defined_QMD, drawn_QMD, 0.0).sum(0)[:, some_D] / defined_QMD.sum(0)[:, some_D]
    low_M, high_M = np.percentile(mean_MD, [2.5, 97.5], axis=1)
    return low_M, high_M


def _auc_and_precision(score_N: Floats, answer_PU: Array, weight_PU: Array, index_N: NDArray[np.int64]) -> Array:
    """(2, P) under P draws of the units' answers or weights, one of them perhaps one row for all, some at a time."""
    if np.isnan(score_N).any():
        raise ValueError("a score is NaN")
    order_N = np.argsort(-score_N, kind="stable")
    sorted_N, index_N = score_N[order_N], index_N[order_N]
    last_G = np.append(np.flatnonzero(sorted_N[1:] != sorted_N[:-1]), len(sorted_N) - 1)  # of each run of equal scores
    n_draws = 0 if 0 in (len(answer_PU), len(weight_PU)) else max(len(answer_PU), len(weight_PU))
    step = max(1, CHUNK // len(score_N))
    found = [np.empty((2, 0))]
    for start in range(0, n_draws, step):
        some = slice(start, start + step)
        answer_PN = (answer_PU if len(answer_PU) == 1 else answer_PU[some])[:, index_N]
        weight_PN = (weight_PU if len(weight_PU) == 1 else weight_PU[some])[:, index_N]
        true_PG = np.cumsum(answer_PN * weight_PN, axis=1)[:, last_G]
        found.append(_from_counts(true_PG, np.cumsum(weight_PN, axis=1)[:, last_G]))
    return np.concatenate(found, axis=1)


def _from_counts(true_PG: Array, all_PG: Array) -> Array:
    """(2, P) from the weight of true and of all yes at each threshold; NaN where one answer has none.

    The area by trapezoids, so that ties count half; average precision as scikit-learn defines it, the sum of
    precisions times steps of recall.
    """
    step_PG = np.diff(true_PG, axis=1, prepend=0.0)
    positive_P = true_PG[:, -1]
    negative_P = all_PG[:, -1] - positive_P
    false_PG = all_PG - true_PG
    false_PG = false_PG - np.diff(false_PG, axis=1, prepend=0.0) / 2  # midway between a threshold and the one before
    precision_P = np.einsum("pg,pg->p", step_PG, true_PG / np.maximum(all_PG, 1e-12)) / np.maximum(positive_P, 1e-12)
    area_P = 1 - np.einsum("pg,pg->p", step_PG, false_PG) / np.maximum(positive_P * negative_P, 1e-12)
    return np.where((positive_P > 0) & (negative_P > 0), np.stack([area_P, precision_P]), np.nan)
