"""What trials are decoded into: each trial's class, its concept's answers, or its image's vector."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from synapse_diffusion.bids import rarest, read_concepts
from synapse_diffusion.config import LabelSettings, Recipe
from synapse_diffusion.errors import DataError, SettingsError, StoreError
from synapse_diffusion.models.starts import folds_of
from synapse_diffusion.store.embeddings import (
    EmbeddingTable,
    digest_of_table,
    open_embeddings,
    read_embeddings_manifest,
)
from synapse_diffusion.store.files import read_table
from synapse_diffusion.training.objectives import (
    CONTRASTIVE,
    Classes,
    Images,
    Objective,
    Questions,
    Scaling,
    TargetSpace,
    scaling,
)
from synapse_diffusion.training.sources import Source, Sources
from synapse_diffusion.types import NOT_AVAILABLE

Array = NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """Of one modality's trials: target (N,), and what splits keep in proportion (N,); -1: not used."""

    target_N: Array
    stratum_N: Array


@dataclass(frozen=True)
class Task:
    """What is decoded. A target is a class, a row of `answers`, or a row of `table`."""

    kind: Literal["classify", "questions", "retrieve"]
    names: tuple[str, ...]
    """Classes, questions, or layers."""
    of: Mapping[str, Targets]
    answers: NDArray[np.bool_] | None = None
    """(U, Q)"""
    table: EmbeddingTable | None = None
    concepts: tuple[str, ...] = ()
    """Of each row of `answers` or `table`."""
    scalings: dict[Any, list[Scaling]] = field(default_factory=dict, compare=False, repr=False)
    """What was fitted before."""

    @property
    def digest(self) -> str:
        """Of what trials are decoded into: the table's, or that of every trial's class or answers."""
        if self.table is not None:
            return self.table.digest
        found = hashlib.sha256(repr(self.names).encode())
        for name, targets in self.of.items():
            found.update(name.encode() + targets.target_N.tobytes())
        if self.answers is not None:
            found.update(self.answers.tobytes())
        return found.hexdigest()

    def objective(self, recipe: Recipe, target_N: Array) -> Objective:
        """What is learned from training trials with these targets."""
        seen = torch.from_numpy(target_N)
        if self.answers is not None:
            return Questions(torch.from_numpy(self.answers), seen, torch.from_numpy(folds_of(self.concepts)))
        if self.table is None:
            return Classes(seen, len(self.names), recipe.train.label_smoothing)
        vectors = [torch.from_numpy(self.table.vectors[name]) for name in self.names]
        settings = recipe.target
        if recipe.loss.name not in CONTRASTIVE:  # a learned map would bring all images to one place
            settings = settings.model_copy(update={"projection": 0})
        trained_U = torch.unique(seen)
        space = TargetSpace(vectors, trained_U, settings, self._fitted(vectors, trained_U, settings))
        return Images(space, recipe.loss, torch.from_numpy(folds_of(self.concepts)))

    def _fitted(self, vectors: Sequence[torch.Tensor], trained_U: torch.Tensor, settings: Any) -> list[Scaling]:
        """Scaling of the layers on these images; worked out once for each part of a run."""
        key = (trained_U.numpy().tobytes(), settings.scaling, settings.components)
        if key not in self.scalings:
            self.scalings[key] = [scaling(table_UD[trained_U], settings) for table_UD in vectors]
        return self.scalings[key]

    def units(self, source: Source, modality: str, rows: Array) -> NDArray[np.str_]:
        """What is exchanged and drawn again: images for retrieval, else concepts."""
        column = "image_id" if self.kind == "retrieve" else "concept"
        return source.trials[column].to_numpy(dtype=str)[rows]


def make_task(recipe: Recipe, sources: Sources, digest: str | None = None) -> Task:
    """The recipe's task on these trials; of several tables that would do, that of a `digest`.

    Raises `DataError`, `StoreError`, `SettingsError`.
    """
    kind = recipe.target.task
    if kind == "retrieve":
        if sources.paired_by == "concept":
            raise SettingsError("pairs.by = 'concept': trials of one concept show different images; retrieve by image")
        if recipe.split.method != "concepts":
            raise SettingsError(
                f"target.task = 'retrieve' looks for images that were never trained: split.method must be 'concepts', "
                f"not {recipe.split.method!r}"
            )
        table = find_table(recipe, sources, digest)
        row_of = {image: k for k, image in enumerate(table.rows["image_id"])}
        of = {}
        for modality, source in sources.of.items():
            target = np.asarray(source.trials["image_id"].map(row_of).fillna(-1), dtype=np.int64)
            of[modality] = Targets(target, np.where(target >= 0, 0, -1))
        return Task(kind, tuple(table.vectors), of, table=table, concepts=tuple(table.rows["concept"]))
    if kind == "questions":
        return _questions(recipe, sources)
    every = {m: label_trials(s.trials, recipe.labels, concept_folder(recipe)) for m, s in sources.of.items()}
    names = next(iter(every.values()))[0]
    if any(found[0] != names for found in every.values()):
        raise DataError("labels.classes is empty and EEG and MEG have other classes; name those to decode")
    return Task(kind, names, {modality: Targets(label_N, label_N) for modality, (_, label_N) in every.items()})


