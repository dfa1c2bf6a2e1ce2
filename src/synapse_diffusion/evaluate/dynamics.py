"""What is decoded when: time-resolved scores, temporal generalisation, similarity structure, reliability.

All of one person at a time with linear decoders on time bins, then the mean over people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from synapse_diffusion.figures.scores import draw_generalisation, draw_time_course
from synapse_diffusion.metrics import (
    Score,
    chance_limit,
    cross_validated_rdm,
    lda_log_probability,
    max_statistic_p,
    null_areas,
    null_ranks,
    ranks,
    rdm,
    ridge_scores,
    rsa,
    split_half_reliability,
    temporal_generalisation,
)
from synapse_diffusion.metrics.classification import auc
from synapse_diffusion.runs import score_row
from synapse_diffusion.splits import TEST
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.baselines import plain_objective
from synapse_diffusion.training.data import ScaledEpochs
from synapse_diffusion.training.objectives import Images
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.trained import Trained
from synapse_diffusion.types import Progress

BIN_S: Final = 0.02
DRAWS: Final = 20
MOST_TRIALS: Final = 4000  # of training, a person: enough for one time bin
MEASURES: Final = {
    "auc": "area under the ROC curve, of each class against the rest",
    "rank_above_chance": "0.5 less the mean rank of the picture seen",
    "split_half_reliability": "split-half reliability",
    "similarity_to_targets": "correlation with the targets' dissimilarities",
}
"""Names of curves, and what stands at their axes."""


@dataclass(frozen=True)
class Curve:
    """A measure over time bins (T,): its values, their family-wise p, chance, and its `chance_limit`."""

    name: str
    value_T: NDArray[np.float64]
    p_T: NDArray[np.float64]
    chance: float
    limit: float

    @classmethod
    def of(cls, name: str, value_T: NDArray[np.float64], null: Sequence[NDArray[np.float64]], chance: float) -> Curve:
        """Against the mean over people of permutations (P, T) each; p and limit are NaN without any."""
        if not null:
            return cls(name, value_T, np.full(len(value_T), np.nan), chance, float("nan"))
        null_PT = np.mean(null, axis=0)
        return cls(name, value_T, max_statistic_p(value_T, null_PT), chance, chance_limit(null_PT))


@dataclass(frozen=True)
class _Person:
    """One person's scaled trials with targets, of training and of test."""

    train_NCT: NDArray[np.float32]
    train_N: Index
    test_NCT: NDArray[np.float32]
    test_N: Index
    image_N: NDArray[np.str_]
    unit_N: Index


