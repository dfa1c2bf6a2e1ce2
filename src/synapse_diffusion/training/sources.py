"""The trials that a recipe is about, by modality, and which of them belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import StoreError
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import SignalStore, open_store
from synapse_diffusion.store.pairs import open_pairs
from synapse_diffusion.training.data import open_epochs, open_stores
from synapse_diffusion.types import NOT_AVAILABLE, Progress


@dataclass(frozen=True)
class Source:
    """All trials of one modality: epochs, whose weights apply to each, and the pair that it belongs to (-1: none)."""

    epochs: Epochs
    person_of: Mapping[str, int]
    pair_N: NDArray[np.int64]

    @property
    def people(self) -> set[str]:
        """Whose weights are trained."""
        return set(self.person_of)

    @property
    def trials(self) -> pd.DataFrame:
        """The trial table."""
        return self.epochs.trials

    @property
    def person_index(self) -> NDArray[np.int64]:
        """Of each trial (N,), whose weights apply; one more than the last of a person who was not trained."""
        known = self.trials["person"].map(dict(self.person_of))
        return np.asarray(known.fillna(self.n_people), dtype=np.int64)

    @property
    def n_people(self) -> int:
        """Sets of weights."""
        return max(self.person_of.values()) + 1


@dataclass(frozen=True)
class Sources:
    """One modality, or EEG and MEG of the combined set; and the stores behind them."""

    of: Mapping[str, Source]
    stores: tuple[SignalStore, ...]
    paired_by: str
    """`image` or `concept`; empty: one modality."""

    @property
    def is_fusion(self) -> bool:
        """Are there two?"""
        return len(self.of) > 1

    def with_people(self, person_of: Mapping[str, Mapping[str, int]]) -> Sources:
        """The same trials with other numbers of people's weights."""
        return replace(self, of={name: replace(source, person_of=person_of[name]) for name, source in self.of.items()})

    def digests(self, root: Path) -> dict[str, str]:
        """The stores' contents, by folder below `root`."""
        return {str(store.folder.relative_to(root)): store.digest for store in self.stores}


def open_sources(recipe: Recipe, device: torch.device, progress: Progress) -> Sources:
    """Open what the recipe is about. Raises `StoreError`."""
    per_person = recipe.split.per_person
    if recipe.data.modality != "comb":
        stores = open_stores(recipe, progress)
        epochs = open_epochs(stores, recipe, device)
        people = number_people(epochs.trials, per_person=per_person)
        none = np.full(len(epochs.trials), -1)
        return Sources({recipe.data.modality: Source(epochs, people, none)}, tuple(stores), "")
    pairs = open_pairs(Path(recipe.paths.stores) / recipe.data.name, Path(recipe.paths.stores))
    found, every = {}, []
    for modality, table in pairs.trials.groupby("modality", sort=True):
        if recipe.data.people:
            table = table[table["person"].isin(recipe.data.people)]
        if table.empty:
            raise StoreError(f"{pairs.folder}: no {modality} trial of data.people {', '.join(recipe.data.people)}")
        folders = sorted(set(table["store"]))
        stores = []
        for k, folder in enumerate(folders):
            progress(f"opening {modality} stores", k, len(folders))
            stores.append(open_store(Path(folder), verify_signal=recipe.execution.verify_stores))
        epochs = open_epochs(stores, recipe, device)
        first = np.cumsum([0, *(len(store.trials) for store in stores)])
        offset = table["store"].map({folder: int(first[k]) for k, folder in enumerate(folders)})
        pair_N = np.full(len(epochs.trials), -1)
        pair_N[offset.to_numpy(dtype=np.int64) + table["row"].to_numpy(dtype=np.int64)] = table["pair"]
        found[str(modality)] = Source(epochs, number_people(epochs.trials, per_person=per_person), pair_N)
        every += stores
    if len(found) < 2:
        raise StoreError(f"{pairs.folder}: no EEG or no MEG trials; run `synapse-diffusion convert comb` again")
    return Sources(found, tuple(every), pairs.by)


def number_people(trials: pd.DataFrame, *, per_person: bool) -> dict[str, int]:
    """Index of each person's own weights; all 0 where every person has a decoder of their own."""
    people = sorted(set(trials["person"]))
    return {person: 0 if per_person else k for k, person in enumerate(people)}


def image_groups(trials: pd.DataFrame, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of these rows show one image to one person; a trial without image is alone."""
    frame = trials.iloc[rows]
    image = frame["image_id"].to_numpy(dtype=str)
    alone = np.where(image == NOT_AVAILABLE, np.arange(len(rows)).astype(str), "")
    key = frame["person"].to_numpy(dtype=str).astype(object) + "/" + image + alone
    return np.unique(key.astype(str), return_inverse=True)[1]