def _questions(recipe: Recipe, sources: Sources) -> Task:
    """Yes or no to each category; splits keep the rarest category of each concept in proportion."""
    if recipe.labels.source != "things":
        raise SettingsError("target.task = 'questions' asks for THINGS' categories; labels.source must be 'things'")
    folder = concept_folder(recipe)
    table = read_concepts(folder)
    names = recipe.labels.classes or table.categories
    answers = table.columns(names)
    row_of = {name: k for k, name in enumerate(table.concepts)}
    known = set(table.concepts)
    rarest_C = rarest(answers)
    of = {}
    for modality, source in sources.of.items():
        concept = source.trials["concept"]
        if unknown := sorted(set(concept) - known - {NOT_AVAILABLE}):
            raise DataError(f"{folder}: the concept table lacks {', '.join(unknown[:5])} ({len(unknown)} in all)")
        target = np.asarray(concept.map(row_of).fillna(-1), dtype=np.int64)
        stratum = np.where(target >= 0, rarest_C[target], -1)
        of[modality] = Targets(target, merge_rare(stratum, concept.to_numpy(dtype=str), len(names)))
    return Task("questions", tuple(names), of, answers=answers, concepts=tuple(table.concepts))


def merge_rare(stratum_N: Array, concept_N: NDArray[np.str_], rest: int, fewest: int = 8) -> Array:
    """Strata of fewer concepts than can be split join the rest."""
    out = stratum_N.copy()
    for stratum in np.unique(stratum_N[stratum_N >= 0]):
        if len(set(concept_N[stratum_N == stratum])) < fewest:
            out[stratum_N == stratum] = rest
    if len(set(concept_N[out == rest])) < fewest:
        others = out[(out >= 0) & (out != rest)]
        out[out == rest] = np.bincount(others).argmax() if len(others) else rest
    return out


def find_table(recipe: Recipe, sources: Sources, digest: str | None = None) -> EmbeddingTable:
    """The table of the images' vectors that the recipe describes, with a row for every image that was shown.

    Where tables of several data sets have them, by one encoder: that of `digest`, else the recipe's own data set's.
    Raises `StoreError` where none would do, or two of other weights.
    """
    shown = {
        str(image)
        for source in sources.of.values()
        for image in source.trials.loc[source.trials["is_catch"] == 0, "image_id"].unique()
    } - {NOT_AVAILABLE}
    root = Path(recipe.paths.embeddings)
    if recipe.target.table:
        table = open_embeddings(root / recipe.target.table, recipe.target.layers)
        return _covering(table, shown, root / recipe.target.table)
    found = [root / name for name in described_tables(recipe)]
    fitting = {path: read_embeddings_manifest(path) for path in found if shown <= _images_of(path)}
    encoders = [manifest["encoder"] for manifest in fitting.values()]
    known = [path for path, manifest in fitting.items() if digest_of_table(manifest) == digest]
    if known or len({encoder.get("digest") for encoder in encoders}) == 1:
        mine = f"{recipe.data.name}-{encoders[0].get('name')}-"
        own = [path for path in fitting if path.name.startswith(mine)]
        return open_embeddings([*known, *own, *fitting][0], recipe.target.layers)
    if not found:
        raise StoreError(
            f"{root}: no embedding table of encoder {recipe.embed.encoder}; run `synapse-diffusion embed` with this "
            "recipe, or name one in target.table"
        )
    if not fitting:
        return _covering(open_embeddings(found[0], recipe.target.layers), shown, found[0])
    names = ", ".join(path.name for path in fitting)
    raise StoreError(f"{root}: tables of other weights have these images too ({names}); name one in target.table")


def described_tables(recipe: Recipe) -> dict[str, Any]:
    """Tables under `paths.embeddings` of the recipe's encoder settings, by name: their files' checksums."""
    folders = sorted(Path(recipe.paths.embeddings).glob("[!.]*"))
    return {path.name: read_embeddings_manifest(path)["checksums"] for path in folders if _described(path, recipe)}


