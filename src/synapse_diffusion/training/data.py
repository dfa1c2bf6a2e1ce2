"""Stores -> scaled epochs with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synapse_diffusion.config import Recipe, ViewSettings
from synapse_diffusion.config.tree import conversion_settings, digest_of
from synapse_diffusion.errors import StoreError
from synapse_diffusion.runs import Scalers
from synapse_diffusion.signal.rejection import autoreject_limit
from synapse_diffusion.signal.scaling import Scaler, fit_scaler
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import SignalStore, find_stores, open_store, read_manifest
from synapse_diffusion.types import Progress

CHUNK = 512
SCALER_TRIALS = 3000  # a person and session; more change no scale by 1 %


class ScaledEpochs:
    """Epochs with the scaler of their person and session applied, clamped."""

    def __init__(self, epochs: Epochs, scalers: Scalers, stage: str, view: ViewSettings) -> None:
        self.epochs, self._clamp = epochs, view.clamp
        keys = group_keys(epochs, view.scaling_by)
        names, self._group_N = np.unique(keys, return_inverse=True)
        chosen = [_scaler_for(scalers, stage, name) for name in names]
        self._offset_GC = torch.from_numpy(np.stack([s.offset_C for s in chosen])).to(epochs.device)
        self._matrix_GCC = torch.from_numpy(np.stack([s.matrix_CC for s in chosen])).to(epochs.device)

    def read(self, rows: NDArray[np.int64], shift: NDArray[np.int64] | None = None) -> torch.Tensor:
        """Scaled epochs (B, C, T), cut and scaled in pieces: there is one copy of them all."""
        epochs = self.epochs
        out_BCT = torch.empty(len(rows), len(epochs.channels), epochs.n_times, device=epochs.device)
        for k in range(0, len(rows), CHUNK):
            at = slice(k, k + CHUNK)
            group = torch.from_numpy(self._group_N[rows[at]]).to(epochs.device)
            x_BCT = epochs.read(rows[at], None if shift is None else shift[at])
            torch.bmm(self._matrix_GCC[group], x_BCT.sub_(self._offset_GC[group][:, :, None]), out=out_BCT[at])
        return out_BCT.clamp_(-self._clamp, self._clamp) if self._clamp else out_BCT


def open_stores(recipe: Recipe, progress: Progress) -> list[SignalStore]:
    """The data set's stores of the people and sessions that the recipe chooses, verified."""
    folders = find_stores(Path(recipe.paths.stores), recipe.data.name)
    for k, (key, names) in enumerate(_wishes(recipe)):
        there = {_entities(folder)[k] for folder in folders}
        if missing := [name for name in names if name not in there]:
            raise StoreError(
                f"{folders[0].parents[2]}: no store for data.{key} {', '.join(missing)}; there are "
                f"{', '.join(sorted(there))}: convert them, or choose others"
            )
    chosen = [folder for folder in folders if _wanted(folder, recipe)]
    if not chosen:
        raise StoreError(
            f"{folders[0].parents[2]}: no store fits all of data.people, sessions, tasks and runs together"
        )
    settings = digest_of(conversion_settings(recipe))
    stores = []
    for k, folder in enumerate(chosen):
        progress("opening stores", k, len(chosen))
        if read_manifest(folder)["settings_digest"] != settings:
            raise StoreError(
                f"{folder}: was converted with other settings (convert.*, data.events.*); convert it again"
            )
        stores.append(open_store(folder, verify_signal=recipe.execution.verify_stores))
    progress("opening stores", len(stores), len(stores))
    return stores


def _wishes(recipe: Recipe) -> list[tuple[str, tuple[str, ...]]]:
    data = recipe.data
    return [("people", data.people), ("sessions", data.sessions), ("tasks", data.tasks), ("runs", data.runs)]


def _entities(folder: Path) -> tuple[str, str, str, str]:
    """Person, session, task and run of a store's folder."""
    person, session, run = (part.split("-", 1)[1] for part in folder.parts[-3:])
    task, _, number = run.rpartition("-")
    return person, session, task, number


def _wanted(folder: Path, recipe: Recipe) -> bool:
    pairs = zip(_entities(folder), _wishes(recipe), strict=True)
    return all(not names or value in names for value, (_, names) in pairs)


