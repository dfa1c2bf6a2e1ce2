"""Which pictures a generator may see, where its run is, and the run opened again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from synapse_diffusion.config import Recipe
from synapse_diffusion.config.tree import digest_of
from synapse_diffusion.encoders.autoencoders import Autoencoder, build_autoencoder
from synapse_diffusion.errors import DataError, RunError, SettingsError, SplitError
from synapse_diffusion.parallel import Group
from synapse_diffusion.runs import Run, load_tensors, save_atomically
from synapse_diffusion.splits import TEST, TRAIN, VALIDATION
from synapse_diffusion.store.embeddings import EmbeddingTable
from synapse_diffusion.store.pictures import find_images, images_root, small_pictures
from synapse_diffusion.training.conditions import Conditions
from synapse_diffusion.training.painter import Painter
from synapse_diffusion.training.parts import Fold
from synapse_diffusion.training.sources import Sources
from synapse_diffusion.types import NOT_AVAILABLE

WEIGHTS = "generator"


@dataclass(frozen=True)
class Parts:
    """Images (ids) by part; what a generator trains on shares no image and no concept with the others."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def picture_parts(table: EmbeddingTable, sources: Sources, folds: Sequence[Fold]) -> Parts:
    """Images by the decoder's split: of trained concepts to train on, of validation's to choose on, test's for nothing.

    An image that was shown in the test part of any fold, to anybody, is a test image, and its concept a test concept.
    Raises `SplitError` where nothing is left.
    """
    shown: dict[str, set[str]] = {TRAIN: set(), VALIDATION: set(), TEST: set()}
    concepts: dict[str, set[str]] = {TRAIN: set(), VALIDATION: set(), TEST: set()}
    for fold in folds:
        for name, split in fold.items():
            trials = sources.of[name].trials
            for part in shown:
                shown[part] |= set(trials.loc[split == part, "image_id"]) - {NOT_AVAILABLE}
                concepts[part] |= set(trials.loc[split == part, "concept"]) - {NOT_AVAILABLE}
    rows = table.rows
    image, concept = rows["image_id"].to_numpy(dtype=str), rows["concept"].to_numpy(dtype=str)
    test_N = np.isin(image, list(shown[TEST])) | np.isin(concept, list(concepts[TEST]))
    validation_N = ~test_N & (np.isin(image, list(shown[VALIDATION])) | np.isin(concept, list(concepts[VALIDATION])))
    train_N = ~test_N & ~validation_N & (np.isin(image, list(shown[TRAIN])) | np.isin(concept, list(concepts[TRAIN])))
    parts = Parts(tuple(image[train_N]), tuple(image[validation_N]), tuple(sorted(shown[TEST])))
    for name, ids in (("train", parts.train), ("validation", parts.validation)):
        if len(ids) < 2:
            raise SplitError(f"{len(ids)} images for the generator's {name} part; it needs images of such concepts")
    check_parts(rows, parts)
    return parts


def check_parts(rows: pd.DataFrame, parts: Parts) -> None:
    """Raises `SplitError` where an image or a concept is on two sides."""
    concept_of = dict(zip(rows["image_id"], rows["concept"], strict=True))
    seen = {name: set(ids) for name, ids in vars(parts).items()}
    of = {name: {concept_of[i] for i in ids if i in concept_of} - {NOT_AVAILABLE} for name, ids in seen.items()}
    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        for kind, sides in (("image", seen), ("concept", of)):
            if both := sides[a] & sides[b]:
                raise SplitError(f"leak: {kind} {min(both)} is in the generator's {a} part and in the {b} part")


