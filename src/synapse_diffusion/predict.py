"""A trained run and trials -> a table of what the decoder says, and predicted vectors of images.

For the run's own test part, or for recordings that it never saw: of people whom it knows, or not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from synapse_diffusion.errors import RunError, StoreError
from synapse_diffusion.splits import TEST, TRAIN
from synapse_diffusion.store.embeddings import EmbeddingTable, true_rows, write_embeddings
from synapse_diffusion.store.files import write_table
from synapse_diffusion.training.adaptation import Person, load_person, met
from synapse_diffusion.training.data import ScaledEpochs
from synapse_diffusion.training.decisions import ABOUT
from synapse_diffusion.training.decoding import FoldModels, network_names
from synapse_diffusion.training.examples import Asked, Pick, chunks, read
from synapse_diffusion.training.setting import Index
from synapse_diffusion.training.sources import Source
from synapse_diffusion.training.trained import Trained, open_trained, other_source
from synapse_diffusion.types import NOT_AVAILABLE, Folder, Progress, Say, silent

Floats = NDArray[np.float32]


def predict(
    folder: Folder, recording: Folder | None = None, out: Folder | None = None,
    say: Say = silent, progress: Progress = silent,
) -> list[Path]:  # fmt: skip
    """Decode single trials; returns the paths written (`trials_<name>.tsv`, and for images `vectors_<name>/`).

    Vectors are unit vectors in the space that the decoder learned, where all images' own (source true) lie beside them:
    their cosines are what retrieval ranks by. Folds have a table each.

    Without `recording` each trial of the run's test part, by the decoder of its fold. Of a person whom `adapt` has met
    the weights and scalers are those that it found; else a session that training never met takes the scalers of its
    person's first, a person whom it never met those of all training trials: nothing of the new recording is used
    (inductive). Electrodes of the run that an EEG
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
        say(f"{sum(len(part.table) for part in parts)} test trials are decoded")
        return _write(trained, parts, target, "test")
    recording = Path(recording)
    name, source = other_source(trained, recording, say)
    usable = np.flatnonzero(source.trials["usable"].to_numpy())
    if not len(usable):
        raise StoreError(
            f"{recording}: none of its {len(source.trials)} trials has a window of {trained.run.recipe.view.start_s:g} "
            f"to {trained.run.recipe.view.stop_s:g} s (view.*) inside the recording and free of bad stretches"
        )
    say(f"{recording}: {len(usable)} of {len(source.trials)} trials can be cut")
    person_N = source.trials["person"].to_numpy(dtype=str)[usable]
    folds = {str(person): _fold_for(trained, name, str(person)) for person in np.unique(person_N)}
    if len(trained.folds) > 1:
        say(f"{folder}: {len(trained.folds)} folds; of those that know a person the first one's decoder is used")
    parts = []
    for person, number in folds.items():
        file = folder / "people" / f"{person}.safetensors"
        met_before = load_person(file) if file.exists() else None
        parts.append(_predict(trained, number, name, source, usable[person_N == person], progress, met_before))
    if n_trained := sum(int(part.table["trial_was_trained"].sum()) for part in parts):
        say(f"{n_trained} of these trials trained their decoder: trial_was_trained marks them, none is a test of it")
    return _write(trained, parts, target, recording.resolve().name)


def _fold_for(trained: Trained, name: str, person: str) -> int:
    """The fold whose decoder decodes that person. Raises `RunError` where there is one a person, and none of theirs."""
    if not trained.setting.recipe.split.per_person:
        return 0
    of_person = (trained.setting.sources.of[name].trials["person"] == person).to_numpy()
    for number, fold in enumerate(trained.folds):
        if (of_person & (fold[name] == TRAIN)).any():
            return number
    raise RunError(
        f"{trained.run.folder}: has one decoder a person (split.per_person), and none of sub-{person}; train one for "
        "all to decode others"
    )