def open_epochs(stores: Sequence[SignalStore], recipe: Recipe, device: torch.device | str) -> Epochs:
    """The recipe's view of the stores."""
    view = recipe.view
    return Epochs(stores, view.start_s, view.stop_s, view.baseline, view.channels, device)


def group_keys(epochs: Epochs, by: str) -> NDArray[np.str_]:
    """What shares a scaler: `person`, `person/session` or `person/session/run` of each trial."""
    columns = ["person", "session", "run"][: ["person", "session", "run"].index(by) + 1]
    key = epochs.trials[columns[0]].astype(str)
    for column in columns[1:]:
        key = key.str.cat(epochs.trials[column].astype(str), sep="/")
    return key.to_numpy(dtype=str)


def fit_scalers(
    epochs: Epochs,
    rows: NDArray[np.int64],
    label_N: NDArray[np.int64],
    view: ViewSettings,
    stage: str,
    seed: int,
    *,
    labelled: bool = True,
) -> Scalers:
    """A scaler for each person (session, run: `view.scaling_by`), from these (training) rows only, and `stage/*` from
    all of them.

    Residuals for whitening are taken from concept means where the data set names concepts, else class means; from the
    mean of all where trials are not `labelled`: neither is then looked at.
    """
    rng = np.random.default_rng([seed, len(rows)])
    concept = epochs.trials["concept"].to_numpy(dtype=str)
    by_concept = np.any(concept[rows] != "n/a")
    groups = np.unique(concept, return_inverse=True)[1] if by_concept else label_N
    groups = groups if labelled else np.zeros_like(label_N)
    keys = group_keys(epochs, view.scaling_by)
    scalers: Scalers = {}
    for key in [*np.unique(keys[rows]), "*"]:
        mine = rows if key == "*" else rows[keys[rows] == key]
        mine = np.sort(rng.permutation(mine)[:SCALER_TRIALS])
        scalers[f"{stage}/{key}"] = fit_scaler(epochs.read(mine).cpu().numpy(), groups[mine], view.scaling, rng)
    return scalers


def _scaler_for(scalers: Scalers, stage: str, key: str) -> Scaler:
    """A session that no training trial came from takes its person's other sessions, else everyone's."""
    if f"{stage}/{key}" in scalers:
        return scalers[f"{stage}/{key}"]
    person = key.split("/")[0]
    same = [name for name in sorted(scalers) if name.startswith(f"{stage}/{person}/")]
    return scalers[same[0] if same else f"{stage}/*"]


def fit_limits(epochs: Epochs, rows: NDArray[np.int64], view: ViewSettings, seed: int) -> dict[str, float]:
    """Largest value an epoch may reach, by person ("*": anyone else), in V or T; empty where nothing is rejected.

    Autoreject's limits come from these (training) rows.
    """
    if view.reject == "none":
        return {}
    if view.reject != "autoreject":
        return {"*": view.reject_limit}
    rng = np.random.default_rng([seed, len(rows)])
    person = epochs.trials["person"].to_numpy(dtype=str)
    limits = {}
    for name in [*np.unique(person[rows]), "*"]:
        mine = rows if name == "*" else rows[person[rows] == name]
        some = np.sort(rng.permutation(mine)[:SCALER_TRIALS])
        limits[str(name)] = autoreject_limit(epochs.read(some).cpu().numpy())
    return limits


def accepted(
    epochs: Epochs, rows: NDArray[np.int64], view: ViewSettings, limits: Mapping[str, float]
) -> NDArray[np.int64]:
    """Those of the rows whose epochs stay within their person's limit."""
    if view.reject == "none" or not len(rows):
        return rows
    largest = []
    for k in range(0, len(rows), CHUNK):
        x_BCT = epochs.read(rows[k : k + CHUNK])
        size = x_BCT.abs().amax((1, 2)) if view.reject == "amplitude" else (x_BCT.amax(2) - x_BCT.amin(2)).amax(1)
        largest.append(size.cpu().numpy())
    person = epochs.trials["person"].iloc[rows]
    limit = np.array([limits.get(str(name), limits["*"]) for name in person])
    return rows[np.concatenate(largest) <= limit]
