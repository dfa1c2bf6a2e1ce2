"""What a brain says of a picture's conditions: ridge regression from trials, calibrated on validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.config import ReconstructSettings
from synapse_diffusion.models.base import bin_width
from synapse_diffusion.models.ridge import RidgeDecoder, fit_ridge
from synapse_diffusion.splits import VALIDATION
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.training.baselines import FIXED_PENALTIES, LINEAR
from synapse_diffusion.training.conditions import Axes, Conditions
from synapse_diffusion.training.decoding import FoldModels, network_names
from synapse_diffusion.training.examples import Asked, Batch, chunks, read
from synapse_diffusion.training.learner import LINEAR_TRIALS
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.trained import Trained

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
LEAST: Final = 1e-8


@dataclass(frozen=True)
class Calibration:
    """Of each number of a prediction p = a c + m + n of the truth c: gain a, and three variances.

    `misfit_D` is what stays the same from repeat to repeat of a picture, `noise_D` what averaging takes away. What one
    expects of the truth, given the mean of k predictions, is slope(k) times it.
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
        _, of_N, count_G = np.unique(group_N, return_inverse=True, return_counts=True)
        mean_GD = np.stack([np.bincount(of_N, rest_ND[:, d]) for d in range(rest_ND.shape[1])], 1) / count_G[:, None]
        freedom = len(of_N) - len(count_G)
        all_D = rest_ND.var(0)
        noise_D = np.square(rest_ND - mean_GD[of_N]).sum(0) / freedom if freedom > len(count_G) // 4 else all_D
        return cls(gain_D, truth_D, np.maximum(all_D - noise_D, 0.0), np.minimum(noise_D, all_D))

    def slope(self, k_N: NDArray[np.integer]) -> Array:
        """(N, D) for means of k."""
        signal_D = self.gain_D**2 * self.truth_D
        total_ND = signal_D + self.misfit_D + self.noise_D / np.maximum(k_N, 1)[:, None]
        return np.asarray(self.gain_D * self.truth_D / np.maximum(total_ND, LEAST))

    @property
    def accuracy(self) -> Array:
        """Squared correlation of single predictions with the truth."""
        signal_D = self.gain_D**2 * self.truth_D
        return np.asarray(signal_D / np.maximum(signal_D + self.misfit_D + self.noise_D, LEAST))


@dataclass(frozen=True)
class Predictor:
    """A fold's regression from trials to conditions."""

    models: FoldModels
    features: str
    ridge: RidgeDecoder
    calibration: Calibration
    axes: Mapping[str, Axes]

    @property
    def is_pooled(self) -> bool:
        """Do all people share all weights, so that another's are the same?"""
        return self.ridge.pooled and self.features == "signal"

    def predict(self, asked: Asked, *, other_person: bool = False) -> dict[str, Floats]:
        """Conditions (N, E) by name; with another person's weights, if asked."""
        [name] = asked.picks
        x_NCT, person_N = inputs(self.models, asked, self.features, other_person=other_person)
        k_N = asked.picks[name].size_N
        out_ND = self.ridge.predict(x_NCT, person_N) * self.calibration.slope(k_N)
        return _split(out_ND.astype(np.float32), self.axes)


def fit_predictor(
    trained: Trained, number: int, truth: EmbeddingTable, conditions: Conditions, settings: ReconstructSettings
) -> Predictor:
    """Fitted on the training trials of a fold's final decoders; penalty and calibration from validation trials, under
    a fit to what validation shares nothing with. `truth`: conditions of the target table's rows."""
    joined_KD = np.concatenate([truth.vectors[name] for name in conditions.axes], 1)
    weight_D = np.concatenate([_importance(axes) for axes in conditions.axes.values()])
    models = trained.models(number, final=False)
    asked, choice_rows = _asked(trained, trained.trained_rows(number, final=False)), trained.rows(number, VALIDATION)
    judged = _asked(trained, choice_rows)
    x_NCT, person_N = inputs(models, asked, settings.features, folds=True)
    check_NCT, check_person_N = inputs(models, judged, settings.features)
    width, pooled = _shape(models, settings)
    group_N = _pictures(trained, judged)
    best: tuple[float, float, Calibration] | None = None
    for penalty in FIXED_PENALTIES:
        ridge = _ridge(trained, x_NCT, joined_KD[asked.target_N], person_N, width, pooled, penalty)
        predicted_ND = ridge.predict(check_NCT, check_person_N)
        calibration = Calibration.fit(predicted_ND, joined_KD[judged.target_N], group_N)
        score = float(weight_D @ calibration.accuracy)
        if best is None or score > best[0]:
            best = (score, penalty, calibration)
    assert best is not None
    final_models = trained.models(number, final=True)
    final = _asked(trained, trained.trained_rows(number, final=True))
    x_NCT, person_N = inputs(final_models, final, settings.features, folds=True)
    ridge = _ridge(trained, x_NCT, joined_KD[final.target_N], person_N, width, pooled, best[1])
    return Predictor(final_models, settings.features, ridge, best[2], conditions.axes)