@dataclass(frozen=True)
class _Decoded:
    """Single trials' table; of images also predicted vectors (N, D), and all images' own (U, D) in the same space."""

    table: pd.DataFrame
    model: str
    vectors: Floats | None = None
    images: Floats | None = None


def _predict(
    trained: Trained, number: int, name: str, source: Source, rows: Index, progress: Progress,
    person: Person | None = None,
) -> _Decoded:  # fmt: skip
    """Rows of a modality, decoded by a fold's final decoders (as they are for one person)."""
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
    table = table.assign(**_met_in_training(trained, number, name, source, rows))
    main = name if setting.sources.is_fusion else network_names(setting)[0]
    if setting.task.kind == "retrieve":
        return _Decoded(table, main, _vectors(models, asked, main, progress), models.image_vectors(main))
    score_NK = models.ask(asked, only=main)[main]
    if setting.task.answers is None:
        table["predicted"] = [setting.task.names[k] for k in score_NK.argmax(1)]
        score_NK = np.exp(score_NK - np.logaddexp.reduce(score_NK, axis=1, keepdims=True))
    else:
        score_NK = 1 / (1 + np.exp(-score_NK))
    share = pd.DataFrame(score_NK.round(6), columns=[f"p({n})" for n in setting.task.names])
    return _Decoded(pd.concat([table, share], axis=1), main)


def _met_in_training(trained: Trained, number: int, name: str, source: Source, rows: Index) -> dict[str, Index]:
    """Whether the decoder was trained on each trial itself, and on its concept: 1 where it was."""
    own, fitted = trained.setting.sources.of[name], trained.trained_rows(number, final=True)[name]
    digest = {k: store.signal_digest for k, store in enumerate(own.epochs.stores)}
    trials, mine = own.trials.iloc[fitted], source.trials.iloc[rows]
    met = set(zip(trials["store"].map(digest), trials["trial_id"], strict=True))
    theirs = mine["store"].map({k: store.signal_digest for k, store in enumerate(source.epochs.stores)})
    trial_N = [pair in met for pair in zip(theirs, mine["trial_id"], strict=True)]
    concept_N = mine["concept"].isin(set(trials["concept"]) - {NOT_AVAILABLE})
    return {
        "trial_was_trained": np.array(trial_N, dtype=np.int64),
        "concept_was_trained": concept_N.to_numpy().astype(np.int64),
    }


def _vectors(models: FoldModels, asked: Asked, main: str, progress: Progress) -> Floats:
    parts = []
    for at in chunks(len(asked)):
        progress("predicting vectors", at.start, len(asked))
        with torch.no_grad():
            parts.append(models.vectors(read(asked.part(at), models.data), main))
    return np.concatenate(parts)


def _write(trained: Trained, parts: list[_Decoded], folder: Path, name: str) -> list[Path]:
    """The table of all trials; vectors of each fold apart, since each may have learned a space of its own."""
    paths = [folder / f"trials_{name}.tsv"]
    write_table(pd.concat([part.table for part in parts], ignore_index=True), paths[0])
    target = trained.setting.task.table
    folds = sorted({int(part.table["fold"].iloc[0]) for part in parts}) if target is not None else []
    for number in folds:
        assert target is not None
        mine = [part for part in parts if part.table["fold"].iloc[0] == number]
        table = pd.concat([part.table for part in mine], ignore_index=True)
        brain = table.assign(row_id=table["trial_id"], split=name, k_repeats=1, draw=0, source="brain")
        true = true_rows(list(target.rows["image_id"]), list(target.rows["concept"]))
        vectors = np.concatenate([v for v in (*(part.vectors for part in mine), mine[0].images) if v is not None])
        about = {"kind": "brain", "run": trained.run.folder.name, "targets": trained.run.provenance["targets"]}
        paths.append(folder / (f"vectors_{name}_fold{number}" if len(folds) > 1 else f"vectors_{name}"))
        rows = pd.concat([brain, true], ignore_index=True)
        write_embeddings(EmbeddingTable(rows, {mine[0].model: vectors}, about), paths[-1])
    return paths
