"""The conditions of every picture that is to be drawn: predicted from a brain, their controls, and the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.config import Recipe, ReconstructSettings
from synapse_diffusion.splits import TEST
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.training.brain import Predictor
from synapse_diffusion.training.conditions import Conditions
from synapse_diffusion.training.examples import Asked, Pick
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.trained import Trained
from synapse_diffusion.types import NOT_AVAILABLE

NO_BRAIN: Final = ("none", "true")


def test_means(trained: Trained, number: int, settings: ReconstructSettings) -> list[tuple[Asked, pd.DataFrame]]:
    """For each k a mean of k repeats of every test image and person, with `image_id concept person k_repeats`."""
    [(name, rows)] = trained.rows(number, TEST).items()
    source = trained.setting.sources.of[name]
    table = source.trials.iloc[rows].assign(row=rows)
    table = table[(table["image_id"] != NOT_AVAILABLE) & (trained.setting.task.of[name].target_N[rows] >= 0)]
    groups = {key: group["row"].to_numpy() for key, group in table.groupby(["person", "image_id"], sort=True)}
    fewest = min(len(group) for group in groups.values())
    found = []
    for k in dict.fromkeys(fewest if k == 0 else k for k in settings.k_repeats):
        if k > fewest:
            continue
        rng = np.random.default_rng([settings.seed, k])
        chosen = [np.sort(rng.permutation(group)[:k]) for group in groups.values()]
        first = np.array([group[0] for group in chosen])
        pick = Pick(np.concatenate(chosen), np.full(len(chosen), k), source.person_index[first])
        about = source.trials.iloc[first][["image_id", "concept", "person"]].reset_index(drop=True)
        found.append((Asked({name: pick}, trained.setting.task.of[name].target_N[first]), about.assign(k_repeats=k)))
    return found


def condition_table(
    trained: Trained, predictors: Sequence[Predictor], truth: EmbeddingTable, conditions: Conditions,
    settings: ReconstructSettings,
) -> EmbeddingTable:  # fmt: skip
    """All rows that are drawn, by source, person, k and image."""
    [source] = trained.setting.sources.of.values()
    parts: list[tuple[pd.DataFrame, dict[str, NDArray[np.float32]]]] = []
    for number, predictor in enumerate(predictors):
        for asked, about in test_means(trained, number, settings):
            vectors, about = predictor.predict(asked), about.assign(fold=number)
            parts.append((about.assign(source="brain"), vectors))
            if "shuffled" in settings.controls:
                other = dealt(about["person"].to_numpy(dtype=str), settings.seed)
                parts.append((about.assign(source="shuffled"), {n: v[other] for n, v in vectors.items()}))
            if "other_person" in settings.controls and source.n_people > 1 and not predictor.is_pooled:
                parts.append((about.assign(source="other_person"), predictor.predict(asked, other_person=True)))
    images = sorted({image for about, _ in parts for image in about["image_id"]})
    true = truth.select(images)
    for control in NO_BRAIN:
        if control in settings.controls:
            about = true.rows[["image_id", "concept"]].assign(person=NOT_AVAILABLE, k_repeats=0, source=control, fold=0)
            zero = {n: np.zeros_like(v) for n, v in true.vectors.items()}  # the mean of the training images
            parts.append((about, true.vectors if control == "true" else zero))
    rows = pd.concat([about for about, _ in parts], ignore_index=True).assign(split=TEST, draw=0)
    rows["row_id"] = [f"{r.source}_{r.person}_k{r.k_repeats}_{r.image_id}" for r in rows.itertuples()]
    names = list(conditions.axes)
    return EmbeddingTable(rows, {n: np.concatenate([v[n] for _, v in parts]) for n in names}, dict(truth.encoder))


def in_samples(table: EmbeddingTable, recipe: Recipe) -> EmbeddingTable:
    """Each row `reconstruct.samples` times, one after the other, numbered by `draw`."""
    n = recipe.reconstruct.samples
    rows = table.rows.loc[table.rows.index.repeat(n)].reset_index(drop=True)
    rows["draw"] = np.tile(np.arange(n), len(table.rows))
    rows["row_id"] = rows["row_id"] + "_" + rows["draw"].astype(str)
    return EmbeddingTable(rows, {name: v.repeat(n, 0) for name, v in table.vectors.items()}, table.encoder)


def dealt(person_N: NDArray[np.str_], seed: int) -> Index:
    """For each row another row of the same person, none its own."""
    other_N = np.arange(len(person_N))
    for person in np.unique(person_N):
        order = np.random.default_rng([seed, 1]).permutation(np.flatnonzero(person_N == person))
        other_N[order] = np.roll(order, 1)
    return other_N
