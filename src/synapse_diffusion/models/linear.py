"""The linear baseline: shrinkage LDA, with its own choices made on validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from synapse_diffusion.covariance import ledoit_wolf

BIN_RATES_HZ: Final = (16.0, 32.0, 64.0)
MAX_FEATURES: Final = 2048
MAX_TRIALS: Final = 20_000  # a covariance of 2,048 features is known well enough from these


@dataclass(frozen=True)
class LinearDecoder:
    """Weights on time-binned sensors, one set a person or one for all (person `-1`)."""

    width: int
    """Samples a time bin."""
    weight_PFK: NDArray[np.float32]
    bias_PK: NDArray[np.float32]
    pooled: bool

    def log_probability(self, x_NCT: NDArray[np.float32], person_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log class probabilities (N, K) of scaled epochs (N, C, T)."""
        features_NF = binned(x_NCT, self.width)
        who = np.zeros_like(person_N) if self.pooled else person_N
        score = np.empty((len(features_NF), self.bias_PK.shape[1]))
        for p in np.unique(who):
            score[who == p] = features_NF[who == p] @ self.weight_PFK[p] + self.bias_PK[p]
        return np.asarray(score - np.logaddexp.reduce(score, axis=1, keepdims=True))


def bin_widths(n_sensors: int, n_times: int, sfreq: float) -> list[int]:
    """Bin widths in samples that the baseline tries, none with more than `MAX_FEATURES` features."""
    widths = []
    for rate in BIN_RATES_HZ:
        width = max(1, round(sfreq / rate))
        while n_sensors * (n_times // width) > MAX_FEATURES and width < n_times:
            width += 1
        widths.append(min(width, n_times))
    return sorted(set(widths))


def fit_linear(
    x_NCT: NDArray[np.float32],
    label_N: NDArray[np.int64],
    person_N: NDArray[np.int64],
    n_classes: int,
    n_people: int,
    width: int,
    *,
    pooled: bool,
) -> LinearDecoder | None:
    """Shrinkage LDA (Ledoit-Wolf) on binned epochs, equal class priors; None for a class of fewer than two trials."""
    features_NF = binned(x_NCT, width)
    who = np.zeros_like(person_N) if pooled else person_N
    weights, biases = [], []
    for p in range(1 if pooled else n_people):
        rows = np.flatnonzero(who == p)[:MAX_TRIALS]
        if np.bincount(label_N[rows], minlength=n_classes).min() < 2:
            return None
        weight_FK, bias_K = shrinkage_lda(features_NF[rows].astype(np.float64), label_N[rows], n_classes)
        weights.append(weight_FK)
        biases.append(bias_K)
    return LinearDecoder(width, np.stack(weights).astype(np.float32), np.stack(biases).astype(np.float32), pooled)


def shrinkage_lda(
    x_NF: NDArray[np.float64], label_N: NDArray[np.int64], n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (F, K) and biases (K,) of scikit-learn's LDA (`solver="lsqr"`, `shrinkage="auto"`), equal class priors.

    Its pooled covariance is the mean over classes of Ledoit and Wolf's (2004) of standardised features. It is solved by
    Cholesky's decomposition where scikit-learn takes a singular value decomposition of it: 2,048 features in a
    twentieth of the time.
    """
    mean_KF = np.stack([x_NF[label_N == k].mean(0) for k in range(n_classes)])
    pooled_FF = np.zeros((x_NF.shape[1], x_NF.shape[1]))
    for k in range(n_classes):
        centred_NF = x_NF[label_N == k] - mean_KF[k]
        scale_F = centred_NF.std(0)
        scale_F[scale_F == 0] = 1.0
        pooled_FF += ledoit_wolf(centred_NF / scale_F) * np.outer(scale_F, scale_F) / n_classes
    pooled_FF += np.eye(len(pooled_FF)) * (1e-12 * np.trace(pooled_FF) / len(pooled_FF) + np.finfo(float).tiny)
    weight_FK = cho_solve(cho_factor(pooled_FF, overwrite_a=True, check_finite=False), mean_KF.T, check_finite=False)
    return weight_FK, -0.5 * (mean_KF.T * weight_FK).sum(0) - np.log(n_classes)


def binned(x_NCT: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Mean of `width` neighbouring samples, flattened: (N, C * (T // width))."""
    n, c, t = x_NCT.shape
    return np.asarray(x_NCT[:, :, : t // width * width].reshape(n, c, t // width, width).mean(-1).reshape(n, -1))
