"""Identification by an encoding model: which image's predicted response fits the measured one best.

A linear map from image vectors to responses with Gaussian noise of known covariance turns around by Bayes' rule
(Kay et al. 2008, Naselaris et al. 2011, Schoenmakers et al. 2013): the noise of sensors and time points is judged
jointly, which a regression from responses to vectors, compared by cosine, cannot do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array

from synapse_diffusion.covariance import ledoit_wolf
from synapse_diffusion.models.linear import MAX_TRIALS, binned
from synapse_diffusion.models.ridge import PENALTIES, RidgeFit, RidgeProblem


@dataclass(frozen=True)
class EncodingDecoder:
    """Image vectors -> time-binned sensors, and what whitens the residuals; one set a person or one for all."""

    width: int
    """Samples a time bin."""
    weight_PDF: NDArray[np.float32]
    bias_PF: NDArray[np.float32]
    whiten_PFF: NDArray[np.float32]
    """Residuals times it are independent with variance one: inverse transposed Cholesky factor of their covariance."""
    penalty_P: NDArray[np.float64]
    """Chosen, in units of an image feature's mean sum of squares."""
    pooled: bool

    def scores(
        self,
        x_NCT: NDArray[np.float32],
        person_N: NDArray[np.int64],
        gallery_KD: NDArray[np.float32],
        k_repeats: int = 1,
    ) -> NDArray[np.float64]:
        """Log likelihood (N, K) of scaled epochs (N, C, T), each a mean of `k_repeats`, under each gallery image.

        Up to a constant a row: minus half the squared whitened distance from the predicted response, `k_repeats`-fold.
        """
        features_NF = binned(x_NCT, self.width)
        who = np.zeros_like(person_N) if self.pooled else person_N
        out_NK = np.empty((len(features_NF), len(gallery_KD)))
        for p in np.unique(who):
            # differences from the mean response: what all images share says nothing and would cost digits
            measured_NF = ((features_NF[who == p] - self.bias_PF[p]) @ self.whiten_PFF[p]).astype(np.float64)
            predicted_KF = ((gallery_KD @ self.weight_PDF[p]) @ self.whiten_PFF[p]).astype(np.float64)
            half_K = 0.5 * np.square(predicted_KF).sum(1)
            out_NK[who == p] = k_repeats * (measured_NF @ predicted_KF.T - half_K)
        return out_NK


def plan_encoding(
    x_NCT: NDArray[np.float32],
    y_ND: NDArray[np.float32],
    person_N: NDArray[np.int64],
    n_people: int,
    width: int,
    *,
    pooled: bool,
) -> EncodingPlan:
    """Ridge from image vectors (N, D) to binned scaled epochs (N, C, T), and its residuals' Ledoit-Wolf covariance.

    All of it that no penalty changes. Rows of equal vectors are repeats of one image and are left out together, both to
    choose the penalty and for the residuals, which so hold the error of the prediction beside the noise. Raises
    `ValueError` for a person with trials of fewer than two images.
    """
    features_NF = binned(x_NCT, width).astype(np.float64)
    who = np.zeros_like(person_N) if pooled else person_N
    people = []
    for p in range(1 if pooled else n_people):
        image_MD, image_N = _images(y_ND[who == p])
        if len(image_MD) < 2:
            raise ValueError(f"person {p} has trials of {len(image_MD)} images; an encoding model needs two or more")
        people.append(_Shown(features_NF[who == p], image_MD.astype(np.float64), image_N))
    return EncodingPlan(width, people, pooled)


class _Shown:
    """One person's responses (N, F) to images (M, D), of which trial n showed the `image_N[n]`-th."""

    def __init__(self, mine_NF: NDArray[np.float64], image_MD: NDArray[np.float64], image_N: NDArray[np.int64]) -> None:
        count_M = np.bincount(image_N).astype(np.float64)
        ones = csr_array((np.ones(len(image_N)), (image_N, np.arange(len(image_N)))))
        self.image_MD, self.image_N = image_MD, image_N
        self.mean_MF = np.asarray(ones @ mine_NF) / count_M[:, None]
        self.around_NF = (mine_NF - self.mean_MF[image_N])[:MAX_TRIALS]
        self.problem = RidgeProblem(image_MD, self.mean_MF, count_M)

    def fit(self, penalties: Sequence[float]) -> tuple[RidgeFit, NDArray[np.float64]]:
        """The regression, and what whitens its residuals."""
        fit = self.problem.fit(penalties)
        left_out_MF = (self.mean_MF - self.image_MD @ fit.weight_FD - fit.bias_D) / (1 - fit.leverage_N)[:, None]
        return fit, _whitening(self.around_NF + left_out_MF[self.image_N[:MAX_TRIALS]])


@dataclass(frozen=True)
class EncodingPlan:
    """An encoding model before a penalty is chosen; several are tried for little more than one."""

    width: int
    people: Sequence[_Shown]
    pooled: bool

    def fit(self, penalties: Sequence[float] = PENALTIES) -> EncodingDecoder:
        """With the penalty of the smallest leave-one-out error; one alone is taken as given."""
        fits = [person.fit(penalties) for person in self.people]
        return EncodingDecoder(
            self.width,
            np.stack([fit.weight_FD for fit, _ in fits]).astype(np.float32),
            np.stack([fit.bias_D for fit, _ in fits]).astype(np.float32),
            np.stack([whiten_FF for _, whiten_FF in fits]).astype(np.float32),
            np.array([fit.penalty for fit, _ in fits]),
            self.pooled,
        )


def _images(y_ND: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The different rows (M, D), and which of them each row is (N,)."""
    _, first_M, image_N = np.unique(y_ND[:, 0], return_index=True, return_inverse=True)
    if np.array_equal(y_ND[first_M][image_N], y_ND):  # one number tells them apart, as it nearly always does
        return y_ND[first_M], image_N
    image_MD, image_N = np.unique(y_ND, axis=0, return_inverse=True)
    return image_MD, image_N.ravel()


def _whitening(residual_NF: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse transposed Cholesky factor (F, F) of the shrunk covariance of residuals around zero."""
    covariance_FF = ledoit_wolf(residual_NF)
    identity_FF = np.eye(len(covariance_FF))
    return np.asarray(solve_triangular(np.linalg.cholesky(covariance_FF), identity_FF, lower=True).T)
