"""Where linear paths begin: closed-form maps, fitted once for each fold of the concepts without that fold.

A map that was fitted to a training trial knows that trial's noise, and answers it better than any new one; whatever is
trained beside it then learns next to nothing. A training trial is therefore answered by the map that has not seen its
concept (cross-fitting, as in stacking: Wolpert 1992, Breiman 1996), a new trial by the mean of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

FOLDS: Final = 5
PENALTIES: Final = tuple(10.0 ** (k / 2) for k in range(-6, 9))
Name = TypeVar("Name")
LARGEST: Final = 512  # principal components of image vectors from which responses are predicted


@dataclass(frozen=True)
class Start:
    """Linear maps of features (F,) to outputs (D,): by person (or one for all), and without each fold."""

    weight_PJDF: Tensor
    bias_PJD: Tensor


@dataclass
class _Sums:
    """Over the trials of one person and fold."""

    n: int
    u_U: Tensor
    v_V: Tensor
    uu_UU: Tensor
    uv_UV: Tensor

    def plus(self, other: _Sums, sign: int) -> _Sums:
        """Both together, or this without the other."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Sums(*(a + sign * b for a, b in pairs))


class Moments:
    """Sums over trials from which U inputs are mapped to V outputs, by person and fold."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, int], _Sums] = {}

    def add(self, u_NU: Tensor, v_NV: Tensor, person_N: Tensor, fold_N: Tensor) -> None:
        """Count trials in."""
        for person, fold in torch.unique(torch.stack([person_N, fold_N], 1), dim=0).tolist():
            mine = (person_N == person) & (fold_N == fold)
            u, v = u_NU[mine], v_NV[mine]
            sums = (u.sum(0), v.sum(0), u.T @ u, u.T @ v)
            new = _Sums(len(u), *(value.double().cpu() for value in sums))
            old = self._of.get((person, fold))
            self._of[person, fold] = new if old is None else old.plus(new, 1)

    @property
    def people(self) -> list[int]:
        """Those that were counted."""
        return sorted({person for person, _ in self._of})

    def parts(self, person: int, fold: int) -> tuple[_Centred, _Centred]:
        """A person's sums without a fold, and of that fold, both around the former's means."""
        mine = {k: sums for (p, k), sums in self._of.items() if p == person}
        first, *more = [sums for k, sums in mine.items() if k != fold] or list(mine.values())
        for sums in more:
            first = first.plus(sums, 1)
        u_U, v_V = first.u_U / first.n, first.v_V / first.n
        held = mine.get(fold, first.plus(first, -1))
        return _centred(first, u_U, v_V), _centred(held, u_U, v_V)


@dataclass(frozen=True)
class _Centred:
    uu_UU: Tensor
    uv_UV: Tensor
    u_U: Tensor
    v_V: Tensor


def _centred(sums: _Sums, u_U: Tensor, v_V: Tensor) -> _Centred:
    """Products of differences from the given means."""
    uu = sums.uu_UU - torch.outer(sums.u_U, u_U) - torch.outer(u_U, sums.u_U) + sums.n * torch.outer(u_U, u_U)
    uv = sums.uv_UV - torch.outer(sums.u_U, v_V) - torch.outer(u_U, sums.v_V) + sums.n * torch.outer(u_U, v_V)
    return _Centred(uu, uv, u_U, v_V)


class _Path:
    """Ridge regression under every penalty, from one eigendecomposition (Hoerl & Kennard 1970)."""

    def __init__(self, uu_UU: Tensor, uv_UV: Tensor) -> None:
        self._value_U, self._vector_UU = torch.linalg.eigh(uu_UU)
        self._target_UV = self._vector_UU.T @ uv_UV
        self._unit = self._value_U.clamp_min(0).mean().clamp_min(torch.finfo(torch.float64).tiny)

    def weights(self, penalty: float) -> Tensor:
        """(U, V); the penalty is in units of an input's mean sum of squares."""
        shrunk_U1 = (self._value_U.clamp_min(0) + penalty * self._unit)[:, None]
        found: Tensor = self._vector_UU @ (self._target_UV / shrunk_U1)
        return found

    def errors(self, uu_UU: Tensor, uv_UV: Tensor) -> NDArray[np.float64]:
        """Of each penalty: squared error on trials with these sums, less what no weights change."""
        rotated_UU, rotated_UV = self._vector_UU.T @ uu_UU @ self._vector_UU, self._vector_UU.T @ uv_UV
        cross_UU, target_UU = rotated_UV @ self._target_UV.T, self._target_UV @ self._target_UV.T
        found = []
        for penalty in PENALTIES:
            factor_U = 1 / (self._value_U.clamp_min(0) + penalty * self._unit)
            square = (rotated_UU * target_UU * torch.outer(factor_U, factor_U)).sum()
            found.append(float(square - 2 * (factor_U * cross_UU.diagonal()).sum()))
        return np.array(found)


