"""Scaling and whitening of epochs, fitted on training trials only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.covariance import ledoit_wolf

MAX_ROWS: Final = 60_000  # samples for a covariance of at most some hundred sensors: its error is below 1 %
RANK_TOLERANCE: Final = 1e-6  # of the largest eigenvalue; the average reference takes one dimension away


@dataclass(frozen=True)
class Scaler:
    """An affine map of the sensors: `x -> matrix (x - offset)`."""

    offset_C: NDArray[np.float32]
    matrix_CC: NDArray[np.float32]


def fit_scaler(x_NCT: NDArray[np.float32], groups: NDArray[np.int64], method: str, rng: np.random.Generator) -> Scaler:
    """Fit on training epochs (N, C, T) of one person and session.

    `robust`: median and interquartile range (as a standard deviation) a sensor. `mvnn`: whitening by the
    Ledoit-Wolf covariance of what is left after each group's mean course (groups: concepts or classes), the
    multivariate noise normalisation of Guggenmos et al. 2018 for images that are shown once. `none`: volts to
    the overall standard deviation, one factor for all sensors.
    """
    n_sensors = x_NCT.shape[1]
    rows = x_NCT.transpose(0, 2, 1).reshape(-1, n_sensors)
    chosen = rng.permutation(len(rows))[:MAX_ROWS]
    if method == "robust":
        low, middle, high = np.percentile(rows[chosen], [25, 50, 75], axis=0)
        return Scaler(middle.astype(np.float32), np.diag(1.0 / _positive((high - low) / 1.349)).astype(np.float32))
    offset = rows[chosen].mean(0, dtype=np.float64)
    if method == "none":
        factor = 1.0 / float(_positive(np.asarray([rows[chosen].std()]))[0])
        return Scaler(np.zeros(n_sensors, np.float32), np.eye(n_sensors, dtype=np.float32) * np.float32(factor))
    residual = x_NCT.astype(np.float64)
    for group in np.unique(groups):
        members = groups == group
        if members.sum() > 1:
            residual[members] -= residual[members].mean(0)
        else:
            residual[members] -= x_NCT.mean(0)
    flat = residual.transpose(0, 2, 1).reshape(-1, n_sensors)[chosen]
    return Scaler(offset.astype(np.float32), whitening(flat).astype(np.float32))


def whitening(residual_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse square root of the shrunk covariance, zero in directions that the reference removed."""
    scale = _positive(residual_NC.std(0))
    covariance = ledoit_wolf(residual_NC / scale)
    values, vectors = np.linalg.eigh(covariance)
    sample_values = np.linalg.eigvalsh(np.atleast_2d(np.cov(residual_NC.T / scale[:, None])))
    lost = int(np.sum(sample_values < RANK_TOLERANCE * sample_values[-1]))
    inverse = 1.0 / np.sqrt(np.maximum(values, RANK_TOLERANCE * values[-1]))
    inverse[:lost] = 0.0
    return np.asarray((vectors * inverse) @ vectors.T / scale)


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values > 0, values, 1.0)
