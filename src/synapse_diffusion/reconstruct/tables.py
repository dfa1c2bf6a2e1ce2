"""The conditions of every picture that is to be drawn: predicted from a brain, their controls, and the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.config import Recipe, ReconstructSettings
from synapse_diffusion.errors import SettingsError
from synapse_diffusion.splits import TEST
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.training.brain import Predictor
from synapse_diffusion.training.conditions import DOUBT, LOW, Conditions
from synapse_diffusion.training.examples import Asked, Pick
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.trained import Trained
from synapse_diffusion.types import NOT_AVAILABLE

BRAIN: Final = "brain"
NO_BRAIN: Final = ("none", "true")


def test_means(trained: Trained, number: int, settings: ReconstructSettings) -> list[tuple[Asked, pd.DataFrame]]:
    """For each k a mean of k repeats of every test image and person, with `image_id concept person k_repeats`.

    Of a fusion k of each modality; people are joined in their order, those of the modality that has fewer in turn.
    """
    found = _shown(trained, number)
    fewest = min(len(rows) for groups in found.values() for rows in groups.values())
    people = {name: sorted({person for person, _ in groups}) for name, groups in found.items()}
    n_people = max(len(of) for of in people.values())
    joined = [{name: of[i % len(of)] for name, of in people.items()} for i in range(n_people)]
    who = [
        (each, image)
        for each in joined
        for image in sorted({image for _, image in next(iter(found.values()))})
        if all((each[name], image) in groups for name, groups in found.items())
    ]
    first = next(iter(found))
    source = trained.setting.sources.of[first]
    table = source.trials.iloc[[found[first][each[first], image][0] for each, image in who]]
    about = table[["image_id", "concept"]].assign(person=["+".join(each.values()) for each, _ in who])
    target_N = trained.setting.task.of[first].target_N[table.index.to_numpy()]
    asked = []
    for k in dict.fromkeys(fewest if k == 0 else k for k in settings.k_repeats):
        if k > fewest:
            raise SettingsError(
                f"reconstruct.k_repeats = {k}: some test image was shown to someone {fewest} times only; ask for that "
                "many at most, or for 0, which is that many"
            )
        rng = np.random.default_rng([settings.seed, k])
        picks = {
            name: _pick(trained, name, [groups[e[name], i] for e, i in who], k, rng)
            for name, groups in found.items()
        }  # fmt: skip
        asked.append((Asked(picks, target_N), about.reset_index(drop=True).assign(k_repeats=k)))
    return asked


def _shown(trained: Trained, number: int) -> dict[str, dict[tuple[str, str], Index]]:
    """Rows of each modality's test trials by person and image."""
    found = {}
    for name, rows in trained.rows(number, TEST).items():
        table = trained.setting.sources.of[name].trials.iloc[rows].assign(row=rows)
        table = table[(table["image_id"] != NOT_AVAILABLE) & (trained.setting.task.of[name].target_N[rows] >= 0)]
        groups = table.groupby(["person", "image_id"], sort=True)
        found[name] = {(str(p), str(i)): group["row"].to_numpy() for (p, i), group in groups}
    return found


def _pick(trained: Trained, name: str, groups: Sequence[Index], k: int, rng: np.random.Generator) -> Pick:
    """k rows of each group."""
    chosen = [np.sort(rng.permutation(group)[:k]) for group in groups]
    first = np.array([group[0] for group in chosen])
    return Pick(np.concatenate(chosen), np.full(len(chosen), k), trained.setting.sources.of[name].person_index[first])


def condition_table(
    trained: Trained, predictors: Sequence[Predictor], truth: EmbeddingTable, conditions: Conditions,
    settings: ReconstructSettings,
) -> EmbeddingTable:  # fmt: skip
    """All rows that are drawn, by source, person, k and image."""
    sources = trained.setting.sources
    parts: list[tuple[pd.DataFrame, dict[str, NDArray[np.float32]]]] = []
    for number, predictor in enumerate(predictors):
        for asked, about in test_means(trained, number, settings):
            vectors, about = predictor.predict(asked), about.assign(fold=number)
            parts.append((about.assign(source=BRAIN), vectors))
            for name in sources.of if sources.is_fusion else ():
                parts.append((about.assign(source=f"{BRAIN} {name}"), predictor.predict(asked, only=name)))
            for n in settings.bottleneck:
                parts.append((about.assign(source=f"{BRAIN} by {n}"), predictor.predict(asked, through=n)))
            if "shuffled" in settings.controls:
                other = dealt(about["person"].to_numpy(dtype=str), settings.seed)
                parts.append((about.assign(source="shuffled"), {n: v[other] for n, v in vectors.items()}))
            several = any(source.n_people > 1 for source in sources.of.values())
            if "other_person" in settings.controls and several and not predictor.is_pooled:
                others = predictor.predict(asked, other_person=True)
                if any(not np.array_equal(others[name], vectors[name]) for name in vectors):  # weights of their own
                    parts.append((about.assign(source="other_person"), others))
    images = sorted({image for about, _ in parts for image in about["image_id"]})
    true = truth.select(images)
    for control in NO_BRAIN:
        if control in settings.controls:
            about = true.rows[["image_id", "concept"]].assign(person=NOT_AVAILABLE, k_repeats=0, source=control, fold=0)
            known = np.float32(control == "true")  # else the mean of the training images
            vectors = {n: known * v for n, v in true.vectors.items()}
            if LOW in vectors:
                vectors[DOUBT] = np.full_like(vectors[LOW], 1 - known)
            parts.append((about, vectors))
    rows = pd.concat([about for about, _ in parts], ignore_index=True).assign(split=TEST, draw=0)
    rows["row_id"] = [f"{r.source}_{r.person}_k{r.k_repeats}_{r.image_id}".replace(" ", "-") for r in rows.itertuples()]
    names = [*conditions.axes, *([DOUBT] if LOW in conditions.axes else [])]
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
