"""EEG and MEG stores -> the combined set: an index of the images that both were shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from synapse_diffusion.config import Recipe
from synapse_diffusion.errors import SettingsError, StoreError
from synapse_diffusion.store.files import read_manifest
from synapse_diffusion.store.pairs import (
    MODALITIES,
    PairedSet,
    open_pairs,
    pair_trials,
    read_pairs_manifest,
    read_trials_of,
    stores_of,
    write_pairs,
)
from synapse_diffusion.types import Progress, Say, silent


def unpaired(recipe: Recipe) -> str:
    """Why the index is to be made; empty: it is of these stores. Raises `StoreError` where a data set has none."""
    root, names = Path(recipe.paths.stores), {"eeg": recipe.pairs.eeg, "meg": recipe.pairs.meg}
    now = {m: {"dataset": name, "stores": stores_of(root, name)[1]} for m, name in names.items()}
    try:
        there = read_pairs_manifest(root / recipe.data.name)
    except StoreError:
        return "there is no index yet"
    if there["by"] != recipe.pairs.by or any(there[m]["dataset"] != names[m] for m in MODALITIES):
        return "it is about other data sets, or another pairs.by"
    return "their stores changed" if any(there[m]["stores"] != now[m]["stores"] for m in MODALITIES) else ""


def convert_pairs(recipe: Recipe, say: Say = silent, progress: Progress = silent) -> PairedSet:
    """Index which trials of two data sets showed the same image; written to `paths.stores/<data.name>`.

    Raises `SettingsError` where the data sets are not named, `StoreError` where they are not of the two modalities,
    disagree on an image, or share none.
    """
    settings, root = recipe.pairs, Path(recipe.paths.stores)
    names = {"eeg": settings.eeg, "meg": settings.meg}
    if not all(names.values()) or recipe.data.name in names.values():
        raise SettingsError(
            f"pairs.eeg = {settings.eeg!r}, pairs.meg = {settings.meg!r}, data.name = {recipe.data.name!r}: name "
            "the two data sets under paths.stores, and a third for the index"
        )
    tables: dict[str, pd.DataFrame] = {}
    about: dict[str, Any] = {}
    for number, modality in enumerate(MODALITIES):
        progress("reading trials of modalities", number, len(MODALITIES))
        folders, digests = stores_of(root, names[modality])
        wrong = [path for path in folders if read_manifest(path).get("modality") != modality]
        if wrong:
            raise StoreError(f"{wrong[0]}: is no {modality.upper()} (pairs.{modality} = {names[modality]!r})")
        tables[modality] = read_trials_of(folders, modality)
        about[modality] = {
            "dataset": names[modality],
            "people": sorted(set(tables[modality]["person"])),
            "stores": digests,
        }
    where = {modality: root / name for modality, name in names.items()}
    trials = pd.concat(tables.values(), ignore_index=True)
    pairs, unpaired = pair_trials(trials, settings.by, where)
    if pairs.empty:
        raise StoreError(f"{where['eeg']} and {where['meg']}: no {settings.by} is in both; they show other pictures")
    counts: dict[str, Any] = {
        "pairs": {"main": int((pairs["is_test"] == 0).sum()), "test": int((pairs["is_test"] == 1).sum())},
        "trials": {m: int(pairs[f"n_{m}"].sum()) for m in MODALITIES},
        "unpaired": {m: int((unpaired[f"n_{m}"] > 0).sum()) for m in MODALITIES},
        "unpaired_trials": {m: int(unpaired[f"n_{m}"].sum()) for m in MODALITIES},
    }
    folder = root / recipe.data.name
    write_pairs(folder, pairs, unpaired, {"by": settings.by, **about, "people_differ": True, "counts": counts})
    people = " and ".join(f"{len(about[m]['people'])} of {m.upper()}" for m in MODALITIES)
    say(
        f"{len(pairs)} {settings.by}s pair ({counts['pairs']['main']} main, {counts['pairs']['test']} test): "
        f"{counts['trials']['eeg']} EEG and {counts['trials']['meg']} MEG trials of different people ({people})"
    )
    for m, other in (MODALITIES, MODALITIES[::-1]):
        if counts["unpaired"][m]:
            say(
                f"{counts['unpaired'][m]} {settings.by}s of {names[m]} ({counts['unpaired_trials'][m]} trials) have "
                f"no {other.upper()} partner: listed in {folder / 'unpaired.tsv'}"
            )
    say(str(folder))
    return open_pairs(folder, root)
