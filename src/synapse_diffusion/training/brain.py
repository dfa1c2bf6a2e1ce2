"""What a brain says of a picture's conditions: ridge regression from trials, calibrated on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.config import ReconstructSettings
from synapse_diffusion.errors import SettingsError
from synapse_diffusion.models.base import bin_width
from synapse_diffusion.models.ridge import RidgeDecoder, RidgePlan, plan_ridge
from synapse_diffusion.splits import VALIDATION
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.training.baselines import FIXED_PENALTIES, LINEAR
from synapse_diffusion.training.conditions import DOUBT, LOW, Axes, Conditions
from synapse_diffusion.training.decoding import FoldModels, network_names
from synapse_diffusion.training.examples import Asked, Batch, chunks, read
from synapse_diffusion.training.learner import LINEAR_TRIALS
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.trained import Trained

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
LEAST: Final = 1e-8
MANY: Final = 300  # differences between repeats, from which on each number has a share of noise of its own


@dataclass(frozen=True)
class Calibration:
    """Of each number of a prediction p = a c + m + n of the truth c: gain a, and three variances.

    `misfit_D` is what stays the same from repeat to repeat of a picture, `noise_D` what averaging takes away.
    """

    gain_D: Array
    truth_D: Array
    misfit_D: Array
    noise_D: Array

    @classmethod
    def fit(cls, predicted_ND: Floats, truth_ND: Floats, group_N: Index) -> Calibration:
        """From single trials of pictures that were not trained; `group_N`: of one picture and person."""
        p_ND, c_ND = (x - x.mean(0) for x in (predicted_ND.astype(float), truth_ND.astype(float)))
        truth_D = np.maximum(c_ND.var(0), LEAST)
        gain_D = np.maximum((p_ND * c_ND).mean(0) / truth_D, 0.0)
        rest_ND = p_ND - gain_D * c_ND
        all_D = np.maximum(rest_ND.var(0), LEAST)
        noise_D = all_D * _noise_share(rest_ND, group_N)
        return cls(gain_D, truth_D, all_D - noise_D, noise_D)

    def evidence(self, predicted_ND: NDArray[np.floating], k_N: NDArray[np.integer]) -> tuple[Array, Array]:
        """What means of k predictions tell of the truth (N, D), times its precision; and that precision (N, D)."""
        error_ND = self.misfit_D + self.noise_D / np.maximum(k_N, 1)[:, None]
        weight_ND = self.gain_D / np.maximum(error_ND, LEAST)
        return weight_ND * predicted_ND, weight_ND * self.gain_D

    @property
    def accuracy(self) -> Array:
        """Squared correlation of single predictions with the truth."""
        signal_D = self.gain_D**2 * self.truth_D
        return np.asarray(signal_D / np.maximum(signal_D + self.misfit_D + self.noise_D, LEAST))


def _noise_share(rest_ND: Array, group_N: Index) -> Array:
    """Of each number's variance (D,) what differs between repeats; of few repeats, the mean over all numbers.

    Where nothing was repeated nobody knows, and all counts as noise.
    """
    _, of_N, count_G = np.unique(group_N, return_inverse=True, return_counts=True)
    freedom = len(of_N) - len(count_G)
    if not freedom:
        return np.ones(rest_ND.shape[1])
    mean_GD = np.stack([np.bincount(of_N, rest_N) for rest_N in rest_ND.T], 1) / count_G[:, None]
    within_D = np.square(rest_ND - mean_GD[of_N]).sum(0) / freedom
    share_D = within_D / np.maximum(rest_ND.var(0), LEAST)
    return np.asarray(np.minimum(share_D if freedom >= MANY else np.full_like(share_D, share_D.mean()), 1.0))


@dataclass(frozen=True)
class Regression:
    """Of one modality: from trials to numbers of conditions."""

    models: FoldModels
    features: str
    ridge: RidgeDecoder
    calibration: Calibration

    def evidence(self, asked: Asked, *, other_person: bool) -> tuple[Array, Array]:
        """As `Calibration.evidence`, of decisions on this modality; with another person's weights, if asked."""
        [pick] = asked.picks.values()
        x_NCT, person_N = inputs(self.models, asked, self.features, other_person=other_person)
        return self.calibration.evidence(self.ridge.predict(x_NCT, person_N), pick.size_N)


