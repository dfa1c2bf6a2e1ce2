"""The linear baseline: shrinkage LDA, with its own choices made on validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

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
        prior = np.full(n_classes, 1.0 / n_classes)
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=prior)
        lda.fit(features_NF[rows], label_N[rows])
        weight, bias = lda.coef_.T, lda.intercept_
        if n_classes == 2:  # scikit-learn keeps the difference of the two classes
            weight = np.concatenate([np.zeros_like(weight), weight], axis=1)
            bias = np.concatenate([np.zeros(1), bias])
        weights.append(weight)
        biases.append(bias)
    return LinearDecoder(width, np.stack(weights).astype(np.float32), np.stack(biases).astype(np.float32), pooled)


def binned(x_NCT: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Mean of `width` neighbouring samples, flattened: (N, C * (T // width))."""
    n, c, t = x_NCT.shape
    return np.asarray(x_NCT[:, :, : t // width * width].reshape(n, c, t // width, width).mean(-1).reshape(n, -1))