def cross_fit(moments: Moments, folds: int) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
    """By person and left-out fold: weights (U, V) and the means (U,), (V,) that they go between.

    First one map for all people, then each person's departure from it; both penalties have the smallest error on the
    concepts of the left-out folds, and where no departure helps there is none.
    """
    people = moments.people
    shared_K = _shared(moments, folds)
    errors = np.zeros(len(PENALTIES))
    for person in people if len(people) > 1 else ():
        for k, shared_UV in enumerate(shared_K):
            _, held = moments.parts(person, k)
            errors += _departure(moments, person, k, shared_UV).errors(held.uu_UU, held.uv_UV - held.uu_UU @ shared_UV)
    penalty = PENALTIES[int(errors.argmin())]
    out = []
    for person in people:
        mine = []
        for k, shared_UV in enumerate(shared_K):
            kept, _ = moments.parts(person, k)
            own = _departure(moments, person, k, shared_UV).weights(penalty) if errors.min() < 0 else 0.0
            mine.append((shared_UV + own, kept.u_U, kept.v_V))
        out.append(mine)
    return out


def _departure(moments: Moments, person: int, fold: int, shared_UV: Tensor) -> _Path:
    """From what the shared map leaves over of a person's responses."""
    kept, _ = moments.parts(person, fold)
    return _Path(kept.uu_UU, kept.uv_UV - kept.uu_UU @ shared_UV)


def _shared(moments: Moments, folds: int) -> list[Tensor]:
    """One map for all people, without each fold."""
    errors, paths = np.zeros(len(PENALTIES)), []
    for k in range(folds):
        parts = [moments.parts(person, k) for person in moments.people]
        paths.append(_Path(_sum(kept.uu_UU for kept, _ in parts), _sum(kept.uv_UV for kept, _ in parts)))
        errors += paths[-1].errors(_sum(held.uu_UU for _, held in parts), _sum(held.uv_UV for _, held in parts))
    penalty = PENALTIES[int(errors.argmin())]
    return [path.weights(penalty) for path in paths]


def _sum(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum(0)


def ridge_start(moments: Moments, folds: int) -> Start:
    """From features (U) to target vectors (V), one map for all people."""
    weights, biases = [], []
    for weight_UV, u_U, v_V in cross_fit(moments, folds)[0]:
        weights.append(weight_UV.T)
        biases.append(v_V - u_U @ weight_UV)
    return Start(torch.stack(weights)[None].float(), torch.stack(biases)[None].float())


def encoding_starts(moments: Mapping[Name, Moments], folds: int, width: int) -> tuple[Tensor, dict[Name, Start]]:
    """A space of `width` numbers that images and responses share, from image vectors (U) to features (V) of decoders.

    A linear Gaussian model of responses to images, x = W e + n with n white, finds the image by the inner product of
    x with W e (Kay et al. 2008). With W = U S V' over all decoders' and people's features together, the `width` largest
    singular values give both sides: the map of images (U, width) returned first, and of each person's features, which
    is the least-squares fit of that person's W. The shared space is then the reduced-rank regression of responses.
    """
    fits = {name: cross_fit(of, folds) for name, of in moments.items()}
    mean_W = [_sum(w for w, _, _ in person) / folds for people in fits.values() for person in people]
    value_U, vector_UU = torch.linalg.eigh(_sum(w @ w.T for w in mean_W) / len(mean_W))
    kept = value_U.argsort(descending=True)[:width]
    size_R = value_U[kept].clamp_min(value_U.max() * 1e-12).sqrt()
    image_UR = vector_UU[:, kept] * size_R
    image_UR = image_UR * torch.where(image_UR.sum(0) < 0, -1.0, 1.0)  # of two equal solutions always the same
    image_UR = functional.pad(image_UR, (0, width - image_UR.shape[1]))  # fewer inputs than that: zeros
    inverse_UR = image_UR / image_UR.square().sum(0).clamp_min(value_U.max() * 1e-12)
    starts = {}
    for name, people in fits.items():
        weights, biases = [], []
        for person in people:
            maps = [(w.T @ inverse_UR).T for w, _, _ in person]
            weights.append(torch.stack(maps))
            biases.append(torch.stack([-m @ (v - w.T @ u) for m, (w, u, v) in zip(maps, person, strict=True)]))
        starts[name] = Start(torch.stack(weights).float(), torch.stack(biases).float())
    return image_UR, starts


def principal_axes(vector_ND: Tensor, most: int = LARGEST) -> tuple[Tensor, Tensor]:
    """The `most` largest principal axes (D, E) of centred vectors that vary at all, and their singular values (E,).

    From the smaller of the two covariances; of large tables by random projection with four power iterations (Halko,
    Martinsson & Tropp 2011).
    """
    vector = vector_ND.double().cpu()
    if min(vector.shape) > 4 * max(most, LARGEST):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, size_E, axes_DE = torch.svd_lowrank(vector.float(), q=most, niter=4)
            return axes_DE.double(), size_E.double()
    wide = vector.shape[1] > len(vector)
    value_E, basis = torch.linalg.eigh(vector @ vector.T if wide else vector.T @ vector)
    kept = value_E.argsort(descending=True)[:most]
    kept = kept[value_E[kept] > 1e-12 * value_E.max()]
    size_E = value_E[kept].sqrt()
    return (vector.T @ basis[:, kept] / size_E if wide else basis[:, kept]), size_E


def folds_of(concepts: Sequence[str]) -> NDArray[np.int64]:
    """A fold for each row (N,): all rows of a concept have one."""
    names, concept_N = np.unique(np.asarray(concepts, dtype=str), return_inverse=True)
    dealt = np.random.default_rng(0).permutation(len(names)) % FOLDS
    return np.asarray(dealt[concept_N], dtype=np.int64)