@dataclass(frozen=True)
class Predictor:
    """A fold's regressions from trials to conditions, of each modality; noise of different recordings is independent.

    What one expects of the truth c of variance v, given what several tell of it with the precisions q, is
    sum(q c_told) / (1 / v + sum(q)).
    """

    regressions: Mapping[str, Regression]
    truth_D: Array
    axes: Mapping[str, Axes]
    spread_DD: Array
    """Covariance of what is expected of training pictures, in units of the pictures' vectors and coarse copies."""

    @property
    def is_pooled(self) -> bool:
        """Do all people share all weights, so that another's are the same?"""
        return all(r.features == "signal" and r.ridge.pooled for r in self.regressions.values())

    def predict(
        self, asked: Asked, *, other_person: bool = False, only: str = "", through: int = 0
    ) -> dict[str, Floats]:
        """Conditions (N, E) by name, and the doubt of the coarse copy's.

        With another person's weights; from one modality only; through a bottleneck of so many numbers (BrainBits, Mayo
        et al. 2024): the directions in which the regression varies most, as a regression of reduced rank has.
        """
        told = [
            regression.evidence(asked.of(name), other_person=other_person)
            for name, regression in self.regressions.items()
            if only in ("", name)
        ]
        out_ND, left_ND = self.expected(told)
        if through:
            units_D = _units(self.axes)
            into_DR = np.linalg.eigh(self.spread_DD)[1][:, ::-1][:, :through]
            kept_DD = into_DR @ into_DR.T
            out_ND = out_ND * units_D @ kept_DD / units_D
            share_D = np.diag(kept_DD @ self.spread_DD @ kept_DD) / np.maximum(np.diag(self.spread_DD), LEAST**2)
            left_ND = 1 - (1 - left_ND) * share_D.clip(0, 1)
        found = _split(out_ND.astype(np.float32), self.axes)
        if LOW in self.axes:
            found[DOUBT] = _split(left_ND.astype(np.float32), self.axes)[LOW]
        return found

    def expected(self, told: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
        """From each modality's evidence what one expects (N, D), and the share of the variance that is left."""
        precision_ND = 1 / self.truth_D + sum(q for _, q in told)
        return np.asarray(sum(t for t, _ in told) / precision_ND), np.asarray(1 / (self.truth_D * precision_ND))


def fit_predictor(
    trained: Trained, number: int, truth: EmbeddingTable, conditions: Conditions, settings: ReconstructSettings
) -> Predictor:
    """Fitted on the training trials of a fold's final decoders; penalty and calibration from validation trials, under
    a fit to what validation shares nothing with. `truth`: conditions of the target table's rows.

    Raises `SettingsError` for decoders' outputs of a fusion.
    """
    names = list(trained.setting.sources.of)
    if len(names) > 1 and settings.features == "decoder":
        raise SettingsError("reconstruct.features = 'decoder' is for runs of one modality; of a fusion take 'signal'")
    joined_KD = np.concatenate([truth.vectors[name] for name in conditions.axes], 1)
    found = {name: _fit(trained, number, name, joined_KD, conditions.axes, settings) for name in names}
    truth_D = np.mean([regression.calibration.truth_D for regression, _ in found.values()], 0)
    spread = [np.cov((expected_ND * _units(conditions.axes)).T) for _, expected_ND in found.values()]
    return Predictor({n: r for n, (r, _) in found.items()}, truth_D, conditions.axes, np.atleast_2d(sum(spread)))


def _fit(
    trained: Trained, number: int, name: str, joined_KD: Floats, axes: Mapping[str, Axes], settings: ReconstructSettings
) -> tuple[Regression, Array]:
    """A modality's regression, and what it expects of its training trials (N, D)."""
    weight_D = np.square(_units(axes))
    models = trained.models(number, final=False)
    asked = _asked(trained, name, trained.trained_rows(number, final=False))
    judged = _asked(trained, name, trained.rows(number, VALIDATION))
    x_NCT, person_N = inputs(models, asked, settings.features, folds=True)
    check_NCT, check_person_N = inputs(models, judged, settings.features)
    width, pooled = _shape(models, name, settings)
    group_N = _pictures(trained, judged)
    best: tuple[float, float, Calibration] | None = None
    plan = _plan(trained, name, x_NCT, joined_KD[asked.target_N], person_N, width, pooled)
    for penalty in FIXED_PENALTIES:
        predicted_ND = plan.fit((penalty,)).predict(check_NCT, check_person_N)
        calibration = Calibration.fit(predicted_ND, joined_KD[judged.target_N], group_N)
        score = float(weight_D @ calibration.accuracy)
        if best is None or score > best[0]:
            best = (score, penalty, calibration)
    assert best is not None
    final_models = trained.models(number, final=True)
    final = _asked(trained, name, trained.trained_rows(number, final=True))
    x_NCT, person_N = inputs(final_models, final, settings.features, folds=True)
    ridge = _plan(trained, name, x_NCT, joined_KD[final.target_N], person_N, width, pooled).fit((best[1],))
    told, precision = best[2].evidence(ridge.predict(x_NCT, person_N), np.ones(len(person_N), np.int64))
    return Regression(final_models, settings.features, ridge, best[2]), told / (1 / best[2].truth_D + precision)


@dataclass(frozen=True)
class LeftOut:
    """Of one modality: what regressions say of training trials of concepts that they were not fitted to (N, D)."""

    said_ND: Floats
    target_N: Index
    picture_N: Index
    """Equal: repeats of one picture."""
    k_N: Index
    """Of how many repeats this is the mean."""

    def means(self) -> LeftOut:
        """Of all repeats of each picture."""
        picture_G, first, of_N, k_G = np.unique(
            self.picture_N, return_index=True, return_inverse=True, return_counts=True
        )
        mean_GD = np.zeros((len(first), self.said_ND.shape[1]), np.float32)
        np.add.at(mean_GD, of_N, self.said_ND)
        mean_GD /= k_G[:, None].astype(np.float32)
        return LeftOut(mean_GD, self.target_N[first], picture_G, k_G)

    def only(self, at: Index) -> LeftOut:
        """Some rows."""
        return LeftOut(self.said_ND[at], self.target_N[at], self.picture_N[at], self.k_N[at])


def cross_fitted(
    trained: Trained, number: int, truth: EmbeddingTable, predictor: Predictor, conditions: Conditions, folds: int
) -> tuple[Floats, Floats, Index]:
    """What a brain says of pictures that its regression left out, their true conditions, and the parts that they are
    of: (N, E), (N, E), (N,).

    Of single training trials (of a fusion, pairs) and of means over all repeats of a picture (and person). Regressions
    are fitted anew for each of `folds` parts of the concepts, to the others: answers to own trials would be too sure.
    """
    joined_KD = np.concatenate([truth.vectors[name] for name in conditions.axes], 1)
    part_K = np.unique(truth.rows["concept"].to_numpy(dtype=str), return_inverse=True)[1] % folds
    single = {
        name: _left_out(trained, number, name, regression, joined_KD, part_K)
        for name, regression in predictor.regressions.items()
    }
    said, targets = [], []
    for found in (single, {name: one.means() for name, one in single.items()}):
        rows = _aligned(found)
        told = [r.calibration.evidence(rows[n].said_ND, rows[n].k_N) for n, r in predictor.regressions.items()]
        said.append(predictor.expected(told)[0].astype(np.float32))
        targets.append(next(iter(rows.values())).target_N)
    target_N = np.concatenate(targets)
    return np.concatenate(said), joined_KD[target_N].astype(np.float32), part_K[target_N]


def _left_out(
    trained: Trained, number: int, name: str, regression: Regression, joined_KD: Floats, part_K: Index
) -> LeftOut:
    """A modality's training trials under regressions to the other parts' concepts."""
    asked = _asked(trained, name, trained.trained_rows(number, final=True))
    x_NCT, person_N = inputs(regression.models, asked, regression.features, folds=True)
    ridge, part_N = regression.ridge, part_K[asked.target_N]
    out_ND = np.empty((len(asked), joined_KD.shape[1]), np.float32)
    for part in np.unique(part_N):
        mine, kept = part_N == part, part_N != part
        others = x_NCT[kept], joined_KD[asked.target_N[kept]], person_N[kept]
        fitted = _plan(trained, name, *others, ridge.width, ridge.pooled).fit((float(ridge.penalty_P[0]),))
        out_ND[mine] = fitted.predict(x_NCT[mine], person_N[mine])
    picture_N = asked.target_N if trained.setting.sources.is_fusion else _pictures(trained, asked)
    return LeftOut(out_ND, asked.target_N, picture_N, np.ones(len(asked), np.int64))


def _aligned(found: Mapping[str, LeftOut]) -> dict[str, LeftOut]:
    """Rows of several modalities dealt to each other by picture, none twice; of one as they are."""
    if len(found) == 1:
        return dict(found)
    rng = np.random.default_rng(0)
    chosen: dict[str, list[Index]] = {name: [] for name in found}
    for target in sorted(set.intersection(*(set(one.target_N.tolist()) for one in found.values()))):
        rows = {name: rng.permutation(np.flatnonzero(one.target_N == target)) for name, one in found.items()}
        n = min(len(own) for own in rows.values())
        for name, own in rows.items():
            chosen[name].append(own[:n])
    return {name: one.only(np.concatenate(chosen[name])) for name, one in found.items()}


def _shape(models: FoldModels, name: str, settings: ReconstructSettings) -> tuple[int, bool]:
    """Bin width, and whether all people share weights: as the linear baseline was chosen, where there is one."""
    if settings.features == "decoder":
        return 1, True
    baselines, shape = models.baselines[name], models.setting.shapes[name]
    if LINEAR not in baselines:
        pooled = shape.n_people == 1 or bool(models.setting.recipe.split.new_people)
        return bin_width(shape.n_sensors, shape.n_times, shape.sfreq), pooled
    choice = baselines[LINEAR].choice
    return choice.width, choice.pooled


def _plan(
    trained: Trained, name: str, x_NCT: Floats, y_ND: Floats, person_N: Index, width: int, pooled: bool
) -> RidgePlan:
    n_people = trained.setting.shapes[name].n_people
    return plan_ridge(x_NCT, y_ND, person_N, n_people, width, pooled=pooled)


def inputs(
    models: FoldModels, asked: Asked, features: str, *, other_person: bool = False, folds: bool = False
) -> tuple[Floats, Index]:
    """What is regressed from: scaled epochs (N, C, T), or decoder outputs (N, D, 1); and whose weights apply (N,).

    `folds`: of training trials, by the parts of the decoder that left their concepts out, where it has these.
    """
    [name] = asked.picks
    n_people = models.setting.sources.of[name].n_people
    x, people = [], []
    for at in chunks(len(asked)):
        batch = read(asked.part(at), models.data)
        person_B = batch.people[name]
        if other_person:
            person_B = (person_B + 1) % n_people
            batch = Batch(batch.signals, {name: person_B}, batch.present, batch.target_B)
        x.append(batch.signals[name].cpu().numpy() if features == "signal" else _outputs(models, batch, folds=folds))
        people.append(person_B.cpu().numpy())
    return np.concatenate(x), np.concatenate(people)


@torch.no_grad()
def _outputs(models: FoldModels, batch: Batch, *, folds: bool) -> Floats:
    """Outputs (N, D, 1) of the decoder's members, their mean."""
    total = []
    for learner in models.networks[network_names(models.setting)[0]]:
        fold_B = learner.objective.folds(batch.target_B) if folds else None
        out = learner.network(batch.signals, batch.people, batch.present, fold_B)
        total.append(out[learner.network.main].float())
    return np.asarray(torch.stack(total).mean(0).cpu().numpy()[:, :, None], dtype=np.float32)


def _asked(trained: Trained, name: str, rows: Mapping[str, Index]) -> Asked:
    """A modality's single trials, at most as many as linear paths are solved from."""
    mine = rows[name]
    rng = np.random.default_rng([trained.setting.recipe.train.seed, len(mine)])
    some = mine[np.sort(rng.permutation(len(mine))[:LINEAR_TRIALS])]
    return trained.setting.single(name, some, trained.setting.task.of[name].target_N[some])


def _pictures(trained: Trained, asked: Asked) -> Index:
    [(name, pick)] = asked.picks.items()
    trials = trained.setting.sources.of[name].trials.iloc[pick.rows]
    key = trials["person"].to_numpy(dtype=str).astype(object) + "/" + trials["image_id"].to_numpy(dtype=str)
    return np.unique(key.astype(str), return_inverse=True)[1]


def _units(axes: Mapping[str, Axes]) -> Array:
    """How much a picture's vector, or its coarse copy, changes with each number: roots of shares of the variance."""
    squared = [np.square(a.back_ED.astype(float)).sum(1) for a in axes.values()]
    return np.asarray(np.sqrt(np.concatenate([s / s.sum() for s in squared])))


def _split(out_ND: Floats, axes: Mapping[str, Axes]) -> dict[str, Floats]:
    ends = np.cumsum([a.into_DE.shape[1] for a in axes.values()])
    return dict(zip(axes, np.split(out_ND, ends[:-1], axis=1), strict=True))