@dataclass(frozen=True)
class Files:
    """Files of images, by id."""

    paths: Mapping[str, Path]

    @classmethod
    def below(cls, recipe: Recipe) -> Files:
        """All of `paths.images`."""
        return cls({path.stem: path for path in find_images(images_root(recipe.paths))})

    def small(self, image_ids: Sequence[str], side: int) -> NDArray[np.uint8]:
        """Pictures (N, 3, side, side)."""
        return small_pictures(self._paths(image_ids), side)

    def digest(self, image_ids: Sequence[str]) -> str:
        """Of the images' ids and files."""
        found = hashlib.sha256()
        for image, path in zip(image_ids, self._paths(image_ids), strict=True):
            found.update(f"{image} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        return found.hexdigest()

    def _paths(self, image_ids: Sequence[str]) -> list[Path]:
        if missing := [image for image in image_ids if image not in self.paths]:
            raise DataError(
                f"{len(missing)} of {len(image_ids)} images have no file, e.g. {missing[0]}; set paths.images to the "
                "folder that was embedded"
            )
        return [self.paths[image] for image in image_ids]


def generator_run(recipe: Recipe, table: EmbeddingTable, images: Sequence[str], files: Files) -> tuple[Run, str]:
    """The folder of the generator of these settings, vectors and pictures, and the digest of all three."""
    content = {"settings": recipe.generator.model_dump(mode="json"), "images": files.digest(images)}
    if recipe.generator.components:
        content |= {"table": table.digest, "layers": list(table.vectors)}
    digest = digest_of(content)
    return Run(Path(recipe.paths.runs) / f"{recipe.data.name}-generator-{digest[:8]}"), digest


def check_recipe(recipe: Recipe) -> None:
    """Raises `SettingsError` unless images are retrieved: their vectors and split are the generator's."""
    if recipe.target.task != "retrieve":
        raise SettingsError(
            f"pictures are drawn from vectors of images: target.task must be 'retrieve', not {recipe.target.task!r}"
        )


def autoencoder_of(recipe: Recipe, device: torch.device) -> Autoencoder:
    """The recipe's autoencoder."""
    return build_autoencoder(recipe.generator.autoencoder, recipe.generator.weights, device)


@dataclass(frozen=True)
class Generator:
    """A trained generator."""

    run: Run
    painter: Painter
    conditions: Conditions
    autoencoder: Autoencoder


def save_generator(run: Run, painter: Painter, conditions: Conditions, weights: Mapping[str, torch.Tensor]) -> None:
    """Keep whole `weights` (of every process) and what conditions are made by."""
    tensors = {f"painter.{name}": value for name, value in weights.items()}
    tensors |= {f"conditions.{name}": value for name, value in conditions.tensors().items()}
    about = {
        "layers": dict(conditions.layers), "low_side": conditions.low_side, "low_scale": conditions.low_scale,
        "shape": list(painter.shape),
    }  # fmt: skip
    save_atomically(tensors, run.checkpoint(WEIGHTS), {"about": json.dumps(about)})


def open_generator(folder: Path, digest: str, device: torch.device) -> Generator:
    """The generator of a run. Raises `RunError` where it is missing, unfinished, or of other settings or data."""
    run = Run(folder)
    provenance = run.read_provenance()
    if provenance.get("generator_digest") != digest:
        raise RunError(
            f"{folder}: this generator was trained on another embedding table, other images or settings; train "
            "generator with the run's recipe"
        )
    path = run.checkpoint(WEIGHTS)
    tensors = load_tensors(path)
    with safe_open(path, "pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
    parts = {
        part: {n.removeprefix(part): v for n, v in tensors.items() if n.startswith(part)}
        for part in ("painter.", "conditions.")
    }
    conditions = Conditions.from_tensors(parts["conditions."], about["layers"], about["low_side"], about["low_scale"])
    recipe = run.recipe
    painter = Painter(recipe.generator, tuple(about["shape"]), conditions.sizes, Group())
    expected = {name: tuple(value.shape) for name, value in painter.state_dict().items()}
    if expected != (found := {name: tuple(value.shape) for name, value in parts["painter."].items()}):
        name = min(set(expected.items()) ^ set(found.items()))[0]
        raise RunError(f"{path}: weights of another architecture ({name}); delete the folder and train generator again")
    painter.load_state_dict(parts["painter."])
    autoencoder = autoencoder_of(recipe, device)
    if autoencoder.digest != provenance["autoencoder"]["digest"]:
        raise RunError(f"{folder}: the autoencoder's weights are not those that the generator was trained with")
    return Generator(run, painter.to(device).eval(), conditions, autoencoder)
