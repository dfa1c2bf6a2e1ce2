"""Ridge regression from time-binned signals to vectors, e.g. image embeddings: the linear baseline for those.

In closed form from one eigendecomposition for all penalties (Hoerl & Kennard 1970); the penalty is the one with the
smallest leave-one-out error, which needs no second fit (Allen's PRESS, in Golub, Heath & Wahba 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synapse_diffusion.models.linear import binned

PENALTIES: Final = tuple(10.0 ** (k / 2) for k in range(-6, 7))


@dataclass(frozen=True)
class RidgeDecoder:
    """Weights on time-binned sensors, one set a person or one for all."""

    width: int
    """Samples a time bin."""
    weight_PFD: NDArray[np.float32]
    bias_PD: NDArray[np.float32]
    penalty_P: NDArray[np.float64]
    """Chosen, in units of a feature's mean sum of squares."""
    pooled: bool

    def predict(self, x_NCT: NDArray[np.float32], person_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors (N, D) for scaled epochs (N, C, T)."""
        features_NF = binned(x_NCT, self.width)
        who = np.zeros_like(person_N) if self.pooled else person_N
        out_ND = np.empty((len(features_NF), self.bias_PD.shape[1]), np.float32)
        for p in np.unique(who):
            out_ND[who == p] = features_NF[who == p] @ self.weight_PFD[p] + self.bias_PD[p]
        return out_ND


def plan_ridge(
    x_NCT: NDArray[np.float32],
    y_ND: NDArray[np.float32],
    person_N: NDArray[np.int64],
    n_people: int,
    width: int,
    *,
    pooled: bool,
) -> RidgePlan:
    """Ridge from binned scaled epochs (N, C, T) to vectors (N, D), the intercept free: all that no penalty changes.

    Raises `ValueError` for a person of fewer than two trials.
    """
    features_NF = binned(x_NCT, width).astype(np.float64)
    who = np.zeros_like(person_N) if pooled else person_N
    problems = []
    for p in range(1 if pooled else n_people):
        mine = who == p
        if mine.sum() < 2:
            raise ValueError(f"person {p} has {int(mine.sum())} trials; ridge needs two or more")
        problems.append(RidgeProblem(features_NF[mine], y_ND[mine].astype(np.float64), np.ones(int(mine.sum()))))
    return RidgePlan(width, problems, pooled)


@dataclass(frozen=True)
class RidgePlan:
    """Ridge before a penalty is chosen; several are tried for little more than one."""

    width: int
    problems: Sequence[RidgeProblem]
    pooled: bool

    def fit(self, penalties: Sequence[float] = PENALTIES) -> RidgeDecoder:
        """With the penalty of the smallest leave-one-out error; one alone is taken as given.

        Trials that share signal (overlapping windows) make leave-one-out choose too small a penalty: there, fit one
        penalty after the other and choose on validation.
        """
        fits = [problem.fit(penalties) for problem in self.problems]
        weight_PFD = np.stack([fit.weight_FD for fit in fits]).astype(np.float32)
        bias_PD = np.stack([fit.bias_D for fit in fits]).astype(np.float32)
        return RidgeDecoder(self.width, weight_PFD, bias_PD, np.array([fit.penalty for fit in fits]), self.pooled)


@dataclass(frozen=True)
class RidgeFit:
    """One ridge regression from F inputs to D outputs."""

    weight_FD: NDArray[np.float64]
    bias_D: NDArray[np.float64]
    penalty: float
    leverage_N: NDArray[np.float64]
    """Of each row on its own prediction: residual / (1 - leverage) is its residual under the fit to all others."""


class RidgeProblem:
    """Inputs (N, F) and outputs (N, D) decomposed once, for a fit under any penalty.

    A row of weight n counts like n equal rows, which are left out together.
    """

    def __init__(self, x_NF: NDArray[np.float64], y_ND: NDArray[np.float64], weight_N: NDArray[np.float64]) -> None:
        self.weight_N, self.total = weight_N, float(weight_N.sum())
        self.mean_F, self.mean_D = weight_N @ x_NF / self.total, weight_N @ y_ND / self.total
        root_N1 = np.sqrt(weight_N)[:, None]
        x_NF, y_ND = root_N1 * (x_NF - self.mean_F), root_N1 * (y_ND - self.mean_D)
        self.unit = max(float(np.square(x_NF).sum()) / x_NF.shape[1], np.finfo(float).tiny)
        # x = u diag(sqrt(squared)) v': by way of the smaller of the two covariances
        wide = x_NF.shape[1] > len(x_NF)
        squared_R, vectors = np.linalg.eigh(x_NF @ x_NF.T if wide else x_NF.T @ x_NF)
        kept = squared_R > squared_R[-1] * 1e-12
        self.squared_R, vectors = squared_R[kept], vectors[:, kept]
        u_NR = vectors if wide else x_NF @ vectors / np.sqrt(self.squared_R)
        self.v_FR = x_NF.T @ vectors / np.sqrt(self.squared_R) if wide else vectors
        self.target_RD = u_NR.T @ y_ND
        self.square_NR = np.square(u_NR)
        self.u32_NR, self.target32_RD, self.y32_ND = (
            values.astype(np.float32) for values in (u_NR, self.target_RD, y_ND)
        )  # enough to choose by

    def fit(self, penalties: Sequence[float]) -> RidgeFit:
        """The fit whose penalty has the smallest leave-one-out error; one alone is taken as given."""
        best = min(penalties, key=self._left_out) if len(penalties) > 1 else penalties[0]
        shrunk_R1 = (np.sqrt(self.squared_R) / (self.squared_R + best * self.unit))[:, None]
        weight_FD = self.v_FR @ (shrunk_R1 * self.target_RD)
        return RidgeFit(weight_FD, self.mean_D - self.mean_F @ weight_FD, float(best), self._leverage(best))

    def _leverage(self, penalty: float) -> NDArray[np.float64]:
        share_R = self.squared_R / (self.squared_R + penalty * self.unit)
        return np.asarray(np.minimum(self.square_NR @ share_R + self.weight_N / self.total, 1 - 1e-9))  # and intercept

    def _left_out(self, penalty: float) -> float:
        """Mean squared error of each row under the fit to all others."""
        share_R = (self.squared_R / (self.squared_R + penalty * self.unit)).astype(np.float32)
        residual_ND = self.y32_ND - self.u32_NR @ (share_R[:, None] * self.target32_RD)
        error_N = np.square(residual_ND).mean(1, dtype=np.float64)
        return float(np.mean(error_N / (1 - self._leverage(penalty)) ** 2))