def dynamics(trained: Trained, progress: Progress) -> list[dict[str, Any]]:
    """Curves over time into dynamics.tsv and figures, the largest value of each as a score row.

    Of the first fold (of one decoder a person, of each person's first); of a fusion for each modality. Only people with
    training trials of their own, two or more of each class, have curves. Contiguous blocks have no p: what is exchanged
    there are stretches, not concepts.
    """
    setting, rows, tables = trained.setting, [], []
    for modality, source in setting.sources.of.items():
        people = _people(trained, modality)
        if not people:
            continue
        width = max(1, round(BIN_S * source.epochs.sfreq))
        n_bins = source.epochs.n_times // width
        times_s = source.epochs.times[: n_bins * width].reshape(n_bins, width).mean(1)
        curves: list[Curve] = []
        progress(f"{modality}: time-resolved decoding", 0, 1)
        if setting.task.kind == "classify":
            curves.append(_areas(people, width, trained))
            matrix = np.mean(
                [temporal_generalisation(p.train_NCT, p.train_N, p.test_NCT, p.test_N, width)[0] for p in people],
                axis=0,
            )
            title = f"{setting.recipe.data.name}, {modality}: mean of {len(people)} people"
            draw_generalisation(
                times_s, matrix, 0.5, title, trained.run.folder / f"figures/generalisation_{modality}.png"
            )
            train_s, test_s = (axis.ravel().round(6) for axis in np.meshgrid(times_s, times_s, indexing="ij"))
            table = pd.DataFrame({"train_s": train_s, "test_s": test_s, "auc": matrix.ravel()})
            write_table(table, trained.run.folder / f"generalisation_{modality}.tsv")
        elif setting.task.kind == "retrieve":
            curves.append(_rank_gain(people, width, trained, modality))
        curves += _structure(people, width, trained)
        for curve in curves:
            name, value_T, p_T = curve.name, curve.value_T, curve.p_T
            tables.append(pd.DataFrame({
                "modality": modality, "measure": name, "time_s": times_s.round(6), "value": value_T, "p": p_T,
            }))  # fmt: skip
            best = int(np.nanargmax(value_T))
            score = Score(
                f"peak_{name}", float(value_T[best]), curve.chance, np.nan, np.nan, float(p_T[best]), len(people)
            )
            control = "shuffled_labels" if setting.recipe.labels.shuffled else "none"
            rows.append(score_row(score, task=setting.task.kind, split=TEST, modality=modality, model="linear",
                                  seed=setting.recipe.train.seed, control=control))  # fmt: skip
            draw_time_course(
                times_s, value_T, curve.chance, curve.limit, MEASURES[name],
                f"{setting.recipe.data.name}, {modality}: mean of {len(people)} people",
                trained.run.folder / f"figures/{name}_{modality}.png",
            )  # fmt: skip
    columns = ["modality", "measure", "time_s", "value", "p"]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    write_table(table, trained.run.folder / "dynamics.tsv")
    return rows


def _people(trained: Trained, modality: str) -> list[_Person]:
    found: dict[str, _Person] = {}
    for number in range(len(trained.folds) if trained.setting.recipe.split.per_person else 1):
        found |= _people_of(trained, number, modality, set(found))
    return list(found.values())


def _people_of(trained: Trained, number: int, modality: str, known: set[str]) -> dict[str, _Person]:
    """Others with trials in both parts of a fold."""
    setting = trained.setting
    source = setting.sources.of[modality]
    final = trained.trained_rows(number, final=True)[modality]
    target_N = setting.task.of[modality].target_N.copy()
    target_N[final] = setting.targets({modality: final}, number)[modality]
    test = trained.rows(number, TEST)[modality]
    data = ScaledEpochs(
        source.epochs, trained.run.read_scalers(), setting.scaler_stage(trained.stage(number, final=True), modality),
        setting.recipe.view,
    )  # fmt: skip
    person_N = source.trials["person"].to_numpy(dtype=str)
    units = source.trials["image_id" if setting.task.kind == "retrieve" else "concept"].to_numpy(dtype=str)
    unit_of = {name: k for k, name in enumerate(sorted(set(units[test])))}
    found = {}
    for person in sorted(set(person_N[test]) - known):
        mine = final[person_N[final] == person]
        count_K = np.bincount(target_N[mine], minlength=len(setting.task.names))
        if len(mine) < 2 or (setting.task.kind == "classify" and count_K.min() < 2):
            continue
        some = np.sort(np.random.default_rng(setting.recipe.evaluate.seed).permutation(mine)[:MOST_TRIALS])
        asked = test[person_N[test] == person]
        found[str(person)] = _Person(
            data.read(some).cpu().numpy(), target_N[some], data.read(asked).cpu().numpy(), target_N[asked],
            source.trials["image_id"].to_numpy(dtype=str)[asked],
            np.array([unit_of[name] for name in units[asked]], dtype=np.int64),
        )  # fmt: skip
    return found


