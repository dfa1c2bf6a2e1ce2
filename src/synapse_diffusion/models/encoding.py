"""Identification by an encoding model: which image's predicted response is likeliest, given what was recorded.

Ridge regression from image vectors to whole responses, and Gaussian noise whose covariance comes from what the
regression leaves (Kay et al. 2008, Nature; likelihoods as in Schoenmakers et al. 2013). A decoder regresses the other
way; the two see different errors, and their sum is often better than either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from synapse_diffusion.models.linear import binned
from synapse_diffusion.models.ridge import PENALTIES, solve_ridge


@dataclass(frozen=True)
class EncodingDecoder:
    """Predicted responses and noise, one set a person or one for all; F = sensors x time bins."""

    width: int
    """Samples a time bin."""
    weight_PDF: NDArray[np.float32]
    bias_PF: NDArray[np.float32]
    precision_PFF: NDArray[np.float32]
    """Inverse covariance of single trials around the prediction."""
    pooled: bool

    def scores(
        self, x_NCT: NDArray[np.float32], person_N: NDArray[np.int64], gallery_KD: NDArray[np.float32], k_repeats: int
    ) -> NDArray[np.float64]:
        """Log likelihood (N, K) up to a constant a row, of scaled epochs (N, C, T), each a mean of `k_repeats`."""
        features_NF = binned(x_NCT, self.width)
        who = np.zeros_like(person_N) if self.pooled else person_N
        out_NK = np.empty((len(features_NF), len(gallery_KD)))
        for p in np.unique(who):
            predicted_KF = gallery_KD @ self.weight_PDF[p] + self.bias_PF[p]
            weighted_KF = (predicted_KF @ self.precision_PFF[p]).astype(np.float64)
            half_K = 0.5 * np.einsum("kf,kf->k", weighted_KF, predicted_KF)
            out_NK[who == p] = k_repeats * (features_NF[who == p].astype(np.float64) @ weighted_KF.T - half_K)
        return out_NK


def fit_encoding(
    x_NCT: NDArray[np.float32],
    y_ND: NDArray[np.float32],
    person_N: NDArray[np.int64],
    n_people: int,
    width: int,
    *,
    pooled: bool,
    penalties: Sequence[float] = PENALTIES,
) -> EncodingDecoder:
    """Fit to scaled epochs (N, C, T) of images with vectors (N, D); the penalty by leave-one-out.

    The noise is taken from leave-one-out residuals, so that it holds the prediction's own error, and shrunk (Ledoit &
    Wolf 2004). Raises `ValueError` for a person of fewer than two trials.
    """
    features_NF = binned(x_NCT, width).astype(np.float64)
    who = np.zeros_like(person_N) if pooled else person_N
    fits = []
    for p in range(1 if pooled else n_people):
        mine = who == p
        if mine.sum() < 2:
            raise ValueError(f"person {p} has {int(mine.sum())} trials; an encoding model needs two or more")
        fits.append(_fit(y_ND[mine].astype(np.float64), features_NF[mine], penalties))
    weight, bias, precision = (np.stack(parts).astype(np.float32) for parts in zip(*fits, strict=True))
    return EncodingDecoder(width, weight, bias, precision, pooled)


def _fit(
    y_ND: NDArray[np.float64], features_NF: NDArray[np.float64], penalties: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    weight_DF, bias_F, penalty = solve_ridge(y_ND, features_NF, penalties)
    centred_ND = y_ND - y_ND.mean(0)
    gram_DD = centred_ND.T @ centred_ND
    unit = max(float(np.trace(gram_DD)) / len(gram_DD), np.finfo(float).tiny)
    inverse_DD = linalg.inv(gram_DD + penalty * unit * np.eye(len(gram_DD)))
    leverage_N = np.einsum("nd,de,ne->n", centred_ND, inverse_DD, centred_ND, optimize=True) + 1 / len(y_ND)
    residual_NF = (features_NF - y_ND @ weight_DF - bias_F) / np.maximum(1 - leverage_N, 1e-3)[:, None]
    covariance_FF = residual_NF.T @ residual_NF / len(residual_NF)
    shrinkage = _ledoit_wolf(residual_NF, covariance_FF)
    shrunk_FF = (1 - shrinkage) * covariance_FF
    shrunk_FF[np.diag_indices_from(shrunk_FF)] += shrinkage * np.trace(covariance_FF) / len(covariance_FF) + 1e-9
    return weight_DF, bias_F, linalg.inv(shrunk_FF)


def _ledoit_wolf(residual_NF: NDArray[np.float64], covariance_FF: NDArray[np.float64]) -> float:
    """Shrinkage intensity of Ledoit & Wolf 2004, equation 14, for centred rows."""
    squared = np.square(covariance_FF).sum()
    distance = squared - np.trace(covariance_FF) ** 2 / len(covariance_FF)
    fourth = np.square(np.square(residual_NF).sum(1)).mean()
    return float(np.clip((fourth - squared) / len(residual_NF) / max(distance, 1e-30), 0.0, 1.0))
