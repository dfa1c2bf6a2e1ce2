"""A trained run and trials -> a table of what the decoder says, and predicted vectors of images.

For the run's own test part, or for recordings that it never saw: of people whom it knows, or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from synapse_diffusion.config.tree import conversion_settings, digest_of
from synapse_diffusion.errors import RunError, StoreError
from synapse_diffusion.splits import TEST
from synapse_diffusion.store.embeddings import EmbeddingTable, write_embeddings
from synapse_diffusion.store.epochs import Epochs
from synapse_diffusion.store.files import open_store, read_manifest, stores_below, write_table
from synapse_diffusion.training.data import ScaledEpochs
from synapse_diffusion.training.decisions import ABOUT
from synapse_diffusion.training.decoding import FoldModels, network_names
from synapse_diffusion.training.examples import Asked, Pick, chunks, read
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.sources import Source
from synapse_diffusion.training.trained import Trained, open_trained
from synapse_diffusion.types import Progress, Say


def predict(folder: Path, recording: Path | None, out: Path | None, say: Say, progress: Progress) -> list[Path]:
    """Decode single trials; returns the paths written (`trials_<name>.tsv`, and for images `vectors_<name>/`).

    Without `recording` each trial of the run's test part, by the decoder of its fold. Scalers of a person or session
    that training never met are those of all training trials: nothing of the new recording is used (inductive).
    Raises `RunError`, `StoreError`.
    """
    trained = open_trained(folder, progress)
    if trained.setting.sources.is_fusion:
        raise RunError(f"{folder}: a fusion; its trial-by-trial predictions are in predictions/ after evaluate")
    target = out or folder / "predictions"
    target.mkdir(parents=True, exist_ok=True)
    if recording is None:
        parts = [
            _predict(trained, number, next(iter(trained.setting.sources.of.values())), rows, progress)
            for number in range(len(trained.folds))
            for rows in trained.rows(number, TEST).values()
        ]
        return _write(trained, parts, target, "test")
    if len(trained.folds) > 1:
        say(f"{folder}: {len(trained.folds)} folds; the first one's decoder is used")
    source = _source(trained, recording)
    usable = np.flatnonzero(source.trials["usable"].to_numpy())
    say(f"{recording}: {len(usable)} of {len(source.trials)} trials can be cut")
    return _write(trained, [_predict(trained, 0, source, usable, progress)], target, recording.resolve().name)


def _source(trained: Trained, recording: Path) -> Source:
    """Stores that the run may not have seen, in its view."""
    folders = [recording] if (recording / "manifest.json").exists() else stores_below(recording)
    if not folders:
        raise StoreError(f"{recording}: no signal store; convert the recording with the run's recipe first")
    recipe = trained.run.recipe
    settings = digest_of(conversion_settings(recipe))
    for path in folders:
        if read_manifest(path)["settings_digest"] != settings:
            raise StoreError(f"{path}: was converted with other settings than the run's recipe; convert it again")
    stores = [open_store(path, verify_signal=recipe.execution.verify_stores) for path in folders]
    [known] = trained.setting.sources.of.values()
    view = recipe.view
    epochs = Epochs(stores, view.start_s, view.stop_s, view.baseline, known.epochs.channels, known.epochs.device)
    if epochs.sfreq != known.epochs.sfreq:
        raise StoreError(f"{recording}: {epochs.sfreq:g} Hz, the run's decoder takes {known.epochs.sfreq:g} Hz")
    return Source(epochs, known.person_of, np.full(len(epochs.trials), -1))


def _predict(
    trained: Trained, number: int, source: Source, rows: Index, progress: Progress
) -> tuple[pd.DataFrame, Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:
    """Rows decoded by a fold's final decoders: a table, and vectors by model."""
    setting, models = trained.setting, trained.models(number, final=True)
    [name] = setting.sources.of
    data = ScaledEpochs(
        source.epochs, trained.run.read_scalers(), setting.scaler_stage(trained.stage(number, final=True), name),
        setting.recipe.view,
    )  # fmt: skip
    models = replace(models, data={name: data})
    pick = Pick(rows, np.ones(len(rows), np.int64), source.person_index[rows])
    asked = Asked({name: pick}, np.zeros(len(rows), np.int64))
    table = source.trials.iloc[rows][list(ABOUT)].reset_index(drop=True).assign(fold=number)
    table["person_is_known"] = source.trials["person"].iloc[rows].isin(source.people).astype(int).to_numpy()
    main = network_names(setting)[0]
    if setting.task.kind == "retrieve":
        return table, {main: _vectors(models, asked, main, progress)}
    score_NK = models.ask(asked)[main]
    if setting.task.answers is None:
        table["predicted"] = [setting.task.names[k] for k in score_NK.argmax(1)]
        score_NK = np.exp(score_NK - np.logaddexp.reduce(score_NK, axis=1, keepdims=True))
    else:
        score_NK = 1 / (1 + np.exp(-score_NK))
    return pd.concat(
        [table, pd.DataFrame(score_NK.round(6), columns=[f"p({n})" for n in setting.task.names])], axis=1
    ), {}


def _vectors(
    models: FoldModels, asked: Asked, main: str, progress: Progress
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    parts = []
    for at in chunks(len(asked)):
        progress("predicting vectors", at.start, len(asked))
        with torch.no_grad():
            parts.append(models.vectors(read(asked.part(at), models.data), main))
    return np.concatenate(parts)


def _write(
    trained: Trained,
    parts: list[tuple[pd.DataFrame, Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]],
    folder: Path,
    name: str,
) -> list[Path]:
    table = pd.concat([part for part, _ in parts], ignore_index=True)
    paths = [folder / f"trials_{name}.tsv"]
    write_table(table, paths[0])
    vectors = {model: np.concatenate([part[model] for _, part in parts]) for model in parts[0][1]}
    if vectors:
        rows = table.assign(row_id=table["trial_id"], split=name, k_repeats=1, draw=0, source="brain")
        about = {"kind": "brain", "run": trained.run.folder.name, "targets": trained.run.provenance["targets"]}
        paths.append(folder / f"vectors_{name}")
        write_embeddings(EmbeddingTable(rows, vectors, about), paths[1])
    return paths