def _areas(people: list[_Person], width: int, trained: Trained) -> Curve:
    """Mean AUC over people, and p against the largest value over time with concepts exchanged."""
    settings = trained.setting.recipe.evaluate
    observed, null = [], []
    for person in people:
        score_TNK, _ = lda_log_probability(person.train_NCT, person.train_N, person.test_NCT, width)
        observed.append([auc(score_NK, person.test_N) for score_NK in score_TNK])
        if settings.permutations and trained.setting.recipe.split.method != "blocks":
            rng = np.random.default_rng(settings.seed)
            null.append(null_areas(score_TNK, person.test_N, person.unit_N, settings.permutations, rng))
    return Curve.of("auc", np.mean(observed, axis=0), null, 0.5)


def _rank_gain(people: list[_Person], width: int, trained: Trained, modality: str) -> Curve:
    """0.5 less the mean normalised rank of the image seen, by ridge regression of each time bin; p likewise."""
    settings = trained.setting.recipe.evaluate
    observed, null = [], []
    for person in people:
        objective = plain_objective(trained.setting.task, trained.setting.recipe, person.train_N)
        assert isinstance(objective, Images)
        gallery, truth_N = np.unique(person.test_N, return_inverse=True)
        target_ND, gallery_KD = (
            objective.vectors(torch.from_numpy(index)).detach().numpy() for index in (person.train_N, gallery)
        )
        score_TNK, _ = ridge_scores(person.train_NCT, target_ND, person.test_NCT, gallery_KD, width)
        most = max(len(gallery) - 1, 1)
        observed.append([0.5 - ranks(score_NK, truth_N).mean() / most for score_NK in score_TNK])
        if settings.permutations:
            rng = np.random.default_rng(settings.seed)
            null.append(0.5 - null_ranks(score_TNK, truth_N, settings.permutations, rng))
    return Curve.of("rank_above_chance", np.mean(observed, axis=0), null, 0.0)


def _structure(people: list[_Person], width: int, trained: Trained) -> list[Curve]:
    """Split-half reliability of the test images' mean responses, and their similarity beside that of the targets."""
    settings, task = trained.setting.recipe.evaluate, trained.setting.task
    reliabilities, brains, models = [], [], []
    for person in people:
        images = [image for image in sorted(set(person.image_N)) if (person.image_N == image).sum() > 1]
        if len(images) < 4:
            continue
        rng = np.random.default_rng(settings.seed)
        binned_NCT = _binned(person.test_NCT, width)
        groups = [binned_NCT[person.image_N == image] for image in images]
        reliabilities.append(split_half_reliability(groups, DRAWS, rng))
        order = {n: rng.permutation(n) for n in sorted({len(group) for group in groups})}
        halves = [np.array_split(order[len(group)], 2) for group in groups]  # alike: sequences are on one side
        first, second = (
            np.stack([group[half[k]].mean(0) for group, half in zip(groups, halves, strict=True)]) for k in (0, 1)
        )
        brains.append(cross_validated_rdm(first, second))
        target = np.array([person.test_N[person.image_N == image][0] for image in images])
        if task.table is not None:
            models.append(rdm(np.concatenate([task.table.vectors[name][target] for name in task.names], axis=1)))
        elif task.answers is not None:
            models.append(rdm(task.answers[target].astype(float), "euclidean"))
        else:
            models.append((target[:, None] != target).astype(float))
    if not reliabilities:
        return []
    found = [Curve.of("split_half_reliability", np.mean(reliabilities, axis=0), [], 0.0)]
    if all(model.shape == models[0].shape and np.allclose(model, models[0]) for model in models):
        rng = np.random.default_rng(settings.seed)
        value_T, p_T, limit = rsa(np.mean(brains, axis=0), models[0], settings.permutations, rng)
        found.append(Curve("similarity_to_targets", value_T, p_T, 0.0, limit))
    return found


def _binned(x_NCT: NDArray[np.float32], width: int) -> NDArray[np.float64]:
    n, c, t = x_NCT.shape
    kept = x_NCT[:, :, : t // width * width].reshape(n, c, t // width, width)
    return np.asarray(kept.mean(-1, dtype=np.float64))