def cross_fitted(
    trained: Trained, number: int, truth: EmbeddingTable, predictor: Predictor, conditions: Conditions, folds: int
) -> tuple[Floats, Floats, Index]:
    """What a brain says of pictures that its regression left out, their true conditions, and the parts that they are
    of: (N, E), (N, E), (N,).

    Of single training trials and of means over all repeats of a picture and person. The regression of `predictor` is
    fitted anew for each of `folds` parts of the concepts, to the others: answers to its own trials would be too sure.
    """
    joined_KD = np.concatenate([truth.vectors[name] for name in conditions.axes], 1)
    asked = _asked(trained, trained.trained_rows(number, final=True))
    x_NCT, person_N = inputs(predictor.models, asked, predictor.features, folds=True)
    concept_K = truth.rows["concept"].to_numpy(dtype=str)
    part_N = np.unique(concept_K, return_inverse=True)[1][asked.target_N] % folds
    penalty = float(predictor.ridge.penalty_P[0])
    out_ND = np.empty((len(asked), joined_KD.shape[1]), np.float32)
    for part in range(folds):
        mine, kept = part_N == part, part_N != part
        ridge = _ridge(
            trained, x_NCT[kept], joined_KD[asked.target_N[kept]], person_N[kept], predictor.ridge.width,
            predictor.ridge.pooled, penalty,
        )  # fmt: skip
        out_ND[mine] = ridge.predict(x_NCT[mine], person_N[mine])
    _, first, of_N, count_G = np.unique(
        _pictures(trained, asked), return_index=True, return_inverse=True, return_counts=True
    )
    mean_GD = np.zeros((len(first), out_ND.shape[1]), np.float32)
    np.add.at(mean_GD, of_N, out_ND)
    mean_GD /= count_G[:, None].astype(np.float32)
    slope = predictor.calibration.slope
    said = np.concatenate([out_ND * slope(np.ones(len(out_ND), np.int64)), mean_GD * slope(count_G)])
    true = np.concatenate([joined_KD[asked.target_N], joined_KD[asked.target_N[first]]])
    return said.astype(np.float32), true.astype(np.float32), np.concatenate([part_N, part_N[first]])


def _shape(models: FoldModels, settings: ReconstructSettings) -> tuple[int, bool]:
    """Bin width, and whether all people share weights: as the linear baseline was chosen, where there is one."""
    if settings.features == "decoder":
        return 1, True
    [baselines] = models.baselines.values()
    [shape] = models.setting.shapes.values()
    if LINEAR not in baselines:
        return bin_width(shape.n_sensors, shape.n_times, shape.sfreq), shape.n_people == 1
    choice = baselines[LINEAR].choice
    return choice.width, choice.pooled


def _ridge(
    trained: Trained, x_NCT: Floats, y_ND: Floats, person_N: Index, width: int, pooled: bool, penalty: float
) -> RidgeDecoder:
    [shape] = trained.setting.shapes.values()
    return fit_ridge(x_NCT, y_ND, person_N, shape.n_people, width, pooled=pooled, penalties=(penalty,))


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


def _asked(trained: Trained, rows: Mapping[str, Index]) -> Asked:
    """Single trials, at most as many as linear paths are solved from."""
    [(name, mine)] = rows.items()
    rng = np.random.default_rng([trained.setting.recipe.train.seed, len(mine)])
    some = mine[np.sort(rng.permutation(len(mine))[:LINEAR_TRIALS])]
    return trained.setting.single(name, some, trained.setting.task.of[name].target_N[some])


def _pictures(trained: Trained, asked: Asked) -> Index:
    [(name, pick)] = asked.picks.items()
    trials = trained.setting.sources.of[name].trials.iloc[pick.rows]
    key = trials["person"].to_numpy(dtype=str).astype(object) + "/" + trials["image_id"].to_numpy(dtype=str)
    return np.unique(key.astype(str), return_inverse=True)[1]


def _importance(axes: Axes) -> Array:
    """Share of the variance that each component has."""
    squared_E = np.square(axes.back_ED.astype(float)).sum(1)
    return np.asarray(squared_E / squared_E.sum())


def _split(out_ND: Floats, axes: Mapping[str, Axes]) -> dict[str, Floats]:
    ends = np.cumsum([a.into_DE.shape[1] for a in axes.values()])
    return dict(zip(axes, np.split(out_ND, ends[:-1], axis=1), strict=True))
