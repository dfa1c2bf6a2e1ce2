"""Which pictures are alike in the brain's responses: dissimilarities, their models, and how reliable responses are.

Kriegeskorte, Mur & Bandettini 2008; distances by cross-validation after Walther et al. 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from synapse_diffusion.metrics.dynamics import chance_limit, max_statistic_p

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
Metric = Literal["correlation", "cosine", "euclidean", "sqeuclidean"]


def rdm(x_ND: Floats, metric: Metric = "correlation") -> Array:
    """Dissimilarities (N, N) of rows: 1 - r, 1 - cosine, distance, squared distance."""
    return np.asarray(squareform(pdist(np.asarray(x_ND, dtype=np.float64), metric)))


def cross_validated_rdm(first_KCT: Floats, second_KCT: Floats) -> Array:
    """Squared distances (T, K, K) of images, from mean responses (K, C, T) to two separate halves of their trials.

    The inner product over sensors of a difference in one half with that in the other, over C: noise adds
    nothing on average, so that 0 is no difference and values may be negative. With whitened sensors it is the squared
    Mahalanobis distance (crossnobis).
    """
    first_TKC, second_TKC = (np.moveaxis(np.asarray(x, dtype=np.float64), 2, 0) for x in (first_KCT, second_KCT))
    inner_TKK = first_TKC @ second_TKC.transpose(0, 2, 1)
    own_TK = np.diagonal(inner_TKK, axis1=1, axis2=2)
    squared_TKK = own_TK[:, :, None] + own_TK[:, None] - inner_TKK - inner_TKK.transpose(0, 2, 1)
    return np.asarray(squared_TKK / first_TKC.shape[2])


def rsa(brain_TKK: Floats, model_KK: Floats, permutations: int, rng: np.random.Generator) -> tuple[Array, Array, float]:
    """Spearman correlation (T,) of the brain's dissimilarities with a model's, its family-wise p (T,), `chance_limit`.

    A permutation deals the model's images anew, rows and columns together: the pairs are not exchangeable, as
    they share images. p is one-sided against the largest over time, NaN without permutations.
    """
    upper = np.triu_indices(len(model_KK), 1)
    rank_KK = squareform(_standard(rankdata(np.asarray(model_KK)[upper])))
    brain_TM = np.stack([_standard(rankdata(brain_KK[upper])) for brain_KK in brain_TKK])
    observed_T = brain_TM @ rank_KK[upper]
    if not permutations:
        return observed_T, np.full(len(observed_T), np.nan), float("nan")
    null_PT = np.empty((permutations, len(observed_T)))
    for row in null_PT:
        order_K = rng.permutation(len(model_KK))
        row[:] = brain_TM @ rank_KK[order_K][:, order_K][upper]
    return observed_T, max_statistic_p(observed_T, null_PT), chance_limit(null_PT)


def _standard(x_M: Array) -> Array:
    """Centred, of length one; zeros where all are equal."""
    centred_M = x_M - x_M.mean()
    return np.asarray(centred_M / max(float(np.linalg.norm(centred_M)), 1e-12))


def split_half_reliability(groups: Sequence[Floats], draws: int, rng: np.random.Generator) -> Array:
    """Reliability (T,) of mean responses, from each image's trials (r, C, T), all r of them in the mean.

    The correlation, over images and sensors, of the means of two random halves, after each sensor's mean over images is
    taken from each half: what all images share counts for nothing. Averaged over draws, then stepped up to the whole
    by Spearman and Brown, 2 r / (1 + r). Images of equally many trials are divided alike, by their order: where each
    sequence shows every image once, drifts would else make an image's halves opposite. Of an odd number of trials one
    is left out of each draw. Raises `ValueError` for fewer than two images, or an image of fewer than two trials.
    """
    if len(groups) < 2 or min(len(group) for group in groups) < 2:
        raise ValueError("split halves need two images or more, of two trials or more each")
    shape = groups[0].shape[1:]
    sum_HDCT = np.zeros((2, draws, *shape))
    product_HHDT = np.zeros((2, 2, draws, shape[1]))
    dealt: dict[int, Array] = {}
    for group in groups:
        half = len(group) // 2
        if len(group) not in dealt:
            sign_R = np.repeat([0, 1, 2], [half, half, len(group) - 2 * half])
            dealt[len(group)] = rng.permuted(np.tile(sign_R, (draws, 1)), axis=1)
        which_DR = dealt[len(group)]
        flat = np.asarray(group, dtype=np.float64).reshape(len(group), -1)
        mean_HDCT = np.stack([((which_DR == h) / half @ flat).reshape(draws, *shape) for h in (0, 1)])
        sum_HDCT += mean_HDCT
        product_HHDT += np.einsum("gdct,hdct->ghdt", mean_HDCT, mean_HDCT)
    product_HHDT -= np.einsum("gdct,hdct->ghdt", sum_HDCT, sum_HDCT) / len(groups)
    spread_DT = np.sqrt(np.maximum(product_HHDT[0, 0] * product_HHDT[1, 1], 1e-300))
    r_T = (product_HHDT[0, 1] / spread_DT).mean(0)
    return np.asarray(2 * r_T / (1 + r_T))
