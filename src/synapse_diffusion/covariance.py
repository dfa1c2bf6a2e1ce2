"""Covariances that can be inverted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ledoit_wolf(centred_NF: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance (F, F) of centred rows, shrunk towards a multiple of the identity (Ledoit & Wolf 2004, equation 14).

    What `sklearn.covariance.ledoit_wolf` says. The fourth moments are summed by rows, which takes a negligible time;
    scikit-learn multiplies the squares as matrices, twice what the covariance itself takes.
    """
    n, n_features = centred_NF.shape
    covariance_FF = centred_NF.T @ centred_NF / n
    scale = float(np.trace(covariance_FF)) / n_features
    squared = float(np.sum(covariance_FF**2))
    distance = squared - n_features * scale**2
    fourth = float(np.mean(np.sum(centred_NF**2, 1) ** 2))
    shrinkage = min(1.0, max(0.0, (fourth - squared) / n / distance)) if distance > 0 else 0.0
    covariance_FF *= 1 - shrinkage
    covariance_FF.flat[:: n_features + 1] += shrinkage * scale
    return np.asarray(covariance_FF)
