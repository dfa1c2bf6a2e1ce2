"""When a difference can be read: linear decoders of one time bin each, on scaled epochs (N trials, C sensors, T times).

Bins hold `width` neighbouring samples, their mean; T' bins, a rest at the end is left out. Chance of all curves is one
half. King & Dehaene 2014 on the training time x test time matrix; Nichols & Holmes 2002 on the largest statistic.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from scipy.stats import rankdata

from synapse_diffusion.covariance import ledoit_wolf
from synapse_diffusion.metrics.classification import auc
from synapse_diffusion.metrics.retrieval import ranks

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
PENALTIES: Final = tuple(10.0 ** (k / 2) for k in range(-6, 7))  # of ridge, in units of the mean variance


def bins(x_NCT: Floats, width: int) -> tuple[Array, Array]:
    """Means of `width` samples, time first (T', N, C), and each bin's centre as an index of samples (T',)."""
    n, n_sensors, n_times = x_NCT.shape
    if not 0 < width <= n_times:
        raise ValueError(f"a bin of {width} samples does not fit epochs of {n_times}")
    n_bins = n_times // width
    mean_NCT = x_NCT[:, :, : n_bins * width].reshape(n, n_sensors, n_bins, width).mean(3, dtype=np.float64)
    return np.ascontiguousarray(mean_NCT.transpose(2, 0, 1)), np.arange(n_bins) * width + (width - 1) / 2


def lda_by_bin(train_TNC: Array, label_N: Labels) -> tuple[Array, Array]:
    """Weights (T', C, K) and biases (T', K) of shrinkage LDA (Ledoit & Wolf 2004), classes equally likely.

    Raises `ValueError` for a class of fewer than two trials.
    """
    count_K = np.bincount(label_N)
    if count_K.min() < 2:
        raise ValueError(f"class {count_K.argmin()} has {count_K.min()} training trials; two or more are needed")
    mean_KN = (np.arange(len(count_K))[:, None] == label_N) / count_K[:, None]
    weights, biases = [], []
    for x_NC in train_TNC:
        mean_KC = mean_KN @ x_NC
        within_CC = ledoit_wolf(x_NC - mean_KC[label_N])
        weight_CK = np.linalg.solve(within_CC, mean_KC.T)
        weights.append(weight_CK)
        biases.append(-0.5 * np.einsum("kc,ck->k", mean_KC, weight_CK))
    return np.stack(weights), np.stack(biases)


def lda_log_probability(train_NCT: Floats, train_label_N: Labels, test_NCT: Floats, width: int) -> tuple[Array, Array]:
    """Log probabilities (T', N, K) of test trials under each bin's decoder, and the bins' centres (T',)."""
    train_TNC, centre_T = bins(train_NCT, width)
    weight_TCK, bias_TK = lda_by_bin(train_TNC, train_label_N)
    score_TNK = bins(test_NCT, width)[0] @ weight_TCK + bias_TK[:, None]
    return np.asarray(log_softmax(score_TNK, axis=2)), centre_T


def time_resolved(
    train_NCT: Floats, train_label_N: Labels, test_NCT: Floats, test_label_N: Labels, width: int
) -> tuple[Array, Array]:
    """Area under the ROC curve (T',) on test trials of decoders of one bin each, and the bins' centres (T',)."""
    score_TNK, centre_T = lda_log_probability(train_NCT, train_label_N, test_NCT, width)
    return np.array([auc(score_NK, test_label_N) for score_NK in score_TNK]), centre_T


def temporal_generalisation(
    train_NCT: Floats, train_label_N: Labels, test_NCT: Floats, test_label_N: Labels, width: int
) -> tuple[Array, Array]:
    """Areas (T' of training, T' of test), the same fits as `time_resolved`, its curve on the diagonal; the centres."""
    train_TNC, centre_T = bins(train_NCT, width)
    test_TNC, _ = bins(test_NCT, width)
    rows = [
        [auc(log_softmax(score_NK, axis=1), test_label_N) for score_NK in test_TNC @ weight_CK + bias_K]
        for weight_CK, bias_K in zip(*lda_by_bin(train_TNC, train_label_N), strict=True)
    ]
    return np.array(rows), centre_T


def null_areas(score_TNK: Array, label_N: Labels, unit_N: Labels, permutations: int, rng: np.random.Generator) -> Array:
    """Areas (permutations, T') with the test trials' labels dealt anew among units (concepts, of one class each).

    No fit is repeated: decoders saw training trials only. All times share a permutation, so the largest over time is
    a fair null. Equal units and an equal `rng` give equal permutations: nulls of several people may be averaged.
    """
    n_classes = score_TNK.shape[2]
    units, first_U, index_N = np.unique(unit_N, return_index=True, return_inverse=True)
    label_U, count_U = label_N[first_U], np.bincount(index_N).astype(float)
    if np.any(label_U[index_N] != label_N):
        raise ValueError(f"one of {len(units)} units holds trials of several classes")
    dealt_PU = label_U[rng.permuted(np.tile(np.arange(len(units)), (permutations, 1)), axis=1)]
    total_PT, defined_P1 = np.zeros((permutations, len(score_TNK))), np.zeros((permutations, 1))
    for k in range(n_classes):
        rank_UT = np.stack([np.bincount(index_N, weights=rankdata(of_NK[:, k])) for of_NK in score_TNK], axis=1)
        mine_PU = (dealt_PU == k).astype(float)
        positive_P1 = (mine_PU @ count_U)[:, None]
        pairs_P1 = positive_P1 * (len(label_N) - positive_P1)
        area_PT = (mine_PU @ rank_UT - positive_P1 * (positive_P1 + 1) / 2) / np.maximum(pairs_P1, 1)
        total_PT += np.where(pairs_P1 > 0, area_PT, 0.0)
        defined_P1 += pairs_P1 > 0
    return np.asarray(total_PT / np.maximum(defined_P1, 1))


def ridge_scores(
    train_NCT: Floats, target_ND: Floats, test_NCT: Floats, gallery_KD: Floats, width: int
) -> tuple[Array, Array]:
    """Cosines (T', N, K) between vectors predicted from one bin each and the gallery's, and the bins' centres (T',).

    The training targets' mean is taken from both. The penalty of each bin is the one with the smallest
    generalised cross-validation error on training trials (Golub, Heath & Wahba 1979).
    """
    train_TNC, centre_T = bins(train_NCT, width)
    mean_D = target_ND.mean(0, dtype=np.float64)
    gallery_KD = _unit(gallery_KD - mean_D)
    scores = []
    for x_NC, test_NC in zip(train_TNC, bins(test_NCT, width)[0], strict=True):
        mean_C = x_NC.mean(0)
        weight_CD = _ridge(x_NC - mean_C, np.asarray(target_ND - mean_D, dtype=np.float64))
        scores.append(_unit((test_NC - mean_C) @ weight_CD) @ gallery_KD.T)
    return np.stack(scores), centre_T


def _unit(x_ND: Array) -> Array:
    return np.asarray(x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12))


def _ridge(x_NC: Array, y_ND: Array) -> Array:
    """Weights (C, D) of centred data; residuals and degrees of freedom of all penalties from one eigendecomposition."""
    square_C, vector_CC = np.linalg.eigh(x_NC.T @ x_NC)
    square_C = np.maximum(square_C, 0.0)
    along_CD = vector_CC.T @ (x_NC.T @ y_ND)
    explained_C = np.square(along_CD).sum(1) / np.maximum(square_C, square_C[-1] * 1e-12 + 1e-300)
    total, unit, n = float(np.square(y_ND).sum()), max(float(square_C.mean()), 1e-300), len(x_NC)

    def error(penalty: float) -> float:
        share_C = square_C / (square_C + penalty * unit)
        residual = total - float((explained_C * share_C * (2 - share_C)).sum())
        return residual / max(n - 1 - float(share_C.sum()), 1e-9) ** 2

    best = min(PENALTIES, key=error)
    return np.asarray(vector_CC @ (along_CD / (square_C + best * unit)[:, None]))


def time_resolved_ridge(
    train_NCT: Floats, target_ND: Floats, test_NCT: Floats, gallery_KD: Floats, truth_N: Labels, width: int
) -> tuple[Array, Array]:
    """Mean normalised rank (T',) of the true gallery row, 0 best, chance 0.5; and the bins' centres (T',)."""
    score_TNK, centre_T = ridge_scores(train_NCT, target_ND, test_NCT, gallery_KD, width)
    last = max(len(gallery_KD) - 1, 1)
    return np.array([ranks(score_NK, truth_N).mean() / last for score_NK in score_TNK]), centre_T


def null_ranks(score_TNK: Array, truth_N: Labels, permutations: int, rng: np.random.Generator) -> Array:
    """Mean normalised ranks (permutations, T') with the images that occur as truth dealt anew, each with its trials."""
    image_J, image_N = np.unique(truth_N, return_inverse=True)
    own_J = np.arange(len(image_J))
    dealt_PJ = rng.permuted(np.tile(own_J, (permutations, 1)), axis=1)
    mine_JN = (own_J[:, None] == image_N).astype(float)
    last = max(score_TNK.shape[2] - 1, 1)
    nulls = []
    for score_NK in score_TNK:
        sum_JJ = mine_JN @ (rankdata(-score_NK, axis=1)[:, image_J] - 1)
        nulls.append(sum_JJ[own_J, dealt_PJ].sum(1) / (last * len(truth_N)))
    return np.stack(nulls, axis=1)


def chance_limit(null_PT: Array, alpha: float = 0.05) -> float:
    """The value over which `max_statistic_p` is at most alpha: of chance's largest, anywhere, hardly one is larger."""
    largest_P = np.sort(null_PT.reshape(len(null_PT), -1).max(1))
    below = int(np.ceil((1 - alpha) * (1 + len(largest_P)) - 1e-9))
    return float(largest_P[below - 1]) if below <= len(largest_P) else float("inf")


def max_statistic_p(observed_T: Array, null_PT: Array) -> Array:
    """p of each place against the largest value anywhere in each permutation: family-wise error is held.

    Any axes after the first; larger is more: for ranks give 0.5 - rank on both sides. All places should have about one
    spread under the null, or those of small spread lose power.
    """
    largest_P = np.sort(null_PT.reshape(len(null_PT), -1).max(1))
    below_T = np.searchsorted(largest_P, np.asarray(observed_T) - 1e-12, side="left")
    return np.asarray((1 + len(largest_P) - below_T) / (1 + len(largest_P)))
