"""Transductive: predicted vectors turned onto a gallery's by an orthogonal map that is found without labels."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import polar

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
TEMPERATURE: Final = 0.5  # of standardised scores, in the plan
ROUNDS: Final = 10
SINKHORN_STEPS: Final = 30
QUANTILES: Final = 50  # of a vector's inner products with the others, by which shapes are compared
MARGIN: Final = 1.3  # by how much the start by shape must fit better, or the vectors stay near where they are


def align(predicted_ND: Floats, gallery_KD: Floats) -> Array:
    """Scores (N, K) of predicted vectors with the gallery's after the best orthogonal map of the former.

    Who belongs to whom is guessed by Sinkhorn's transport plan, the map is Procrustes' for that guess, and so on by
    turns (Wasserstein-Procrustes: Grave, Joulin & Berthet 2019, section 3; Conneau et al. 2018, section 2.2; Xu et al.
    2018). It begins at no map at all, and at the map by which the two clouds have the same shape (Artetxe, Labaka &
    Agirre 2018, section 3.2); the second is kept where it fits clearly better. A prior as strong as the data holds the
    map near its start: as many vectors as dimensions can be turned onto any others.
    Uses all decisions at once, and presumes that each image of the gallery is true equally often.
    """
    x_NE, gallery_KE = _in_span(predicted_ND, gallery_KD)
    starts = [np.eye(gallery_KE.shape[1])]
    if min(len(x_NE), len(gallery_KE)) > 2:
        starts.append(_by_shape(x_NE, gallery_KE))
    found = [_refined(x_NE, gallery_KE, start_EE) for start_EE in starts]
    best = found[1] if len(found) > 1 and found[1][1] > MARGIN * found[0][1] else found[0]
    return np.asarray(x_NE @ best[0] @ gallery_KE.T)


def _in_span(predicted_ND: Floats, gallery_KD: Floats) -> tuple[Array, Array]:
    """Both by the gallery's own axes, of which there are no more than images: what lies outside moves no score."""
    _, singular, axes = np.linalg.svd(np.asarray(gallery_KD, dtype=np.float64), full_matrices=False)
    axes_DE = axes[singular > 1e-6 * singular[0]].T
    return np.asarray(predicted_ND @ axes_DE, dtype=np.float64), np.asarray(gallery_KD @ axes_DE, dtype=np.float64)


def _refined(x_NE: Array, gallery_KE: Array, start_EE: Array) -> tuple[Array, float]:
    """The map by turns from a start, and the mean inner product of what the plan brings together."""
    map_EE = start_EE
    for _ in range(ROUNDS):
        plan_NK = _plan(x_NE @ map_EE @ gallery_KE.T)
        covariance_EE = x_NE.T @ (plan_NK @ gallery_KE)
        prior = float(np.linalg.norm(covariance_EE)) / np.sqrt(len(map_EE))
        map_EE = np.asarray(polar(covariance_EE + prior * start_EE)[0])  # Procrustes' (Schönemann 1966)
    score_NK = x_NE @ map_EE @ gallery_KE.T
    return map_EE, float((_plan(score_NK) * score_NK).sum(1).mean())


def _by_shape(x_NE: Array, gallery_KE: Array) -> Array:
    """The map for the plan between vectors that lie alike among their own."""
    levels = np.linspace(0, 1, QUANTILES)
    x_NQ, gallery_KQ = (np.quantile(v @ v.T, levels, axis=1).T for v in (x_NE, gallery_KE))
    square_NK = (x_NQ**2).sum(1)[:, None] + (gallery_KQ**2).sum(1) - 2 * x_NQ @ gallery_KQ.T
    return np.asarray(polar(x_NE.T @ (_plan(-5 * square_NK) @ gallery_KE))[0])


def _plan(score_NK: Array) -> Array:
    """Shares (N, K), rows of sum 1, of the entropic transport plan (Cuturi 2013) of standardised scores."""
    z_NK = score_NK - score_NK.mean(1, keepdims=True)
    z_NK = z_NK / max(float(z_NK.std()) * TEMPERATURE, 1e-12)
    kernel_NK = np.exp(z_NK - z_NK.max(1, keepdims=True))
    right_K = np.ones(score_NK.shape[1])
    for _ in range(SINKHORN_STEPS):
        left_N = 1 / np.maximum(kernel_NK @ right_K, 1e-300)
        right_K = 1 / np.maximum(left_N @ kernel_NK, 1e-300)
    plan_NK = kernel_NK * right_K
    return np.asarray(plan_NK / np.maximum(plan_NK.sum(1, keepdims=True), 1e-300))
