"""The combined set: which EEG and MEG trials showed the same image. An index over two data sets' stores, no copy.

pairs.tsv      image_id, concept, is_test, n_eeg, n_meg: images (or concepts) that both have
unpaired.tsv   the same columns: those that one of them lacks
manifest.json  what is paired by, both data sets' stores by content digest, counts

EEG and MEG come from different people: a pair is two brains' answers to one picture.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from synapse_diffusion.errors import StoreError
from synapse_diffusion.store.files import (
    content_digest,
    find_stores,
    read_manifest,
    read_table,
    write_json,
    write_table,
)
from synapse_diffusion.types import NOT_AVAILABLE

FORMAT: Final = "synapse-diffusion pairs"
VERSION: Final = 1
MODALITIES: Final = ("eeg", "meg")
PAIR_COLUMNS: Final = ("image_id", "concept", "is_test", "n_eeg", "n_meg")
TRIAL_COLUMNS: Final = (
    "trial_id", "image_id", "concept", "person", "session", "run", "repeat", "is_test", "is_catch",
)  # fmt: skip


@dataclass(frozen=True)
class PairedSet:
    """An index, opened."""

    folder: Path
    by: str
    pairs: pd.DataFrame
    """One row a pair: `PAIR_COLUMNS`."""
    unpaired: pd.DataFrame
    trials: pd.DataFrame
    """One row a trial that belongs to a pair: `pair` (row of `pairs`), `modality`, `store` (its folder), `row` (in the
    store's trial table), trial_id, image_id, concept, person, session, run, repeat, is_test."""
    counts: Mapping[str, Any]


def pair_trials(trials: pd.DataFrame, by: str, where: Mapping[str, Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(pairs, unpaired) of two data sets' trials; `trials` has a column `modality`, `where` names their folders.

    `by` `image`: one row an image; `concept`: one row a concept, test and main images apart. Raises `StoreError`
    where the two call one image by two concepts, or test for one what is training material for the other.
    """
    for column in ("concept", "is_test"):
        counted = trials.groupby("image_id", sort=True)[column].nunique()
        if (counted > 1).any():
            image = str(counted.index[counted > 1][0])
            rows = trials[trials["image_id"] == image]
            said = {m: ", ".join(sorted({str(v) for v in rows.loc[rows["modality"] == m, column]})) for m in MODALITIES}
            raise StoreError(
                f"{where['eeg']} and {where['meg']} disagree on image {image}: {column} is {said['eeg'] or 'nothing'} "
                f"in EEG and {said['meg'] or 'nothing'} in MEG ({int((counted > 1).sum())} images); they do not "
                "hold the same pictures"
            )
    key = ["image_id", "concept", "is_test"] if by == "image" else ["concept", "is_test"]
    counts = trials.groupby([*key, "modality"], sort=True).size().unstack("modality", fill_value=0)
    table = counts.reindex(columns=list(MODALITIES), fill_value=0).add_prefix("n_").reset_index()
    if by == "concept":
        table.insert(0, "image_id", NOT_AVAILABLE)
    both = (table["n_eeg"] > 0) & (table["n_meg"] > 0)
    columns = list(PAIR_COLUMNS)
    return table.loc[both, columns].reset_index(drop=True), table.loc[~both, columns].reset_index(drop=True)


def read_trials_of(folders: Sequence[Path], modality: str) -> pd.DataFrame:
    """Trials of these stores that showed an image, with `modality`, `store` and `row`."""
    tables = []
    for folder in folders:
        table = read_table(folder / "trials.tsv")[list(TRIAL_COLUMNS)]
        tables.append(table.assign(modality=modality, store=str(folder), row=np.arange(len(table))))
    trials = pd.concat(tables, ignore_index=True)
    shown = (trials["image_id"] != NOT_AVAILABLE) & (trials["is_catch"] == "0")
    trials = trials[shown].drop(columns="is_catch").reset_index(drop=True)
    return trials.astype({"is_test": int, "repeat": int})


def write_pairs(folder: Path, pairs: pd.DataFrame, unpaired: pd.DataFrame, about: Mapping[str, Any]) -> None:
    """Write the index, whole or not at all. Raises `StoreError` where the folder holds something else."""
    if folder.exists() and any(folder.iterdir()):
        try:
            read_pairs_manifest(folder)
        except StoreError:
            raise StoreError(f"{folder}: holds something else than a pairs index; choose another data.name") from None
    draft = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write_table(pairs, draft / "pairs.tsv")
    write_table(unpaired, draft / "unpaired.tsv")
    write_json({"format": FORMAT, "version": VERSION, **about}, draft / "manifest.json")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def read_pairs_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an index. Raises `StoreError` where there is none."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise StoreError(f"{path}: missing or damaged; run `synapse-diffusion convert comb` again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise StoreError(
            f"{path}: not a {FORMAT} index of version {VERSION}; run `synapse-diffusion convert comb` again"
        )
    return manifest


def open_pairs(folder: Path, stores: Path) -> PairedSet:
    """Open an index over the data sets under `stores`. Raises `StoreError` where a store is gone or another now."""
    manifest = read_pairs_manifest(folder)
    tables = []
    for modality in MODALITIES:
        of = manifest[modality]
        folders = [stores / of["dataset"] / name for name in of["stores"]]
        for path, digest in zip(folders, of["stores"].values(), strict=True):
            if content_digest(read_manifest(path)) != digest:
                raise StoreError(
                    f"{path}: was converted anew since {folder} was made; run `synapse-diffusion convert comb` again"
                )
        tables.append(read_trials_of(folders, modality))
    pairs = _typed(read_table(folder / "pairs.tsv"))
    key = ["image_id"] if manifest["by"] == "image" else ["concept", "is_test"]
    of_pair = pairs.reset_index(names="pair")[["pair", *key]]
    trials = pd.concat(tables, ignore_index=True).merge(of_pair, on=key, how="inner")
    return PairedSet(
        folder, manifest["by"], pairs, _typed(read_table(folder / "unpaired.tsv")), trials, manifest["counts"]
    )


def stores_of(root: Path, dataset: str) -> tuple[list[Path], dict[str, str]]:
    """A data set's stores, and their content digests by folder below it. Raises `StoreError` where there is none."""
    folders = find_stores(root, dataset)
    return folders, {str(path.relative_to(root / dataset)): content_digest(read_manifest(path)) for path in folders}


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype({"is_test": int, "n_eeg": int, "n_meg": int})