def _described(path: Path, recipe: Recipe) -> bool:
    """Was the table made with the recipe's encoder settings?"""
    try:
        manifest = read_embeddings_manifest(path)
    except StoreError:
        return False
    about = recipe.embed.about()
    said = {"weights": about["weights"], "layers": about["layers"], **manifest["encoder"]}  # older tables say neither
    if any(said.get(name) != about[name] for name in ("kind", "token", "precision", "weights")):
        return False
    if recipe.target.layers:  # whatever else was embedded beside them
        return set(recipe.target.layers) <= set(manifest["layers"])
    return bool(said["layers"] == about["layers"])


def _images_of(folder: Path) -> set[str]:
    try:
        return set(read_table(folder / "rows.tsv")["image_id"])
    except (OSError, KeyError):
        return set(open_embeddings(folder).rows["image_id"])  # says what is wrong with it


def _covering(table: EmbeddingTable, shown: set[str], folder: Path) -> EmbeddingTable:
    there = set(table.rows["image_id"])
    if missing := sorted(shown - there):
        raise StoreError(
            f"{folder}: {len(missing)} of {len(shown)} images that were shown have no vector, e.g. {missing[0]}; add "
            "them to paths.images and run `synapse-diffusion embed` again"
        )
    return table


def concept_folder(recipe: Recipe) -> Path:
    """Where the concept table is."""
    return Path(recipe.paths.things or recipe.paths.bids)


def label_trials(trials: pd.DataFrame, labels: LabelSettings, folder: Path) -> tuple[tuple[str, ...], Array]:
    """Class names and each trial's class (N,), -1 for none. Raises `DataError` for a class that is not there."""
    if labels.source == "column":
        column = trials["label"].to_numpy(dtype=str)
        there = sorted(set(column) - {"n/a"})
        classes = labels.classes or tuple(there)
        if missing := [name for name in classes if name not in there]:
            found = ", ".join(there) or "none (name the column in data.events.label)"
            raise DataError(f"labels.classes: no trial has the label {', '.join(missing)}; there are {found}")
        member = np.stack([column == name for name in classes], axis=1)
    else:
        if not labels.classes:
            raise DataError('labels.classes is empty; name two or more categories, e.g. ["fruit", "furniture"]')
        table = read_concepts(folder)
        classes = labels.classes
        of_concept = dict(zip(table.concepts, table.columns(classes), strict=True))
        concept = trials["concept"].to_numpy(dtype=str)
        if unknown := sorted(set(concept) - set(of_concept) - {"n/a"}):
            raise DataError(f"{folder}: the concept table lacks {', '.join(unknown[:5])} ({len(unknown)} in all)")
        none = np.zeros(len(classes), bool)
        member = np.stack([of_concept.get(name, none) for name in concept])
    if len(classes) < 2:
        raise DataError(f"labels.classes: {', '.join(classes) or 'none'}; a decision needs two or more")
    label_N = np.where(member.any(1), member.argmax(1), -1)
    if labels.several == "leave_out":
        label_N[member.sum(1) > 1] = -1
    return classes, label_N


def deal_labels(label_U: Array, rng: np.random.Generator) -> Array:
    """Labels (U,) dealt anew so that every true class receives all labels in their proportions.

    A plain permutation is correlated with the truth by accident (1 / sqrt(U)), enough for a decoder to learn from.
    """
    interleaved_key = np.empty(len(label_U))
    for label in np.unique(label_U):
        mine = np.flatnonzero(label_U == label)
        interleaved_key[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    spread = label_U[np.argsort(interleaved_key, kind="stable")]
    order = np.lexsort([rng.random(len(label_U)), label_U])  # by true class, at random within
    dealt = np.empty_like(label_U)
    dealt[order] = spread
    return dealt


def shuffled_targets(kind: str, target_N: Array, unit_N: Array, rng: np.random.Generator) -> Array:
    """Targets (N,) dealt anew among units (concepts, images or trials), as a control; the same trial rows."""
    _, first, index = np.unique(unit_N, return_index=True, return_inverse=True)
    if kind == "classify":
        return deal_labels(target_N[first], rng)[index]
    return target_N[first][rng.permutation(len(first))][index]


def with_targets(task: Task, modality: str, target_N: Array) -> Task:
    """The task with other targets of one modality."""
    return replace(task, of={**task.of, modality: replace(task.of[modality], target_N=target_N)})
