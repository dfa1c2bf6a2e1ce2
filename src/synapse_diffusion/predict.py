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

from synapse_diffusion.errors import RunError
from synapse_diffusion.splits import TEST
from synapse_diffusion.store.embeddings import EmbeddingTable, write_embeddings
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.adaptation import Person, load_person, met
from synapse_diffusion.training.data import ScaledEpochs
from synapse_diffusion.training.decisions import ABOUT
from synapse_diffusion.training.decoding import FoldModels, network_names
from synapse_diffusion.training.examples import Asked, Pick, chunks, read
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.sources import Source
from synapse_diffusion.training.trained import Trained, open_trained, other_source
from synapse_diffusion.types import Folder, Progress, Say, silent


def predict(
    folder: Folder, recording: Folder | None = None, out: Folder | None = None,
    say: Say = silent, progress: Progress = silent,
) -> list[Path]:  # fmt: skip
    """Decode single trials; returns the paths written (`trials_<name>.tsv`, and for images `vectors_<name>/`).

    Without `recording` each trial of the run's test part, by the decoder of its fold. Of a person whom `adapt` has met
    the weights and scalers are those that it found; else scalers of a person or session that training never met are
    those of all training trials: nothing of the new recording is used (inductive). Electrodes of the run that an EEG
    recording lacks are interpolated from its own.
    A fusion's run decodes a recording of one modality by its decoder of that modality alone; what it says of pairs is
    in predictions/ after `evaluate`. Raises `RunError`, `StoreError`.
    """
    folder = Path(folder)
    trained = open_trained(folder, progress)
    if trained.setting.sources.is_fusion and recording is None:
        raise RunError(
            f"{folder}: a fusion; what it says of its test pairs is in predictions/ after evaluate. Name a recording "
            "of one modality to have it decoded"
        )
    target = Path(out) if out else folder / "predictions"
    target.mkdir(parents=True, exist_ok=True)
    if recording is None:
        parts = [
            _predict(trained, number, name, trained.setting.sources.of[name], rows, progress)
            for number in range(len(trained.folds))
            for name, rows in trained.rows(number, TEST).items()
        ]
        say(f"{sum(len(part) for part, _ in parts)} test trials are decoded")
        return _write(trained, parts, target, "test")
    if len(trained.folds) > 1:
        say(f"{folder}: {len(trained.folds)} folds; the first one's decoder is used")
    recording = Path(recording)
    name, source = other_source(trained, recording, say)
    usable = np.flatnonzero(source.trials["usable"].to_numpy())
    say(f"{recording}: {len(usable)} of {len(source.trials)} trials can be cut")
    person_N = source.trials["person"].to_numpy(dtype=str)[usable]
    parts = []
    for person in np.unique(person_N):
        file = folder / "people" / f"{person}.safetensors"
        met_before = load_person(file) if file.exists() else None
        parts.append(_predict(trained, 0, name, source, usable[person_N == person], progress, met_before))
    return _write(trained, parts, target, recording.resolve().name)


def _predict(
    trained: Trained, number: int, name: str, source: Source, rows: Index, progress: Progress,
    person: Person | None = None,
) -> tuple[pd.DataFrame, Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:  # fmt: skip
    """Rows of a modality, decoded by a fold's final decoders (as they are for one person): a table, and vectors by
    model."""
    setting, models = trained.setting, trained.models(number, final=True)
    data = ScaledEpochs(
        source.epochs, trained.run.read_scalers(), setting.scaler_stage(trained.stage(number, final=True), name),
        setting.recipe.view,
    )  # fmt: skip
    models = replace(models, data={name: data})
    models = models if person is None else met(models, person)
    pick = Pick(rows, np.ones(len(rows), np.int64), source.person_index[rows])
    asked = Asked({name: pick}, np.zeros(len(rows), np.int64))
    table = source.trials.iloc[rows][list(ABOUT)].reset_index(drop=True).assign(fold=number)
    known = source.people | ({person.name} if person else set())
    table["person_is_known"] = source.trials["person"].iloc[rows].isin(known).astype(int).to_numpy()
    main = name if setting.sources.is_fusion else network_names(setting)[0]
    if setting.task.kind == "retrieve":
        return table, {main: _vectors(models, asked, main, progress)}
    score_NK = models.ask(asked, only=main)[main]
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
