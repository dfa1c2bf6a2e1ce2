"""What training and evaluation share of a run: sources, task, folds, and how a fold's data are scaled and asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synapse_diffusion.config import Recipe
from synapse_diffusion.models.base import Shape
from synapse_diffusion.splits import FINAL_ONLY, UNUSED
from synapse_diffusion.training.examples import Asked, Examples, Pick, Trials
from synapse_diffusion.training.parts import Fold, final_rows
from synapse_diffusion.training.sources import Sources, image_groups
from synapse_diffusion.training.tasks import Task, shuffled_targets

Index = NDArray[np.int64]
Rows = Mapping[str, Index]
"""Rows of each modality's epochs."""


@dataclass(frozen=True)
class Setting:
    """One recipe on its data."""

    recipe: Recipe
    sources: Sources
    task: Task
    shapes: Mapping[str, Shape]

    def scaler_stage(self, stage: str, modality: str) -> str:
        """Under which name a stage's scalers of a modality are kept."""
        return f"{stage}-{modality}" if self.sources.is_fusion else stage

    def rows(self, fold: Fold, part: str) -> dict[str, Index]:
        """Rows of a part."""
        return {name: np.flatnonzero(split == part) for name, split in fold.items()}

    def targets(self, rows: Rows, fold: int) -> dict[str, Index]:
        """Each row's target; as a control (`labels.shuffled`) dealt anew among concepts, images or trials."""
        found = {name: self.task.of[name].target_N[r] for name, r in rows.items()}
        if not self.recipe.labels.shuffled:
            return found
        names = list(rows)
        rng = np.random.default_rng([self.recipe.train.seed, fold, sum(len(r) for r in rows.values())])
        by_trial = self.recipe.split.method == "blocks"
        units = [
            np.arange(len(rows[n])).astype(str) if by_trial else self.task.units(self.sources.of[n], n, rows[n])
            for n in names
        ]
        unit_N = np.unique(np.concatenate(units), return_inverse=True)[1]
        dealt = shuffled_targets(self.task.kind, np.concatenate([found[n] for n in names]), unit_N, rng)
        return dict(zip(names, np.split(dealt, np.cumsum([len(rows[n]) for n in names])[:-1]), strict=True))

    def examples(self, rows: Rows, targets: Rows) -> Examples:
        """What training draws from: trials; images, for retrieval; pairs, for a fusion."""
        trials: dict[str, Trials] = {}
        keys: dict[str, Index] = {}
        for name, r in rows.items():
            source = self.sources.of[name]
            if len(rows) > 1:
                keys[name] = source.pair_N[r]
            else:
                keys[name] = targets[name] if self.task.kind == "retrieve" else np.arange(len(r))
        items, inverse = np.unique(np.concatenate(list(keys.values())), return_inverse=True)
        target_I = np.zeros(len(items), np.int64)
        start = 0
        for name, r in rows.items():
            source = self.sources.of[name]
            item_N = inverse[start : start + len(r)]
            start += len(r)
            target_I[item_N] = targets[name]
            trials[name] = Trials(r, source.person_index[r], item_N, image_groups(source.trials, r))
        return Examples(trials, target_I)

    def cells(self, modality: str) -> Index:
        """Within what a decoder's statistics take means: classes; concepts, where there are no classes."""
        if self.task.kind == "classify":
            return self.task.of[modality].target_N
        concept = self.sources.of[modality].trials["concept"].to_numpy(dtype=str)
        return np.unique(concept, return_inverse=True)[1]

    def single(self, modality: str, rows: Index, targets: Index) -> Asked:
        """Every row as a decision."""
        pick = Pick(rows, np.ones(len(rows), np.int64), self.sources.of[modality].person_index[rows])
        return Asked({modality: pick}, targets)


def split_tables(setting: Setting, folds: Sequence[Fold]) -> pd.DataFrame:
    """One row a trial and fold that is used; `final`: 1 where the final fit trains on it, as on some for that alone."""
    columns = ["trial_id", "person", "session", "run", "image_id", "concept"]
    tables = []
    for number, fold in enumerate(folds):
        for modality, split in fold.items():
            source, stratum_N = setting.sources.of[modality], setting.task.of[modality].stratum_N
            final = np.zeros(len(split), np.int64)
            if setting.recipe.train.refit:
                final[final_rows(source, stratum_N, split, setting.recipe, fused=setting.sources.is_fusion)] = 1
            used = (split != UNUSED) | (final == 1)
            part = np.where(split == UNUSED, FINAL_ONLY, split)[used]
            about = {"fold": number, "split": part, "class": stratum_N[used], "modality": modality}
            tables.append(source.trials.loc[used, columns].assign(**about, final=final[used]))
    table: pd.DataFrame = pd.concat(tables)
    return table
